"""What is written can be read back."""

from __future__ import annotations

import av
import numpy as np
import pytest

from omni_sdk.errors import MediaError
from omni_sdk.media.frames import AudioClip
from omni_sdk.media.source import open_source
from omni_sdk.output import writers
from omni_sdk.output.palette import davis_palette, object_colour
from omni_sdk.output.writers import (
    OverlayWriter,
    contour,
    draw_masks,
    label_map,
    write_indexed_png,
)


def disc(size: tuple[int, int], centre: tuple[int, int], radius: int) -> np.ndarray:
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def test_palette() -> None:
    palette = davis_palette()
    assert palette[:5].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert palette[[8, 9, 21]].tolist() == [[64, 0, 0], [191, 0, 0], [128, 64, 128]]
    assert palette[[22, 255]].tolist() == [[22, 22, 22], [255, 255, 255]]
    colours = [object_colour(n) for n in range(1, 22)]
    assert len(set(colours)) == 21
    assert object_colour(22) == object_colour(1) != (0, 0, 0)


@pytest.mark.parametrize("size", [(37, 53), (1, 1), (480, 854)])
def test_indexed_png_reads_back(size, tmp_path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    labels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    path = write_indexed_png(tmp_path / "new" / "00000.png", labels)
    with image_module.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), labels)
        assert image.getpalette() == davis_palette().reshape(-1).tolist()
    with open_source(path) as video:
        np.testing.assert_array_equal(video.fetch([0]).frames[0], davis_palette()[labels])


def test_label_map() -> None:
    masks = {3: disc((20, 20), (8, 8), 5), 1: disc((20, 20), (11, 11), 5)}
    labels = label_map(masks, (20, 20))
    np.testing.assert_array_equal(labels == 3, masks[3])
    np.testing.assert_array_equal(labels == 1, masks[1] & ~masks[3])
    with pytest.raises(ValueError, match="object ids 1 to 255, got 256"):
        label_map({256: masks[1]}, (20, 20))
    with pytest.raises(ValueError, match="mask 1: expected"):
        label_map({1: masks[1]}, (20, 21))
    with pytest.raises(ValueError, match=r"expected \(H, W\) uint8 values, got int64"):
        write_indexed_png("x.png", np.zeros((2, 2), np.int64))


def test_drawing() -> None:
    image = np.full((40, 60, 3), 200, np.uint8)
    mask = disc((40, 60), (20, 30), 10)
    drawn = draw_masks(image, {2: mask}, opacity=0.5)
    np.testing.assert_array_equal(drawn[~mask], image[~mask])
    border = contour(mask, 1)
    assert border[10, 30]
    assert not border[20, 30]
    assert (drawn[border] == object_colour(2)).all()
    assert drawn[20, 30].tolist() == [100, 164, 100]
    assert (image == 200).all()
    everything = np.ones((40, 60), bool)
    assert not contour(everything, 3).any()
    np.testing.assert_array_equal(draw_masks(image, {1: ~everything}), image)
    with pytest.raises(ValueError, match="mask 1: expected"):
        draw_masks(image, {1: mask[:5]})


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_overlay_reads_back(size, tmp_path, draw) -> None:
    times = [0.0, 0.04, 0.1, 0.3]
    mask = disc(size, (20, 30), 12)
    tone = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32) * 0.5
    clip = AudioClip(samples=tone, sampling_rate=16000, start_seconds=0.0)
    path = tmp_path / "out" / "overlay.mp4"
    with OverlayWriter(path, size=size, sound=clip) as writer:
        for n, seconds in enumerate(times):
            writer.write(draw(n, *size), {1: mask}, pts_seconds=seconds)
    with open_source(path) as video:
        assert len(video) == 4
        np.testing.assert_allclose(video.index.pts_seconds, times, atol=1e-4)
        even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
        assert (video.info.height, video.info.width) == even
        shown = video.fetch([2]).frames[0][: size[0], : size[1]].astype(int)
        expected = draw_masks(draw(2, *size), {1: mask}).astype(int)
        inside = disc(size, (20, 30), 8)
        assert np.abs(shown - expected)[inside].mean() < 15
        sound = video.audio()
        assert sound is not None
        assert 0.3 < len(sound.samples) / 16000 < 0.5  # as long as the frames
        assert np.abs(sound.samples[1000:4000]).max() == pytest.approx(0.5, abs=0.1)


def test_overlay_without_libx264(tmp_path, draw, monkeypatch) -> None:
    absent = ("no_such_encoder", {})
    monkeypatch.setattr(writers, "_CODECS", (absent, *writers._CODECS[1:]))
    with OverlayWriter(tmp_path / "o.mp4", size=(48, 64)) as writer:
        for n in range(5):
            writer.write(draw(n, 48, 64), {}, pts_seconds=n / 25)
    with av.open(str(tmp_path / "o.mp4")) as written:
        assert written.streams.video[0].codec_context.name == "mpeg4"
    with open_source(tmp_path / "o.mp4") as video:
        assert len(video) == 5
        shown = video.fetch([3]).frames[0].astype(int)
        assert np.abs(shown - draw(3, 48, 64)).mean() < 30


def test_overlay_refuses_what_does_not_fit(tmp_path, draw) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(MediaError, match="cannot be written"):
        OverlayWriter(tmp_path / "folder.mp4", size=(48, 64))
    with pytest.raises(ValueError, match="opacity"):
        OverlayWriter(tmp_path / "o.mp4", size=(48, 64), opacity=2)
    writer = OverlayWriter(tmp_path / "o.mp4", size=(48, 64))
    writer.write(draw(0, 48, 64), {}, pts_seconds=0.5)
    with pytest.raises(ValueError, match="frame times must ascend"):
        writer.write(draw(0, 48, 64), {}, pts_seconds=0.5)
    with pytest.raises(ValueError, match="expected uint8"):
        writer.write(draw(0, 48, 66), {}, pts_seconds=0.6)
    writer.close()
    writer.close()


def test_nothing_is_printed(tmp_path, draw, capfd) -> None:
    with OverlayWriter(tmp_path / "o.mp4", size=(48, 64)) as writer:
        writer.write(draw(0, 48, 64), {}, pts_seconds=0)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
