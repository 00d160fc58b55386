"""Decoder's planes -> RGB in one native pass, where that is libswscale's result to the last bit.

8-bit 4:2:0 and 4:2:2 of even size are converted here; all else (4:4:4, NV12, 10 bit, RGB ..) by libswscale
itself, whose general scaler has another arithmetic for it.

libswscale writes a whole RGB frame first, which costs more than the resize and holds the frame twice.
The native pass has the arithmetic of its x86 converter. Other builds of libswscale (other processors,
other versions) may round otherwise: so each width, matrix and range is first compared on a frame of
noise, and where one byte differs libswscale is used.
"""

from __future__ import annotations

import functools
from typing import cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from omni_sdk.media.pixels.resize import Filter
from omni_sdk.native import core

# By AVCOL_SPC_*: V to red, U to blue, -U to green, -V to green, 16.16 (libswscale/yuv2rgb.c,
# sws_yuv2rgb_coeffs; unstated is taken as BT.601).
_INVERSE = {
    1: (117489, 138438, 13975, 34925),  # BT.709
    2: (104597, 132201, 25675, 53279),
    5: (104597, 132201, 25675, 53279),  # BT.601
    6: (104597, 132201, 25675, 53279),
    9: (110013, 140363, 12277, 42626),  # BT.2020
}
_FULL_RANGE = 2
_CHECK_ROWS = 16
_CHROMA_ROWS = {"yuv420p": 2, "yuvj420p": 2, "yuv422p": 1, "yuvj422p": 1}
"""Rows of luma per row of chroma."""


def planes_to_rgb(
    frame: av.VideoFrame, size: tuple[int, int] | None, filter: Filter
) -> NDArray[np.uint8] | None:
    """Convert and resize a frame, neither turned nor mirrored.

    Args:
        frame: as decoded.
        size: wanted (height, width), None: the frame's own.
        filter: of the resize.

    Returns:
        (height, width, 3) uint8, equal to libswscale's RGB and `resize`; None where that is not certain
        or the frame is not 8-bit 4:2:0 or 4:2:2 of even size.
    """
    space, is_full = int(frame.colorspace), int(frame.color_range) == _FULL_RANGE
    if (
        frame.format.name not in _CHROMA_ROWS
        or frame.interlaced_frame  # libswscale may take the fields apart
        or frame.width % 2
        or frame.height % 2
        or not _is_same(frame.format.name, frame.width, space, is_full)
    ):
        return None
    return _convert(frame, size, filter)


def _convert(
    frame: av.VideoFrame, size: tuple[int, int] | None, filter: Filter
) -> NDArray[np.uint8] | None:
    native, inverse = core(), _INVERSE.get(int(frame.colorspace))
    if native is None or inverse is None:
        return None
    own = (frame.height, frame.width)
    name = frame.format.name
    is_full = int(frame.color_range) == _FULL_RANGE or name.startswith("yuvj")
    strides = [plane.line_size for plane in frame.planes]
    if min(strides[0], 2 * strides[1], 2 * strides[2]) < frame.width:
        return None
    result: NDArray[np.uint8] = native.yuv_to_rgb(
        frame.planes, strides, own, size or own, filter, inverse, is_full, _CHROMA_ROWS[name]
    )
    return result


@functools.lru_cache(maxsize=64)
def _is_same(format: str, width: int, space: int, is_full: bool) -> bool:
    """Compare with libswscale on noise, which has all values of luma and chroma beside each other."""
    frame = av.VideoFrame(width, _CHECK_ROWS, format)
    frame.colorspace = space
    frame.color_range = _FULL_RANGE if is_full else 1
    random = np.random.default_rng(0)
    for plane in frame.planes:
        memory = np.frombuffer(cast(memoryview, plane), np.uint8)
        memory[:] = random.integers(0, 256, len(memory), dtype=np.uint8)
    ours = _convert(frame, None, "bicubic")
    if ours is None:
        return False
    theirs = VideoReformatter().reformat(frame, format="rgb24", threads=1).to_ndarray()
    return np.array_equal(ours, theirs)
