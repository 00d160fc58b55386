"""Which patch goes where in the vision graph: its inputs besides the pixels.

The graph works in a padded layout of equal attention windows, so that windowed and full attention are both
plain reshapes (transformers' tower splits by data-dependent lengths, which no graph can hold; its order of
windows: `transformers.vision_utils.get_vision_window_index`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from omni_sdk.bundle.manifest import VisionSpec

Grid = tuple[int, int, int]
"""Patches along time, height and width."""


def vision_layout(grids: Sequence[Grid], spec: VisionSpec) -> dict[str, NDArray[Any]]:
    """Return the index inputs of the vision graph for some images and videos in one call.

    With N patches in all, F temporal rows (t summed over the grids), each padded to the W windows of the
    largest, nW = F * W windows of L = (window_size / patch_size)^2 patches:

    Args:
        grids: (t, h, w) of each image or video, in order; h and w multiples of merge_size.
        spec: patch, merge and window sizes.

    Returns:
        position_ids: (N, 2) int64 row and column of each patch.
        win_mask: (nW, L) bool, True where a window holds a patch.
        full_mask: (F, W * L) bool, the same by temporal row (full attention stays within one).
        gather: (nW * L,) int64 patch of each place, N (a zero row that the graph appends) for padding.
        out_gather: (N / merge_size^2,) int64 place, in merged tokens, of each output token.

    Raises:
        ValueError: no grid, or a side that is no multiple of merge_size.
    """
    merge, unit = spec.merge_size, spec.merge_size**2
    if not grids or any(t < 1 or h < 1 or w < 1 or h % merge or w % merge for t, h, w in grids):
        raise ValueError(
            f"expected grids (t, h, w) with h and w multiples of {merge}, got {list(grids)}"
        )
    side = spec.window_size // spec.patch_size // merge  # of a window, in merged tokens
    total = sum(t * h * w for t, h, w in grids)
    windows_per_grid = [-(-(h // merge) // side) * -(-(w // merge) // side) for _, h, w in grids]
    # by_row[f, k] = the merged tokens of window k of temporal row f; -1 is padding
    shape = (sum(t for t, _, _ in grids), max(windows_per_grid), side * side)
    by_row = np.full(shape, -1, dtype=np.int64)
    row = first = 0
    for (t, h, w), count in zip(grids, windows_per_grid, strict=True):
        size = h * w // unit
        for _ in range(t):
            block = _frame_windows(h // merge, w // merge, side)
            by_row[row, :count] = np.where(block < 0, -1, block + first)
            row, first = row + 1, first + size
    tokens = by_row.reshape(-1, side * side)
    patches = tokens[..., None] * unit + np.arange(unit)
    gather = np.where(tokens[..., None] < 0, total, patches).reshape(len(tokens), -1)
    mask = gather < total
    places = np.flatnonzero(tokens.ravel() >= 0)
    out_gather = np.empty(total // unit, np.int64)
    out_gather[tokens.ravel()[places]] = places
    return {
        "position_ids": np.concatenate([_patch_positions(grid, merge) for grid in grids]),
        "win_mask": mask,
        "full_mask": mask.reshape(row, -1),
        "gather": gather.ravel(),
        "out_gather": out_gather,
    }


def _frame_windows(height: int, width: int, side: int) -> NDArray[np.int64]:
    """Return (windows, side * side) token indices of one frame of height x width tokens, -1 padding."""
    rows, columns = -(-height // side), -(-width // side)
    padded = np.full((rows * side, columns * side), -1, dtype=np.int64)
    padded[:height, :width] = np.arange(height * width).reshape(height, width)
    blocks = padded.reshape(rows, side, columns, side).transpose(0, 2, 1, 3)
    return blocks.reshape(rows * columns, side * side)


def _patch_positions(grid: Grid, merge: int) -> NDArray[np.int64]:
    """Return (t * h * w, 2) row and column of each patch in patch order (see `patchify`)."""
    t, h, w = grid
    rows, columns = np.indices((h, w), dtype=np.int64)
    blocks = np.stack([rows, columns], axis=-1)
    blocks = blocks.reshape(h // merge, merge, w // merge, merge, 2).transpose(0, 2, 1, 3, 4)
    return np.tile(blocks.reshape(h * w, 2), (t, 1))
