"""The native conversion of a decoder's planes equals libswscale's followed by the resize."""

from __future__ import annotations

import av
import numpy as np
import pytest

from omni_sdk.media.pixels import convert, planes
from omni_sdk.media.pixels.convert import RgbConverter
from omni_sdk.media.pixels.resize import resize
from omni_sdk.media.source import open_source
from omni_sdk.native import core

pytestmark = pytest.mark.skipif(core() is None, reason="the native module was not built")
SPACES = [0, 1, 2, 4, 5, 6, 7, 9]  # AVCOL_SPC_*; libswscale refuses others


def noise(height: int, width: int, format: str = "yuv420p", seed: int = 0) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, format)
    random = np.random.default_rng(seed)
    for plane in frame.planes:
        memory = np.frombuffer(plane, np.uint8)
        memory[:] = random.integers(0, 256, len(memory), dtype=np.uint8)
    return frame


def by_swscale(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray(format="rgb24")


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("color_range", [0, 1, 2])
@pytest.mark.parametrize("format", ["yuv420p", "yuvj420p", "yuv422p", "yuvj422p"])
def test_every_matrix_and_range(space, color_range, format) -> None:
    frame = noise(64, 256, format, seed=space)
    frame.colorspace, frame.color_range = space, color_range
    full = by_swscale(frame)
    np.testing.assert_array_equal(RgbConverter((64, 256))(frame), full)
    small = RgbConverter((64, 256), (21, 100), "bicubic")(frame)
    np.testing.assert_array_equal(small, resize(full, (21, 100), "bicubic"))


@pytest.mark.parametrize("width", [2, 4, 6, 8, 10, 14, 30, 50, 62, 64, 126, 130, 254, 426, 854])
@pytest.mark.parametrize("format", ["yuv420p", "yuv422p"])
def test_every_width(width, format) -> None:
    frame = noise(18, width, format)
    full = by_swscale(frame)
    for size in (None, (18, width), (7, width), (18, 33), (9, 21), (40, 900)):
        expected = full if size is None else resize(full, size, "bilinear")
        found = RgbConverter((18, width), size, "bilinear")(frame)
        np.testing.assert_array_equal(found, expected, str(size))


@pytest.mark.parametrize(
    "format", ["yuv444p", "nv12", "yuv420p10le", "yuv422p10le", "p010le", "gray", "gbrp"]
)
def test_other_formats_are_left_to_swscale(format) -> None:
    frame = noise(32, 64, format)
    if format.endswith("10le"):
        for plane in frame.planes:
            np.frombuffer(plane, np.uint16)[:] &= 0xFFC0 if format == "p010le" else 1023
    assert planes.planes_to_rgb(frame, None, "bicubic") is None
    expected = resize(by_swscale(frame), (9, 17))
    np.testing.assert_array_equal(RgbConverter((32, 64), (9, 17), "bicubic")(frame), expected)


def test_where_swscale_rounds_otherwise_it_is_used(monkeypatch) -> None:
    frame = noise(32, 64)
    assert planes.planes_to_rgb(frame, None, "bicubic") is not None  # on x86-64
    planes._is_same.cache_clear()
    monkeypatch.setitem(planes._INVERSE, 2, (104597, 132201, 25675, 53200))
    assert planes.planes_to_rgb(frame, None, "bicubic") is None
    np.testing.assert_array_equal(RgbConverter((32, 64))(frame), by_swscale(frame))
    planes._is_same.cache_clear()


def test_the_same_without_the_native_pass(clip, monkeypatch) -> None:
    with open_source(clip) as video:
        direct = video.sample(num_frames=6, size=(20, 30))
        monkeypatch.setattr(convert, "planes_to_rgb", lambda *_: None)
        np.testing.assert_array_equal(
            direct.frames, video.sample(num_frames=6, size=(20, 30)).frames
        )


def test_the_native_function_checks_for_itself() -> None:
    native = core()
    y, c = np.zeros(8 * 8, np.uint8), np.zeros(4 * 4, np.uint8)
    inverse = planes._INVERSE[1]
    good = ([y, c, c], [8, 4, 4], (8, 8), (4, 4), "bicubic", inverse, False)
    assert native.yuv_to_rgb(*good).shape == (4, 4, 3)
    for at, value in (
        (0, [y[:-1], c, c]),
        (0, [y, c[:-1], c]),
        (0, [y[::-1], c, c]),
        (1, [7, 4, 4]),
        (1, [8, 4, -4]),
        (1, [1 << 60, 4, 4]),
        (2, (8, 7)),
        (2, (0, 8)),
        (3, (0, 4)),
        (4, "area"),
    ):
        wrong = list(good)
        wrong[at] = value
        with pytest.raises((ValueError, BufferError)):
            native.yuv_to_rgb(*wrong)
    with pytest.raises(ValueError, match="fewer bytes"):
        native.resize_plane(y, 8, (8, 8), (2, 2), "bicubic")
