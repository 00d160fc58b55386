"""The numpy reference of the native resize: the same bytes, slower.

Source of the arithmetic: torch, aten/src/ATen/native/cpu/UpSampleKernel.cpp (the uint8 path of the
antialiased bilinear and bicubic modes): weights in float64, scaled to int16 with as many fractional bits
as the largest weight allows; horizontal pass, then vertical, each rounded and clamped to uint8.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray


def _filter_values(name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(x)
    if name == "bilinear":
        return np.where(x < 1.0, 1.0 - x, 0.0)
    a = -0.5  # antialiased bicubic, as PIL; without antialias torch has -0.75
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def exact_weights(
    input_size: int, output_size: int, scale: float, shift: float, filter_name: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the taps of one axis before they are rounded.

    Args:
        input_size: samples in, at least 1.
        output_size: samples out, at least 1.
        scale: input samples per output sample; above 1 it stretches the filter.
        shift: output i has its centre at scale * (i + 0.5) + shift, input k its own at k + 0.5.
        filter_name: "bicubic" or "bilinear".

    Returns:
        (output_size, K) int64 input positions, beyond the input where the weight is 0, and (output_size, K)
        float64 weights whose rows sum to 1.
    """
    reach = 2.0 if filter_name == "bicubic" else 1.0
    support = reach * scale if scale >= 1.0 else reach
    inverse = 1.0 / scale if scale >= 1.0 else 1.0
    taps = math.ceil(support) * 2 + 1
    center = scale * (np.arange(output_size) + 0.5) + shift
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    last = np.minimum((center + support + 0.5).astype(np.int64), input_size)
    count = np.clip(last - first, 0, taps)
    offsets = np.arange(taps)
    positions = first[:, None] + offsets
    exact = _filter_values(filter_name, (positions - center[:, None] + 0.5) * inverse)
    exact[offsets >= count[:, None]] = 0.0
    # Summed tap by tap: numpy's pairwise sum would differ in the last bit from the native loop.
    total = np.zeros(output_size)
    for tap in range(taps):
        total += exact[:, tap]
    exact /= np.where(total != 0.0, total, 1.0)[:, None]
    return positions, exact


@functools.lru_cache(maxsize=64)
def axis_weights(
    input_size: int, output_size: int, filter_name: str
) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
    """Return (taps' input positions, int16-range weights, fractional bits) of one axis.

    Args:
        input_size: samples in, at least 1.
        output_size: samples out, at least 1.
        filter_name: "bicubic" or "bilinear".

    Returns:
        (output_size, K) int64 positions clipped to the input, (output_size, K) int32 weights that are 0
        beyond a sample's taps, and the number of fractional bits.
    """
    positions, exact = exact_weights(
        input_size, output_size, input_size / output_size, 0.0, filter_name
    )
    largest = float(exact.max(initial=0.0))
    precision = 0
    while precision < 22 and int(0.5 + largest * (1 << (precision + 1))) < 1 << 15:
        precision += 1
    scaled = exact * (1 << precision) + np.where(exact < 0, -0.5, 0.5)
    return np.minimum(positions, input_size - 1), scaled.astype(np.int32), precision


def _resize_axis(
    image: NDArray[np.uint8], axis: int, size: int, filter_name: str
) -> NDArray[np.uint8]:
    if image.shape[axis] == size:
        return image
    positions, weights, precision = axis_weights(image.shape[axis], size, filter_name)
    shape = [1] * image.ndim
    shape[axis] = size
    out_shape = list(image.shape)
    out_shape[axis] = size
    total = np.full(out_shape, 1 << (precision - 1), np.int32)
    for tap in range(weights.shape[1]):
        total += np.take(image, positions[:, tap], axis) * weights[:, tap].reshape(shape)
    result: NDArray[np.uint8] = np.clip(total >> precision, 0, 255).astype(np.uint8)
    return result


def resize(
    images: NDArray[np.uint8], height: int, width: int, filter_name: str
) -> NDArray[np.uint8]:
    """Resize (T, H, W, 3) uint8 images to (T, height, width, 3), as `omni_sdk.media.pixels.resize.resize`."""
    result = np.empty((len(images), height, width, 3), np.uint8)
    for image, out in zip(images, result, strict=True):
        out[...] = _resize_axis(_resize_axis(image, 1, width, filter_name), 0, height, filter_name)
    return result
