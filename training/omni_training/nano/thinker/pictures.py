"""Pictures of scenes for training: the demo's renderer, with grain cut from a table.

The renderer draws its grain anew for every frame, which costs more than the picture. Here a piece of one
table of white noise is added: at 48 pixels one layer (what area means leave of the renderer's two), at larger
sizes two layers with cells of one and two stage units.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from omni_sdk.demo.render import GRAIN_COARSE, GRAIN_FINE, render
from omni_sdk.demo.scene import Scene
from omni_sdk.demo.world import STAGE, STEP_SECONDS

_TABLE = 1 << 21


def step_seconds(step: int) -> float:
    """Return the time of a step of the event grid."""
    return step * STEP_SECONDS


def frames(
    scene: Scene, steps: Sequence[int], side: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return pictures of a scene, (T, side, side, 3) uint8.

    Args:
        scene: shown.
        steps: of the event grid.
        side: in pixels: 48, or a whole number of half units (48 n).
        rng: draws the grain.
    """
    clean = np.stack([render(scene, step_seconds(t), (side, side), grain=0.0) for t in steps])
    noisy = clean + grain(rng, len(steps), side)
    pictures: NDArray[np.uint8] = np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
    return pictures


def grain(rng: np.random.Generator, count: int, side: int) -> NDArray[np.float32]:
    """Return picture noise, (count, side, side, 3); see the module's docstring."""
    if side * 2 == STAGE:
        deviation = float(np.hypot(GRAIN_FINE / 2, GRAIN_COARSE))
        return _piece(rng, (count, side, side, 3)) * np.float32(deviation)
    coarse = _piece(rng, (count, STAGE // 2, STAGE // 2, 3)) * np.float32(GRAIN_COARSE)
    fine = _piece(rng, (count, STAGE, STAGE, 3)) * np.float32(GRAIN_FINE)
    fine += coarse.repeat(2, axis=1).repeat(2, axis=2)
    # Pixel by pixel the value of the cell under its centre; at 96 and 192 pixels exact area means.
    cell = ((np.arange(side) + 0.5) * STAGE / side).astype(np.int64)
    return np.ascontiguousarray(fine[:, cell][:, :, cell])


def _piece(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    size = int(np.prod(shape))
    table = _noise()
    first = int(rng.integers(0, len(table) - size))
    return table[first : first + size].reshape(shape)


@lru_cache(maxsize=1)
def _noise() -> NDArray[np.float32]:
    return np.random.default_rng(11).standard_normal(_TABLE).astype(np.float32)
