"""The normalised patches that a vision transformer reads, and arrays of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from omni_sdk.media.pixels.fast_numpy import write_patches
from omni_sdk.native import core

Grid = tuple[int, int, int]
"""Patches along time, height and width."""

PatchDtype = Literal["float32", "float16"]
PatchValues: TypeAlias = "NDArray[np.float32 | np.float16]"


@dataclass(frozen=True, slots=True)
class Patches:
    """Frames as patches.

    Attributes:
        values: (N, 3 * temporal_patch * patch * patch) float32 or float16, C-contiguous; rows run over
            time, then blocks of merge x merge patches in raster order, then the patches of a block; the
            columns of a row over channel, time, y, x (Qwen2VLImageProcessor).
        grid: (t, h, w) with N = t * h * w.
    """

    values: PatchValues
    grid: Grid


@dataclass(frozen=True, slots=True)
class PatchLayout:
    """How pixels become patches.

    Attributes:
        patch_size: side of a patch in pixels.
        merge_size: patches per side of a block.
        temporal_patch_size: frames per patch.
        image_mean: per RGB channel, of values in [0, 1].
        image_std: likewise.
        dtype: of the patches.
    """

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    dtype: PatchDtype = "float32"

    @property
    def sides(self) -> tuple[int, int, int]:
        """Patch size, merge size, temporal patch size."""
        return self.patch_size, self.merge_size, self.temporal_patch_size

    def grid(self, num_frames: int, size: tuple[int, int]) -> Grid:
        """Return the patches along time, height and width of frames of a (height, width).

        Raises:
            ValueError: no frame, or a side that is no positive multiple of patch_size * merge_size.
        """
        height, width = size
        unit = self.patch_size * self.merge_size
        if num_frames < 1 or height < 1 or width < 1 or height % unit or width % unit:
            raise ValueError(
                f"frame sides must be multiples of {unit} pixels and frames at least one, got "
                f"{num_frames} of {height}x{width}"
            )
        rows = -(-num_frames // self.temporal_patch_size)
        return rows, height // self.patch_size, width // self.patch_size

    def shape(self, grid: Grid) -> tuple[int, int]:
        """Return the (N, D) of the patches of a grid."""
        width = 3 * self.temporal_patch_size * self.patch_size**2
        return grid[0] * grid[1] * grid[2], width

    def empty(self, grid: Grid) -> PatchValues:
        """Return an uninitialised (N, D) array of patches."""
        values: PatchValues = np.empty(self.shape(grid), self.dtype)
        return values

    def affine(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return per channel the float32 scale and offset that normalise a value in [0, 255]."""
        std = 255.0 * np.array(self.image_std, np.float64)
        mean = 255.0 * np.array(self.image_mean, np.float64)
        return (1.0 / std).astype(np.float32), (-mean / std).astype(np.float32)

    def tables(self) -> PatchValues:
        """Return the (3, 256) normalised values of a byte per channel.

        (x - 255 mean) / (255 std) in float32, bit-identical to the fused rescale-and-normalise of
        Qwen2VLImageProcessor and Qwen2VLVideoProcessor; float16 is that, rounded.
        """
        mean = np.array(self.image_mean, np.float32) * np.float32(255)
        std = np.array(self.image_std, np.float32) * np.float32(255)
        values = (np.arange(256, dtype=np.float32) - mean[:, None]) / std[:, None]
        result: PatchValues = values.astype(self.dtype)
        return result

    def write(self, frames: NDArray[np.uint8], values: PatchValues, first: int) -> None:
        """Normalise (T, H, W, 3) uint8 frames into their places first, first + 1, ... among patches."""
        native, tables = core(), self.tables()
        if native is not None:
            native.patchify(np.ascontiguousarray(frames), self.sides, tables, values, first)
            return
        channels = np.arange(3)[:, None, None]
        for at, frame in enumerate(frames):
            write_patches(
                tables[channels, frame.transpose(2, 0, 1)], self.sides, values, first + at
            )

    def finish(self, values: PatchValues, grid: Grid, kept: NDArray[np.int64]) -> Patches:
        """Close the gaps of frames that never came and fill the last temporal patch.

        Args:
            values: as `empty` gave it, with the kept frames written; changed.
            grid: of all frames.
            kept: (T,) ascending places of the frames that are there, T at least 1.

        Returns:
            Patches of the T frames, the last one repeated where it does not fill its patch.
        """
        temporal = self.temporal_patch_size
        times = values.reshape(grid[0], grid[1] * grid[2], 3, temporal, self.patch_size**2)

        def move(old: int, new: int) -> None:
            if old != new:
                times[new // temporal, :, :, new % temporal] = times[
                    old // temporal, :, :, old % temporal
                ]

        for new, old in enumerate(kept):
            move(int(old), new)
        rows = -(-len(kept) // temporal)
        for new in range(len(kept), rows * temporal):
            move(len(kept) - 1, new)
        return Patches(values[: rows * grid[1] * grid[2]], (rows, grid[1], grid[2]))
