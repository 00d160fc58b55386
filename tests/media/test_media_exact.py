"""Every frame handed out has the time and the pixels of a decode of the whole file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from omni_sdk.media.limits import MediaLimits
from omni_sdk.media.pixels.resize import resize
from omni_sdk.media.source import open_source

X264 = {"g": "10", "bf": "3", "threads": "1"}
UNEVEN = [int(v) for v in np.cumsum(np.random.default_rng(0).integers(1, 9, 40))]

CASES: dict[str, tuple[str, dict]] = {
    "h264_b_frames": ("a.mp4", {"options": X264}),
    "h264_b_pyramid": ("a.mp4", {"options": {**X264, "x264-params": "b-pyramid=normal:ref=4"}}),
    "h264_open_gop": ("a.mp4", {"options": {**X264, "x264-params": "open-gop=1:b-adapt=0"}}),
    "h264_open_gop_mkv": ("a.mkv", {"options": {**X264, "x264-params": "open-gop=1:b-adapt=0"}}),
    "h264_one_group": ("a.mp4", {"options": {"g": "250", "bf": "3"}}),
    "h264_intra_only": ("a.mp4", {"options": {"g": "1"}}),
    "h264_intra_refresh": ("a.mp4", {"options": {"g": "10", "x264-params": "intra-refresh=1"}}),
    "h264_intra_refresh_ts": ("a.ts", {"options": {"g": "10", "x264-params": "intra-refresh=1"}}),
    "h264_interlaced": ("a.mp4", {"options": {**X264, "x264-params": "tff=1"}}),
    "h264_444": ("a.mp4", {"options": X264, "pix_fmt": "yuv444p"}),
    "h264_10_bit": ("a.mp4", {"options": X264, "pix_fmt": "yuv420p10le"}),
    "h264_vfr": (
        "a.mp4",
        {"options": X264, "ticks": UNEVEN, "time_base": Fraction(1, 100)},
    ),
    "h264_ts": ("a.ts", {"options": X264}),
    "h264_ts_open_gop": ("a.ts", {"options": {**X264, "x264-params": "open-gop=1:b-adapt=0"}}),
    "h264_fragmented": (
        "a.mp4",
        {"options": X264, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    ),
    "h264_fragmented_default_base": (
        "a.mp4",
        {"options": X264, "container_options": {"movflags": "cmaf+frag_every_frame"}},
    ),
    "h264_late_start": (
        "a.mp4",
        {"options": X264, "ticks": range(100, 140), "container_options": {"use_editlist": "1"}},
    ),
    "h264_negative_times": (
        "a.mp4",
        {
            "options": X264,
            "ticks": range(-7, 33),
            "container_options": {"avoid_negative_ts": "disabled", "use_editlist": "0"},
        },
    ),
    "h264_avi_b_frames": ("a.avi", {"options": X264}),
    "h264_avi": ("a.avi", {"options": {"g": "10", "bf": "0"}}),
    "h264_raw": ("a.h264", {"options": X264, "format": "h264"}),
    "h264_flv": ("a.flv", {"options": X264}),
    "hevc": ("a.mp4", {"codec": "libx265", "options": {"x265-params": "keyint=10:log-level=none"}}),
    "hevc_open_gop": (
        "a.mp4",
        {
            "codec": "libx265",
            "options": {
                "x265-params": "keyint=10:min-keyint=10:open-gop=1:bframes=3:log-level=none"
            },
        },
    ),
    "hevc_10_bit_mkv": (
        "a.mkv",
        {
            "codec": "libx265",
            "pix_fmt": "yuv420p10le",
            "options": {"x265-params": "keyint=10:log-level=none"},
        },
    ),
    "vp9": ("a.webm", {"codec": "libvpx-vp9", "options": {"g": "10", "deadline": "realtime"}}),
    "vp9_alt_ref": (
        "a.webm",
        {
            "codec": "libvpx-vp9",
            "options": {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"},
        },
    ),
    "vp8_hidden_frames": (
        "a.webm",
        {
            "codec": "libvpx",
            "options": {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"},
        },
    ),
    "mpeg4_b_frames_avi": ("a.avi", {"codec": "mpeg4", "options": {"g": "10", "bf": "2"}}),
    "mpeg2_ts": ("a.ts", {"codec": "mpeg2video", "options": {"g": "10", "bf": "2"}}),
    "mjpeg": ("a.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "ffv1": ("a.mkv", {"codec": "ffv1", "options": {"g": "5"}}),
    "odd_size": ("a.mp4", {"options": X264, "size": (47, 63), "pix_fmt": "yuv444p"}),
    "odd_size_420": ("a.webm", {"codec": "libvpx-vp9", "size": (47, 63), "options": {"g": "10"}}),
    "bt709_full_range": ("a.mp4", {"options": X264, "color": (1, 2)}),
    "gif": ("a.gif", {"codec": "gif", "pix_fmt": "rgb8", "frames": 12}),
}


@pytest.mark.parametrize("case", CASES)
def test_all_ways_equal_a_full_decode(case, make_video, decode_all) -> None:
    name, options = CASES[case]
    path = make_video(name, **options)
    oracle = decode_all(path)
    total = len(oracle.images)
    assert total >= options.get("frames", 40) - 2  # the encoder did what was asked
    with open_source(path, limits=MediaLimits(max_frames_held=6)) as video:
        assert len(video) == video.info.num_frames == total
        if None not in oracle.pts and oracle.pts == sorted(oracle.pts):
            np.testing.assert_allclose(video.index.pts_seconds, oracle.seconds, atol=1e-9)
        assert not video.info.truncated
        assert (video.index.height, video.index.width) == oracle.images[0].shape[:2]

        sparse = video.sample(num_frames=5)
        assert sparse.frame_indices.tolist() == np.rint(np.linspace(0, total - 1, 5)).tolist()
        for index, image in zip(sparse.frame_indices, sparse.frames, strict=True):
            np.testing.assert_array_equal(image, oracle.images[index], err_msg=f"sample {index}")

        order = np.random.default_rng(1).permutation(total)
        every = video.fetch(order)
        assert every.frame_indices.tolist() == order.tolist()
        for index, image in zip(order, every.frames, strict=True):
            np.testing.assert_array_equal(image, oracle.images[index], err_msg=f"fetch {index}")
        for index in (total - 1, total // 2, 1):  # alone: another plan than in company
            np.testing.assert_array_equal(video.fetch([index]).frames[0], oracle.images[index])

        start, stop = total // 4, total - 3
        ahead = list(video.forward(start, stop))
        assert [f.frame_index for f in ahead] == list(range(start, stop))
        back = list(video.backward(stop, start))
        assert [f.frame_index for f in back] == list(range(stop, start, -1))
        for frame in ahead + back:
            np.testing.assert_array_equal(frame.image, oracle.images[frame.frame_index])
            assert frame.pts_seconds == video.index.pts_seconds[frame.frame_index]
        assert video.missing == ()


@pytest.mark.parametrize("name", ["whole.mp4", "whole.mkv"])
def test_several_containers_side_by_side_give_the_same(name, make_video, decode_all, monkeypatch):
    path = make_video(name, frames=60, options=X264)
    oracle = decode_all(path)
    for cpus in (1, 2, 8):
        monkeypatch.setattr("os.cpu_count", lambda cpus=cpus: cpus)
        with open_source(path) as video:
            batch = video.sample(num_frames=20)
        for index, image in zip(batch.frame_indices, batch.frames, strict=True):
            np.testing.assert_array_equal(image, oracle.images[index])


def test_resized_frames_are_the_full_ones_resized(clip) -> None:
    with open_source(clip) as video:
        full = video.fetch([3, 17, 29]).frames
        small = video.sample(indices=[3, 17, 29], size=(20, 30))
        np.testing.assert_array_equal(small.frames, resize(full, (20, 30), "bicubic"))
        walked = next(video.forward(17, 18, size=(33, 21)))
        np.testing.assert_array_equal(walked.image, resize(full[1], (33, 21), "bilinear"))


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_is_applied(rotation, make_video, decode_all) -> None:
    cv2 = pytest.importorskip("cv2")
    path = make_video(options=X264, rotation=rotation)
    with open_source(path) as video:
        upright = [np.rot90(i, rotation // 90) for i in decode_all(path).images]
        assert (video.info.height, video.info.width) == upright[0].shape[:2]
        assert video.index.rotation % 360 == rotation % 360
        np.testing.assert_array_equal(video.fetch([0, 13]).frames, [upright[0], upright[13]])
        shown = [f.image for f in video.forward(0, 3)]
        np.testing.assert_array_equal(shown, upright[:3])
    capture = cv2.VideoCapture(str(path))  # an independent reader that applies rotation
    ok, other = capture.read()
    capture.release()
    assert ok
    assert other.shape == upright[0].shape
    assert np.abs(other[..., ::-1].astype(int) - upright[0]).mean() < 3


def test_colours_follow_the_streams_matrix_and_range(make_video, draw) -> None:
    images = {}
    for name, color in {"601": (5, 1), "709": (1, 1), "709_full": (1, 2)}.items():
        path = make_video(
            f"{name}.mp4", frames=1, options={"qp": "1"}, pix_fmt="yuv444p", color=color
        )
        with open_source(path) as video:
            images[name] = video.fetch([0]).frames[0]
        # Encoded and decoded with the same matrix, the picture comes back.
        assert np.abs(images[name].astype(int) - draw(0, 48, 64)).mean() < 3, name


def test_an_image_is_a_video_of_one_frame(tmp_path, draw) -> None:
    image_module = pytest.importorskip("PIL.Image")
    picture = draw(3, 30, 50)
    for suffix in ("png", "bmp", "webp", "tiff"):
        path = tmp_path / f"100%03d.{suffix}"  # must not be taken for a pattern of files
        image_module.fromarray(picture).save(
            path, **({"lossless": True} if suffix == "webp" else {})
        )
        with open_source(path) as video:
            assert video.info.num_frames == 1
            np.testing.assert_array_equal(video.sample(num_frames=24).frames, picture[None])
            assert [f.frame_index for f in video.backward(0, -1)] == [0]
            assert video.audio() is None
    path = tmp_path / "photo.jpg"
    image_module.fromarray(picture).save(path, quality=95, subsampling=0)
    with open_source(path) as video:
        assert np.abs(video.fetch([0]).frames[0].astype(int) - picture).mean() < 12


def test_an_image_is_turned_as_its_exif_says(tmp_path, draw) -> None:
    image_module = pytest.importorskip("PIL.Image")
    ops = pytest.importorskip("PIL.ImageOps")
    for orientation in range(1, 9):
        image = image_module.fromarray(draw(0, 32, 48))
        exif = image.getexif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.jpg"
        image.save(path, exif=exif, quality=100, subsampling=0)
        upright = np.asarray(ops.exif_transpose(image_module.open(path)))
        with open_source(path) as video:
            found = video.fetch([0]).frames[0]
        assert found.shape == upright.shape, orientation
        assert np.abs(found.astype(int) - upright).mean() < 2, orientation


def test_real_clips(shared_media: Path) -> None:
    for name in ("02_cups.mp4", "refavs_demo.mp4"):
        path = shared_media / name
        with open_source(path) as video:
            batch = video.sample(num_frames=4)
            expected = dict(zip(batch.frame_indices.tolist(), batch.frames, strict=True))
            with av.open(str(path)) as source:
                source.streams.video[0].thread_type = "AUTO"
                total = 0
                for index, frame in enumerate(source.decode(video=0)):
                    total += 1
                    assert frame.time == pytest.approx(video.index.pts_seconds[index])
                    if index in expected:
                        image = frame.to_ndarray(format="rgb24")
                        np.testing.assert_array_equal(expected[index], image)
            assert len(video) == total
            assert not video.info.truncated
            last = [f.frame_index for f in video.backward(total - 1, total - 4, (32, 32))]
            assert last == [total - 1, total - 2, total - 3]
            sound = video.audio()
            assert sound is not None
            assert abs(len(sound.samples) / 16000 - video.info.duration_seconds) < 0.1
