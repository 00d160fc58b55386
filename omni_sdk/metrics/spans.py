"""t-IoU: how well the moments that a reasoner chose overlap the true ones.

Intersection over union on the time line, the measure of temporal grounding (ActivityNet Captions,
Charades-STA). Training rewards and evaluation share it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omni_sdk.errors import DatasetError


def span_iou(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Return the t-IoU of every pair of intervals, (N, M) float64 in [0, 1].

    Two moments without length (start = end) have 1 where they are the same instant, else 0.

    Args:
        first: (N, 2) start and end in seconds.
        second: (M, 2) start and end in seconds.

    Raises:
        DatasetError: not (N, 2), not finite, or an end before its start.
    """
    a, b = _spans(first), _spans(second)
    inter = np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0])
    inter = np.maximum(inter, 0.0)
    union = (a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0])[None, :] - inter
    same = (a[:, None, :] == b[None, :, :]).all(axis=2)
    iou: NDArray[np.float64] = same.astype(np.float64)
    np.divide(inter, union, out=iou, where=union > 0)
    return iou


def coverage_iou(first: ArrayLike, second: ArrayLike) -> float:
    """Return the t-IoU of two sets of intervals, each merged to the time that it covers, [0, 1].

    Two sets that cover no time have 1 when both have the same instants (or none), else 0.

    Args:
        first: (N, 2) start and end in seconds; may be empty.
        second: (M, 2) start and end in seconds; may be empty.

    Raises:
        DatasetError: not (N, 2), not finite, or an end before its start.
    """
    a, b = _spans(first), _spans(second)
    covered_a, covered_b, either = (_length(x) for x in (a, b, np.concatenate([a, b])))
    if either == 0:
        return float(np.array_equal(np.unique(a), np.unique(b)))
    # Inclusion-exclusion; rounding may leave a hair below 0 for touching intervals.
    return max(covered_a + covered_b - either, 0.0) / either


def _length(spans: NDArray[np.float64]) -> float:
    """Return the time that intervals cover, overlaps counted once."""
    total, reached = 0.0, -np.inf
    for start, end in spans[np.argsort(spans[:, 0], kind="stable")]:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _spans(value: ArrayLike) -> NDArray[np.float64]:
    spans = np.asarray(value, np.float64)
    if spans.size == 0:
        return spans.reshape(0, 2)
    if spans.ndim != 2 or spans.shape[1] != 2:
        raise DatasetError(f"expected spans (N, 2) of start and end, got shape {spans.shape}")
    if not np.isfinite(spans).all() or (spans[:, 1] < spans[:, 0]).any():
        raise DatasetError("expected finite spans with start <= end; normalise them first")
    return spans
