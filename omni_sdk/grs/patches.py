"""Frames -> normalised patches, in the order that the vision graph reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omni_sdk.media.pixels.patch_layout import Grid, PatchDtype, PatchLayout, PatchValues

if TYPE_CHECKING:
    from omni_sdk.bundle.manifest import VisionSpec


def layout_of(spec: VisionSpec, dtype: PatchDtype = "float32") -> PatchLayout:
    """Return how patches are made for a model, as values of `dtype`."""
    return PatchLayout(
        patch_size=spec.patch_size,
        merge_size=spec.merge_size,
        temporal_patch_size=spec.temporal_patch_size,
        image_mean=spec.image_mean,
        image_std=spec.image_std,
        dtype=dtype,
    )


def patchify(
    frames: NDArray[np.uint8], spec: VisionSpec, dtype: PatchDtype = "float32"
) -> tuple[PatchValues, Grid]:
    """Cut frames into patches and normalise them, in one pass.

    An image is a video of one frame. Frames that do not fill the last temporal patch are completed by
    repeating the last frame. Values are (x - 255 mean) / (255 std) in float32: bit-identical to the fused
    rescale-and-normalise of Qwen2VLImageProcessor and Qwen2VLVideoProcessor.

    Args:
        frames: (T, H, W, 3) uint8 RGB, T >= 1, sides multiples of patch_size * merge_size.
        spec: patch sizes, mean and standard deviation.
        dtype: of the result; "float16" is the float32 values, rounded.

    Returns:
        (N, 3 * temporal_patch * patch * patch) values and the grid (t, h, w) with N = t * h * w. Rows
        run over t, then blocks of merge_size x merge_size patches in raster order, then the patches of a
        block; the columns of a row over channel, time, y, x.

    Raises:
        ValueError: another dtype or rank, no frame, or sides that are no such multiples.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise ValueError(
            f"expected (T >= 1, H, W, 3) uint8 frames, got {frames.shape} {frames.dtype}"
        )
    layout = layout_of(spec, dtype)
    grid = layout.grid(len(frames), (frames.shape[1], frames.shape[2]))
    values = layout.empty(grid)
    layout.write(frames, values, 0)
    patches = layout.finish(values, grid, np.arange(len(frames)))
    return patches.values, patches.grid
