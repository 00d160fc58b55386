"""Antialiased resize of uint8 images, byte-identical to torch's and torchvision v2's."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from omni_sdk.media.pixels import resize_numpy
from omni_sdk.native import core

Filter = Literal["bicubic", "bilinear"]
MAX_SIDE = 1 << 20


def resize(
    images: NDArray[np.uint8], size: tuple[int, int], filter: Filter = "bicubic"
) -> NDArray[np.uint8]:
    """Resize RGB images with antialiasing.

    Equals `torch.nn.functional.interpolate(x, size, mode=filter, antialias=True)` on uint8 to the last
    bit. The native kernel runs without the GIL.

    Args:
        images: (H, W, 3) or (T, H, W, 3) uint8, sides at least 1.
        size: wanted (height, width) in pixels, each in [1, 2**20].
        filter: "bicubic" (a = -0.5) or "bilinear".

    Returns:
        (height, width, 3) or (T, height, width, 3) uint8, C-contiguous; `images` itself where it already
        has that size.

    Raises:
        ValueError: a wrong shape, dtype, size or filter.
    """
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[-1] != 3:
        raise ValueError(
            "expected uint8 images of shape (H, W, 3) or (T, H, W, 3), got "
            f"{images.dtype} {images.shape}"
        )
    if filter not in get_args(Filter):
        raise ValueError(f"filter must be 'bicubic' or 'bilinear', got {filter!r}")
    height, width = (int(side) for side in size)
    if not all(1 <= side <= MAX_SIDE for side in (height, width, *images.shape[-3:-1])):
        raise ValueError(
            f"image sides must be in [1, {MAX_SIDE}], got {images.shape[-3:-1]} -> {(height, width)}"
        )
    images = np.ascontiguousarray(images)
    if images.shape[-3:-1] == (height, width):
        return images
    batch = images if images.ndim == 4 else images[None]
    native = core()
    kernel = resize_numpy.resize if native is None else native.resize
    result: NDArray[np.uint8] = kernel(batch, height, width, filter)
    return result if images.ndim == 4 else result[0]
