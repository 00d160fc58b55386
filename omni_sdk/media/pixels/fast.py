"""The fast pixel path: a decoder's planes -> resized RGB or patches in one native pass.

Not libswscale's result: luma and chroma are each resized from their own grid, with the chroma's siting
(libswscale repeats chroma samples of 8-bit 4:2:0 and makes RGB of the source's size first), and nothing is
rounded to 8 bits before the end. `benchmarks/pixels.py` measures how far the two lie apart.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from omni_sdk.media.pixels import fast_numpy
from omni_sdk.media.pixels.patch_layout import PatchLayout, PatchValues
from omni_sdk.media.pixels.resize import Filter
from omni_sdk.native import core

Siting = Literal["left", "centre", "topleft"]
_FULL_RANGE = 2
# Red's and blue's share of luma by AVCOL_SPC_* (ITU-T H.273, table 4); unstated is taken as BT.601, as
# libswscale does. Others (RGB, YCgCo, constant luminance ..) are no plain matrix.
_LUMA_SHARES = {
    1: (0.2126, 0.0722),  # BT.709
    2: (0.299, 0.114),
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601
    6: (0.299, 0.114),
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
}


@dataclass(frozen=True, slots=True)
class PlaneFormat:
    """How a pixel format lies in memory.

    Attributes:
        subsampling: log2 of the luma rows and columns per chroma sample.
        bits: of a sample; 8 in bytes, others in little-endian 16-bit words.
        padding_bits: unused low bits of a word.
        is_interleaved: one plane holds U V U V ..
        is_centred: chroma lies between its two columns where nothing is known (JPEG); else on the left one
            (H.264, HEVC and VP9 where nothing is stated; PyAV does not tell what is stated).
    """

    subsampling: tuple[int, int]
    bits: int = 8
    padding_bits: int = 0
    is_interleaved: bool = False
    is_centred: bool = False

    def offsets(self, siting: Siting | None) -> tuple[float, float]:
        """Return how far chroma lies above and left of the middle of its luma, in chroma samples."""
        siting = siting or ("centre" if self.is_centred else "left")
        above = 0.25 if siting == "topleft" and self.subsampling[0] else 0.0
        left = 0.25 if siting != "centre" and self.subsampling[1] else 0.0
        return above, left


def _formats() -> dict[str, PlaneFormat]:
    shifts = {"420": (1, 1), "422": (0, 1), "440": (1, 0), "444": (0, 0)}
    formats = {}
    for name, shift in shifts.items():
        formats[f"yuv{name}p"] = PlaneFormat(shift)
        formats[f"yuvj{name}p"] = PlaneFormat(shift, is_centred=True)
        for bits in (10, 12) if name == "440" else (9, 10, 12, 14):
            formats[f"yuv{name}p{bits}le"] = PlaneFormat(shift, bits)
    for name, digit, shift in (("nv12", 0, (1, 1)), ("nv16", 2, (0, 1)), ("nv24", 4, (0, 0))):
        formats[name] = PlaneFormat(shift, is_interleaved=True)
        for bits in (10, 12):
            formats[f"p{digit}{bits}le"] = PlaneFormat(shift, bits, 16 - bits, is_interleaved=True)
    return formats


FORMATS = _formats()
"""The pixel formats, in FFmpeg's names, that the fast path reads; others take the exact one."""


@functools.lru_cache(maxsize=64)
def colour_matrix(space: int, is_full_range: bool, bits: int) -> tuple[float, ...]:
    """Return the eight float32 numbers that turn samples into RGB.

    Args:
        space: AVCOL_SPC_* number, a key of the table of this module.
        is_full_range: samples go from 0 to 2^bits - 1; else luma from 16 to 235, chroma from 16 to 240
            times 2^(bits - 8) (ITU-T H.273, section 8.3).
        bits: of a sample.

    Returns:
        Weights of Y, V to red, U to green, V to green, U to blue, for values in units of 2^-20 of an 8-bit
        step, and the offsets of red, green and blue.
    """
    red, blue = _LUMA_SHARES[space]
    green = 1.0 - red - blue
    if is_full_range:
        luma = chroma = 255.0 / ((2**bits - 1) / 2 ** (bits - 8))
        black = 0.0
    else:
        luma, chroma, black = 255.0 / 219.0, 255.0 / 224.0, 16.0
    v_red, u_blue = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    u_green, v_green = -u_blue * blue / green, -v_red * red / green
    weights = np.array([luma, v_red, u_green, v_green, u_blue]) / 2**20
    offsets = -np.array([v_red, u_green + v_green, u_blue]) * 128.0 - luma * black
    return tuple(float(v) for v in np.concatenate([weights, offsets]).astype(np.float32))


@dataclass(frozen=True, slots=True)
class PlanePicture:
    """A decoded frame that is converted only where its pixels are wanted.

    Attributes:
        frame: as decoded.
        pixels: the conversion of frames of its format and size.
        matrix: its colours.
        turn: transpose, mirror left-right, mirror top-bottom.
        size: (height, width), upright.
    """

    frame: av.VideoFrame
    pixels: Any
    matrix: tuple[float, ...]
    turn: tuple[bool, bool, bool]
    size: tuple[int, int]

    def rgb(self, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return the (H, W, 3) uint8 image, written to `out` (C-contiguous) where one is given."""
        image = np.empty((*self.size, 3), np.uint8) if out is None else out
        self.pixels.rgb(self.frame.planes, self._strides(), self.matrix, self.turn, image)
        return image

    def patches(self, layout: PatchLayout, values: PatchValues, at: int) -> None:
        """Write the frame into place `at` among patches (see `PatchLayout.empty`)."""
        self.pixels.patches(
            self.frame.planes,
            self._strides(),
            self.matrix,
            self.turn,
            layout.sides,
            *layout.affine(),
            values,
            at,
        )

    def _strides(self) -> Sequence[int]:
        return [plane.line_size for plane in self.frame.planes]


@dataclass(slots=True)
class FastConverter:
    """Makes pictures of one size.

    Attributes:
        size: wanted (height, width) of the upright picture.
        filter: of the resize.
        siting: where subsampled chroma lies against its luma; None: as is usual for the format.
    """

    size: tuple[int, int]
    filter: Filter
    siting: Siting | None = None
    _pixels: dict[tuple[str, int, int, bool], Any] = field(default_factory=dict)

    def __call__(
        self, frame: av.VideoFrame, turn: tuple[bool, bool, bool] = (False, False, False)
    ) -> PlanePicture | None:
        """Return the picture; None for what this path does not read: the exact one must take it.

        That is: pixel formats other than `FORMATS`, colour spaces that are no plain matrix, and fields of
        interlaced video (their chroma lies elsewhere).
        """
        layout, space = FORMATS.get(frame.format.name), int(frame.colorspace)
        if layout is None or space not in _LUMA_SHARES or frame.interlaced_frame:
            return None
        if any(plane.line_size <= 0 for plane in frame.planes):
            return None  # stored bottom-up
        key = (frame.format.name, frame.height, frame.width, turn[0])
        if key not in self._pixels:
            self._pixels.clear()  # the stream has changed its size
            self._pixels[key] = self._make(layout, frame, transposed=turn[0])
        is_full = int(frame.color_range) == _FULL_RANGE or layout.is_centred
        matrix = colour_matrix(space, is_full, layout.bits)
        return PlanePicture(frame, self._pixels[key], matrix, turn, self.size)

    def _make(self, layout: PlaneFormat, frame: av.VideoFrame, *, transposed: bool) -> Any:
        native = core()
        make = fast_numpy.PlanePixels if native is None else native.PlanePixels
        return make(
            layout.subsampling,
            layout.bits,
            layout.padding_bits,
            layout.is_interleaved,
            layout.offsets(self.siting),
            (frame.height, frame.width),
            self.size[::-1] if transposed else self.size,
            self.filter,
        )
