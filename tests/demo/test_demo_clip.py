"""Clips written as mp4 and read back."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from omni_sdk.demo import clip
from omni_sdk.demo.clip import EncoderOptions, SceneTruth, scene_truth, write_clip
from omni_sdk.demo.render import render
from omni_sdk.demo.scene import make_scene
from omni_sdk.demo.sound import waveform
from omni_sdk.demo.world import COLORS, STEP_SECONDS
from omni_sdk.errors import BackendUnavailableError

SCENE = make_scene(5_400_000, "sound")


def decode(path: Path) -> tuple[np.ndarray, list[float], np.ndarray]:
    """All frames (T, H, W, 3), their times, and the sound (N,) float32."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("flt", "mono", 16_000)
        pieces = [p for f in container.decode(audio=0) for p in resampler.resample(f)]
    pictures = np.stack([f.to_ndarray(format="rgb24") for f in frames])
    sound = np.concatenate([p.to_ndarray()[0] for p in pieces])
    return pictures, [float(f.time) for f in frames], sound


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SceneTruth]:
    path = tmp_path_factory.mktemp("clip") / "scene.mp4"
    return path, write_clip(SCENE, path)


def test_container(written: tuple[Path, SceneTruth]) -> None:
    path, truth = written
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert container.duration == 8_000_000  # microseconds
        assert float(video.duration * video.time_base) == 8.0
        assert float(audio.duration * audio.time_base) == 8.0
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height, video.average_rate) == (384, 384, 8)
        assert (audio.codec_context.sample_rate, audio.codec_context.channels) == (16_000, 1)
        orders = [p.pts for p in container.demux(video) if p.pts is not None]
    assert len(orders) == truth.num_frames == 64
    assert path.stat().st_size < 2_000_000


def test_frames_and_masks_align(written: tuple[Path, SceneTruth]) -> None:
    path, truth = written
    pictures, times, _ = decode(path)
    assert pictures.shape == (64, 384, 384, 3)
    assert times == list(truth.pts_seconds) == [i / 8 for i in range(64)]
    checked = 0
    for index in range(0, 64, 5):
        for number, item in enumerate(SCENE.objects):
            inside = truth.mask(index, number)
            assert inside.any() <= item.visible(times[index])
            if inside.sum() > 500:
                mean = pictures[index][inside].mean(0)
                assert np.abs(mean - COLORS[item.color]).max() < 15
                checked += 1
        clean = render(SCENE, times[index], truth.size, grain=0).astype(int)
        assert np.abs(pictures[index] - clean).mean() < 6  # 4.8 is the noise itself
    assert checked > 15


def test_sound_aligns(written: tuple[Path, SceneTruth]) -> None:
    _, _, sound = decode(written[0])
    wave = waveform(SCENE)
    assert len(sound) == len(wave) == 128_000
    lags = range(-1100, 1101)
    match = [float(np.dot(sound[2000 + lag : 126_000 + lag], wave[2000:126_000])) for lag in lags]
    assert lags[int(np.argmax(match))] == 0
    assert SCENE.tone is not None
    onset = round(SCENE.tone.start * STEP_SECONDS * 16_000)
    assert np.abs(sound[: onset - 2048]).max() < 0.05
    assert np.abs(sound[onset : onset + 512]).max() > 0.2


def test_truth(written: tuple[Path, SceneTruth]) -> None:
    truth = written[1]
    assert truth == scene_truth(SCENE)
    assert truth.query == "the shape that makes the sound"
    assert truth.target == SCENE.target
    assert truth.target is not None
    name = SCENE.objects[truth.target].name
    assert truth.description == f"a {name}"
    assert f'"description":"a {name}"' in truth.answer
    assert truth.span_seconds == SCENE.span_seconds
    masks = list(truth.masks(truth.target))
    assert len(masks) == 64
    boxes = [truth.box(i, truth.target) for i in range(64)]
    assert [b is not None for b in boxes] == [m.any() for m in masks]
    with pytest.raises(IndexError, match=r"frames 0\.\.63"):
        truth.mask(64, 0)
    with pytest.raises(IndexError, match="objects"):
        truth.mask(0, 9)


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for path in paths:
        write_clip(SCENE, path, size=(96, 128), fps=10)
    first, second = (p.read_bytes() for p in paths)
    assert first == second
    pictures, times, _ = decode(paths[0])
    assert pictures.shape == (80, 96, 128, 3)
    np.testing.assert_allclose(times, np.arange(80) / 10, atol=1e-4)


@pytest.mark.parametrize(("fps", "frames"), [(2, 16), (29.97, 240), (0.3, 3)])
def test_frame_rates(tmp_path: Path, fps: float, frames: int) -> None:
    truth = write_clip(SCENE, tmp_path / "a.mp4", size=(48, 48), fps=fps)
    pictures, times, _ = decode(tmp_path / "a.mp4")
    assert len(pictures) == truth.num_frames == frames
    np.testing.assert_allclose(times, truth.pts_seconds, atol=1e-4)
    assert truth.pts_seconds[-1] < 8 <= truth.pts_seconds[-1] + 1 / fps + 1e-3


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_without_h264_and_aac(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "VIDEO_CODECS", ("no_such_codec", "mpeg4"))
    monkeypatch.setattr(clip, "AUDIO_CODECS", ("pcm_s16le",))
    truth = write_clip(SCENE, tmp_path / name, size=(96, 96))
    pictures, times, sound = decode(tmp_path / name)
    assert pictures.shape == (64, 96, 96, 3)
    assert times == list(truth.pts_seconds)
    np.testing.assert_allclose(sound, waveform(SCENE), atol=1e-4)


def test_no_encoder_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "VIDEO_CODECS", ("no_such_codec",))
    with pytest.raises(BackendUnavailableError, match="no_such_codec"):
        write_clip(SCENE, tmp_path / "a.mp4")


def test_arguments_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        write_clip(SCENE, tmp_path / "a.mp4", size=(95, 96))
    with pytest.raises(ValueError, match="fps"):
        write_clip(SCENE, tmp_path / "a.mp4", fps=float("nan"))
    with pytest.raises(ValueError, match="fps"):
        scene_truth(SCENE, fps=241)
    with pytest.raises(ValueError, match="crf"):
        EncoderOptions(crf=52)
    with pytest.raises(ValueError, match="group"):
        EncoderOptions(group=0)
    assert not list(tmp_path.iterdir())
