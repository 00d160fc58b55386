"""Frames -> normalised patches, in the order that the vision graph reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from omni_sdk.manifest import VisionSpec

Grid = tuple[int, int, int]
"""Patches along time, height and width."""


def patchify(frames: NDArray[np.uint8], spec: VisionSpec) -> tuple[NDArray[np.float32], Grid]:
    """Cut frames into patches and normalise them.

    An image is a video of one frame. Frames that do not fill the last temporal patch are completed by
    repeating the last frame. Values are (x - 255 mean) / (255 std) in float32: bit-identical to the fused
    rescale-and-normalise of Qwen2VLImageProcessor and Qwen2VLVideoProcessor.

    Args:
        frames: (T, H, W, 3) uint8 RGB, T >= 1, sides multiples of patch_size * merge_size.
        spec: patch sizes, mean and standard deviation.

    Returns:
        (N, 3 * temporal_patch * patch * patch) float32 and the grid (t, h, w) with N = t * h * w. Rows
        run over t, then blocks of merge_size x merge_size patches in raster order, then the patches of a
        block; the columns of a row over channel, time, y, x.

    Raises:
        ValueError: another dtype or rank, no frame, or sides that are no such multiples.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise ValueError(
            f"expected (T >= 1, H, W, 3) uint8 frames, got {frames.shape} {frames.dtype}"
        )
    patch, merge, temporal = spec.patch_size, spec.merge_size, spec.temporal_patch_size
    height, width = frames.shape[1:3]
    if height % (patch * merge) or width % (patch * merge) or not height or not width:
        raise ValueError(
            f"frame sides must be multiples of {patch * merge} pixels, got {height}x{width}"
        )
    if missing := -len(frames) % temporal:
        frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    grid = (len(frames) // temporal, height // patch, width // patch)
    blocks = frames.reshape(
        grid[0], temporal, grid[1] // merge, merge, patch, grid[2] // merge, merge, patch, 3
    )
    # (t, H block, W block, row in block, column in block, channel, time, y, x); bytes are moved before
    # they become floats, a quarter of the memory traffic.
    ordered = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    rows = ordered.reshape(grid[0] * grid[1] * grid[2], 3, temporal * patch * patch)
    mean = np.array(spec.image_mean, np.float32) * np.float32(255)
    std = np.array(spec.image_std, np.float32) * np.float32(255)
    values = np.subtract(rows, mean[:, None], dtype=np.float32)
    values /= std[:, None]
    return values.reshape(len(values), -1), grid
