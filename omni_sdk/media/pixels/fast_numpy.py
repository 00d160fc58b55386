"""The numpy reference of the native fast pixel path: the same bits, slower.

Samples are counted in steps of an 8-bit one. Rows are resized first, to int16 with 6 fractional bits, then
columns, to int32 with 20; weights have 14 fractional bits, or 7 (see `row_taps`). The colour matrix is
applied in float32, in a stated order of operations (csrc/include/omni/plane_pixels.h).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from omni_sdk.media.pixels.resize_numpy import exact_weights

Pair = tuple[int, int]
T = TypeVar("T", bound=np.generic)
_COARSE = 7
_FINE = 14
Taps = tuple[NDArray[np.int64], NDArray[np.int32], int]
"""Input positions, weights, and the weights' fractional bits."""


@functools.lru_cache(maxsize=64)
def plane_taps(
    input_size: int,
    output_size: int,
    scale: float,
    shift: float,
    filter_name: str,
    bits: int = _FINE,
) -> Taps:
    """Return the (output_size, K) input positions and integer weights of one axis.

    The running sums of the weights are rounded: so each row sums to 2^bits, and a smooth picture hardly
    sees the rounding.
    """
    positions, exact = exact_weights(input_size, output_size, scale, shift, filter_name)
    sums = np.floor(np.cumsum(exact, axis=1) * (1 << bits) + 0.5).astype(np.int32)
    return np.clip(positions, 0, input_size - 1), np.diff(sums, axis=1, prepend=0), bits


def row_taps(
    input_size: int, output_size: int, scale: float, shift: float, filter_name: str, bits: int
) -> Taps:
    """Return the taps of the pass over rows: 7-bit weights for bytes that shrink 2 to 8 times.

    Those many small weights fit the 16-bit sums of the native pass, which is checked.
    """
    arguments = (input_size, output_size, scale, shift, filter_name)
    if bits == 8 and 2.0 <= scale <= 8.0:
        coarse = plane_taps(*arguments, _COARSE)
        weights = coarse[1]
        pairs = (weights[:, :-1] + weights[:, 1:]).max(initial=0)
        most = np.maximum(weights, 0).sum(axis=1).max() * 255 - (1 << 14)
        least = np.minimum(weights, 0).sum(axis=1).min() * 255 - (1 << 14)
        if pairs <= 128 and most <= 32767 and least >= -32768:
            return coarse
    return plane_taps(*arguments)


def _sum(samples: NDArray[np.integer], axis: int, taps: Taps) -> NDArray[np.int32]:
    positions, weights, _ = taps
    shape = [1, 1]
    shape[axis] = len(weights)
    out_shape = list(samples.shape)
    out_shape[axis] = len(weights)
    total = np.zeros(out_shape, np.int32)
    for tap in range(weights.shape[1]):
        picked = np.take(samples, positions[:, tap], axis).astype(np.int32)
        total += picked * weights[:, tap].reshape(shape)
    return total


class PlanePixels:
    """Planes -> RGB or patches, with the interface of the native class of this name."""

    def __init__(
        self,
        subsampling: Pair,
        bits: int,
        padding_bits: int,
        chroma_interleaved: bool,
        siting: tuple[float, float],
        size: Pair,
        wanted: Pair,
        filter: str,
    ) -> None:
        self._bits, self._padding = bits, padding_bits
        self._interleaved = chroma_interleaved
        self._size, self._wanted = size, wanted
        down, across = subsampling
        height, width = size
        self._chroma = (-(-height // (1 << down)), -(-width // (1 << across)))
        y_scale, x_scale = height / wanted[0], width / wanted[1]
        self._luma_taps = (
            row_taps(height, wanted[0], y_scale, 0.0, filter, bits),
            plane_taps(width, wanted[1], x_scale, 0.0, filter),
        )
        self._chroma_taps = (
            row_taps(self._chroma[0], wanted[0], y_scale / (1 << down), siting[0], filter, bits),
            plane_taps(self._chroma[1], wanted[1], x_scale / (1 << across), siting[1], filter),
        )

    def _samples(self, plane: object, stride: int, height: int, width: int) -> NDArray[np.integer]:
        dtype = np.dtype(np.uint8) if self._bits == 8 else np.dtype("<u2")
        memory = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]
        if (
            stride < width * dtype.itemsize
            or len(memory) < (height - 1) * stride + width * dtype.itemsize
        ):
            raise ValueError("a plane holds fewer bytes than its size says")
        rows = [memory[y * stride :][: width * dtype.itemsize] for y in range(height)]
        return np.stack(rows).view(dtype) >> self._padding

    def _resized(
        self,
        samples: NDArray[np.integer],
        taps: tuple[Taps, Taps],
    ) -> NDArray[np.float32]:
        shift = taps[0][2] + self._bits - 14
        rows = np.clip((_sum(samples, 0, taps[0]) + ((1 << shift) >> 1)) >> shift, -32768, 32767)
        return _sum(rows, 1, taps[1]).astype(np.float32)

    def _colours(
        self, planes: Sequence[object], strides: Sequence[int], matrix: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return (3, height, width) float32 RGB in [0, 255]."""
        height, width = self._chroma
        if self._interleaved:
            pairs = self._samples(planes[1], strides[1], height, 2 * width)
            chroma = [pairs[:, 0::2], pairs[:, 1::2]]
        else:
            chroma = [self._samples(planes[i], strides[i], height, width) for i in (1, 2)]
        luma = self._resized(self._samples(planes[0], strides[0], *self._size), self._luma_taps)
        u, v = (self._resized(samples, self._chroma_taps) for samples in chroma)
        y, v_red, u_green, v_green, u_blue, red, green, blue = np.asarray(matrix, np.float32)
        luma = luma * y
        rgb = (
            (luma + v * v_red) + red,
            ((luma + u * u_green) + v * v_green) + green,
            (luma + u * u_blue) + blue,
        )
        colours: NDArray[np.float32] = np.clip(np.stack(rgb), np.float32(0), np.float32(255))
        return colours

    def rgb(
        self,
        planes: Sequence[object],
        strides: Sequence[int],
        matrix: NDArray[np.float32],
        turn: tuple[bool, bool, bool],
        out: NDArray[np.uint8],
    ) -> None:
        """Write the upright (H, W, 3) image to `out`."""
        values = self._colours(planes, strides, matrix) + np.float32(0.5)
        out[...] = _upright(values.astype(np.uint8), turn).transpose(1, 2, 0)

    def patches(
        self,
        planes: Sequence[object],
        strides: Sequence[int],
        matrix: NDArray[np.float32],
        turn: tuple[bool, bool, bool],
        sides: tuple[int, int, int],
        scale: NDArray[np.float32],
        offset: NDArray[np.float32],
        out: NDArray[np.floating],
        frame: int,
    ) -> None:
        """Write the picture's part of `out`, (N, D) patches of some frames."""
        values = _upright(self._colours(planes, strides, matrix), turn)
        values = values * np.asarray(scale, np.float32)[:, None, None]
        values += np.asarray(offset, np.float32)[:, None, None]
        write_patches(values, sides, out, frame)


def _upright(values: NDArray[T], turn: tuple[bool, bool, bool]) -> NDArray[T]:
    transpose, flip_x, flip_y = turn
    if transpose:
        values = values.transpose(0, 2, 1)
    return values[:, :: -1 if flip_y else 1, :: -1 if flip_x else 1]


def write_patches(
    values: NDArray[np.generic], sides: tuple[int, int, int], out: NDArray[np.floating], frame: int
) -> None:
    """Write one picture into its place among patches.

    Args:
        values: (3, H, W), sides multiples of patch * merge.
        sides: patch size, merge size, frames per patch.
        out: (N, D) patches, C-contiguous.
        frame: the picture's place in time.
    """
    patch, merge, temporal = sides
    _, height, width = values.shape
    rows, columns = height // (patch * merge), width // (patch * merge)
    view = out.reshape(-1, rows, columns, merge, merge, 3, temporal, patch, patch)
    blocks = values.reshape(3, rows, merge, patch, columns, merge, patch)
    view[frame // temporal, ..., frame % temporal, :, :] = blocks.transpose(1, 4, 2, 5, 0, 3, 6)
