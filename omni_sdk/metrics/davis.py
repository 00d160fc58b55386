"""DAVIS J (region similarity) and F (boundary accuracy) of one frame, and their statistics over frames.

Source of every formula: davis2017-evaluation (github.com/davisvideochallenge), `metrics.py` and
`utils.py`; the copies in the MeViS and ReVOS evaluators are the same formulas. J and F here equal them
exactly, without OpenCV or scikit-image: the counting is `omni_sdk.dus.masks`.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omni_sdk.dus.masks import boundary_match, mask_iou
from omni_sdk.errors import DatasetError

RECALL_THRESHOLD = 0.5
DECAY_BINS = 4


@dataclass(frozen=True, slots=True)
class Statistics:
    """A measure over the frames of one object.

    Attributes:
        mean: over frames, [0, 1].
        recall: share of frames above 0.5.
        decay: mean of the first quarter of the frames minus that of the last.
    """

    mean: float
    recall: float
    decay: float


def region_similarity(pred: ArrayLike, gt: ArrayLike, void: ArrayLike | None = None) -> float:
    """Return J, the intersection over union of two masks; 1 where both are empty.

    Args:
        pred: (H, W) predicted mask; anything but zero is the object.
        gt: (H, W) true mask.
        void: (H, W) pixels that count neither way.

    Returns:
        J in [0, 1].

    Raises:
        DatasetError: the masks are not 2-D or differ in size.
    """
    return mask_iou(*_fitting(pred, gt, void))


def boundary_f(
    pred: ArrayLike, gt: ArrayLike, void: ArrayLike | None = None, bound_th: float = 0.008
) -> float:
    """Return F, the harmonic mean of the boundaries' precision and recall.

    A boundary pixel is right when the other boundary comes within a disk around it. Two empty boundaries
    give 1, one empty boundary gives 0. A mask over the whole frame has no boundary either.

    Args:
        pred: (H, W) predicted mask; anything but zero is the object.
        gt: (H, W) true mask.
        void: (H, W) pixels taken as background in both, as the official code does.
        bound_th: radius of the disk, as a share of the diagonal below 1, in pixels from 1 on.

    Returns:
        F in [0, 1].

    Raises:
        DatasetError: the masks are not 2-D or differ in size.
        ValueError: bound_th is negative, not finite, or not whole above 1.
    """
    first, second = _fitting(pred, gt, void)
    counts = boundary_match(first, second, boundary_radius(first.shape, bound_th))
    return f_from_counts(*counts)


def f_from_counts(n_pred: int, n_gt: int, matched_pred: int, matched_gt: int) -> float:
    """Return F from the sizes of two boundaries and how much of each lies near the other."""
    if n_pred == 0 and n_gt == 0:
        return 1.0
    if n_pred == 0 or n_gt == 0:
        return 0.0
    precision, recall = matched_pred / n_pred, matched_gt / n_gt
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def boundary_radius(size: tuple[int, ...], bound_th: float = 0.008) -> int:
    """Return the radius in pixels within which boundaries match: 8 for 480x854.

    Args:
        size: (height, width) in pixels.
        bound_th: as in `boundary_f`.

    Raises:
        ValueError: bound_th is negative, not finite, or not whole above 1.
    """
    if not (math.isfinite(bound_th) and bound_th >= 0):
        raise ValueError(f"bound_th must be a number >= 0, got {bound_th!r}")
    if bound_th < 1:
        return math.ceil(bound_th * math.sqrt(size[0] * size[0] + size[1] * size[1]))
    if bound_th != int(bound_th):
        raise ValueError(f"bound_th from 1 on counts pixels and must be whole, got {bound_th!r}")
    return int(bound_th)


def statistics(values: ArrayLike) -> Statistics:
    """Return mean, recall and decay of one object's per-frame values; NaN frames do not count.

    The official code keeps the bins' edges in 8 bits and so wraps after 256 frames; this does not. Up to
    256 frames both agree.

    Args:
        values: (T,) J or F per frame in time order.

    Raises:
        DatasetError: there is no frame with a value.
    """
    series = np.asarray(values, np.float64)
    if series.ndim != 1 or not series.size or np.isnan(series).all():
        raise DatasetError(f"expected (T,) values of at least one frame, got shape {series.shape}")
    edges = np.linspace(1, series.size, DECAY_BINS + 1) + 1e-10
    ids = np.round(edges).astype(np.int64) - 1
    bins = [series[start : stop + 1] for start, stop in itertools.pairwise(ids)]
    return Statistics(
        mean=float(np.nanmean(series)),
        # NaN compares false, and the official share is over all frames.
        recall=float(np.mean(series > RECALL_THRESHOLD)),
        decay=_mean(bins[0]) - _mean(bins[-1]),
    )


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(np.mean(known)) if known.size else math.nan


def _fitting(
    pred: ArrayLike, gt: ArrayLike, void: ArrayLike | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return both masks as bool, background where void, once their sizes agree."""
    masks = [_as_mask(mask) for mask in ((pred, gt) if void is None else (pred, gt, void))]
    shapes = [mask.shape for mask in masks]
    if any(len(shape) != 2 for shape in shapes) or len(set(shapes)) != 1 or 0 in shapes[0]:
        names = ("prediction", "ground truth", "void")
        found = ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=False))
        raise DatasetError(f"expected masks (H, W) of one size, got {found}")
    if void is None:
        return masks[0], masks[1]
    counted = ~masks[2]
    return masks[0] & counted, masks[1] & counted


def _as_mask(mask: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(mask)
    return array if array.dtype == np.bool_ else array != 0
