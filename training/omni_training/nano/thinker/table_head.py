"""A running table read from the language model: what has been seen of each colour after each pair of frames.

An auxiliary loss on an early layer. It teaches the model to carry what it saw across time, which the sparse
loss on the listing does slowly. The head is thrown away after training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from omni_sdk.demo.scene import Scene
from omni_sdk.demo.world import COLORS, SHAPES, STEPS
from torch import Tensor, nn

_COLOR_NAMES = tuple(COLORS)
_MOTIONS = ("left", "right", "still")
FIELDS: tuple[tuple[str, int], ...] = (
    ("shape", len(SHAPES) + 1),
    ("enter", STEPS),
    ("last_seen", STEPS),
    ("motion", len(_MOTIONS)),
    ("stopped", STEPS + 1),
)
"""Columns and their number of classes; all but `shape` are unknown (-1) of what was not seen yet."""


class TableHead(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Linear read-out of the table from the last token of each temporal row."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, len(_COLOR_NAMES) * sum(n for _, n in FIELDS))

    def loss(self, states: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss and what is right.

        Args:
            states: (B, rows, hidden).
            truth: (B, rows, 6, fields) int64 classes, -1 unknown.
        """
        out = self.linear(states).view(*truth.shape[:3], -1)
        total, scores = out.new_zeros(()), {}
        for index, (name, part) in enumerate(
            zip([n for n, _ in FIELDS], out.split([n for _, n in FIELDS], dim=-1), strict=True)
        ):
            wanted = truth[..., index]
            total = total + F.cross_entropy(part.flatten(0, -2), wanted.flatten(), ignore_index=-1)
            known = wanted >= 0
            scores[name] = float((part.argmax(-1) == wanted)[known].float().mean())
        return total / len(FIELDS), scores


def table_truth(scenes: Sequence[Scene], rows: int) -> Tensor:
    """Return (B, rows, 6, fields) int64; row r has seen the frames up to (r + 1) * STEPS / rows."""
    return torch.from_numpy(np.stack([_truth(scene, rows) for scene in scenes]))


def _truth(scene: Scene, rows: int) -> NDArray[np.int64]:
    table = np.full((rows, len(_COLOR_NAMES), len(FIELDS)), -1)
    table[..., 0] = 0
    per_row = STEPS // rows
    for item in scene.objects:
        slot = _COLOR_NAMES.index(item.color)
        for row in range(item.enter // per_row, rows):
            now = (row + 1) * per_row  # frames seen so far
            moves = item.direction != "still" and now > item.enter + 1
            stopped = item.stop if item.stop is not None and now > item.stop + 1 else STEPS
            table[row, slot] = (
                1 + SHAPES.index(item.shape),
                item.enter,
                min(now, item.leave) - 1,
                _MOTIONS.index(item.direction if moves else "still")
                if now > item.enter + 1
                else -1,
                stopped,
            )
    return table
