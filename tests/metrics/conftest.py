"""The official formulas in OpenCV, and the official numbers where they are present."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Mask = np.ndarray[Any, np.dtype[np.bool_]]


def _official_boundary(mask: Mask) -> Mask:
    east, south, both = (np.zeros_like(mask) for _ in range(3))
    east[:, :-1] = mask[:, 1:]
    south[:-1, :] = mask[1:, :]
    both[:-1, :-1] = mask[1:, 1:]
    edge = (mask ^ east) | (mask ^ south) | (mask ^ both)
    edge[-1, :] = mask[-1, :] ^ east[-1, :]
    edge[:, -1] = mask[:, -1] ^ south[:, -1]
    edge[-1, -1] = False
    return edge


def _official_f(pred: Mask, gt: Mask, void: Mask | None = None, bound_th: float = 0.008) -> float:
    cv2 = pytest.importorskip("cv2")
    radius = int(bound_th if bound_th >= 1 else math.ceil(bound_th * np.linalg.norm(pred.shape)))
    grid = np.arange(-radius, radius + 1)
    disk = (grid[:, None] ** 2 + grid[None, :] ** 2 <= radius * radius).astype(np.uint8)
    counted = np.ones_like(gt) if void is None else ~void
    ours, theirs = _official_boundary(pred & counted), _official_boundary(gt & counted)
    near_ours = cv2.dilate(ours.astype(np.uint8), disk).astype(bool)
    near_theirs = cv2.dilate(theirs.astype(np.uint8), disk).astype(bool)
    n_ours, n_theirs = ours.sum(), theirs.sum()
    if n_ours == 0 and n_theirs == 0:
        precision = recall = 1.0
    elif n_ours == 0:
        precision, recall = 1.0, 0.0
    elif n_theirs == 0:
        precision, recall = 0.0, 1.0
    else:
        precision = (ours & near_theirs).sum() / n_ours
        recall = (theirs & near_ours).sum() / n_theirs
    return 0.0 if precision + recall == 0 else float(2 * precision * recall / (precision + recall))


@pytest.fixture(scope="session")
def official_f() -> Callable[..., float]:
    """F by the published formula, with whole-image dilation."""
    return _official_f


@pytest.fixture(scope="session")
def davis_masks(shared: Path) -> Path:
    """The folder of real DAVIS result masks with the official evaluator's J and F."""
    folder = shared / "data" / "davis_masks"
    if not (folder / "expected.json").is_file():
        pytest.skip(f"no official DAVIS numbers at {folder} (set OMNI_SHARED)")
    return folder


@pytest.fixture(scope="session")
def davis_expected(davis_masks: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((davis_masks / "expected.json").read_text())
    return value
