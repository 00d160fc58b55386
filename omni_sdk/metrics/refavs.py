"""Ref-AVS: J with its rule for empty frames, F of beta^2 = 0.3, S on clips without a target.

Source: `utils/metric/utility.py`, `scripts/train.py` and `datasets/dataset_refavs.py` of GeWu-Lab/Ref-AVS.
The official loop works at 256x256 (`to_official_size`) and averages batches of 4 clips; here the unit is
the clip. For J that is the same number when all batches are full; for F (a maximum over thresholds) and S
(a square root) it depends on the batch: pass the frames of several clips at once to repeat a batch.
J here is not the DAVIS J, and F is a measure of regions, not of boundaries: `RefavsScore` has both kinds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omni_sdk.errors import DatasetError
from omni_sdk.metrics.davis import boundary_f, region_similarity

OFFICIAL_SIZE = 256
J_THRESHOLD = 0.4
S_THRESHOLD = 0.5
BETA_SQUARED = 0.3
NUM_THRESHOLDS = 255


@dataclass(frozen=True, slots=True)
class RefavsScore:
    """One expression over the frames of one clip, each in [0, 1].

    Attributes:
        j: official J: a frame without a target scores the share of pixels left alone.
        f: official F at its best threshold; 0 for a clip without any target.
        f_mask: the same measure of the thresholded masks (> 0.4), which is what a system that gives masks
            can be held to: for masks the official maximum may fall on threshold 0, where every pixel is
            taken as predicted.
        s: sqrt(predicted pixels / all pixels); 0 is best, meaningful where there is no target.
        davis_j: mean DAVIS J.
        davis_f: mean DAVIS F, over boundaries.
        num_frames: scored.
    """

    j: float
    f: float
    f_mask: float
    s: float
    davis_j: float
    davis_f: float
    num_frames: int


@dataclass(frozen=True, slots=True)
class RefavsSummary:
    """Means over the clips of one split.

    `jf` is (j + f) / 2 as the papers print it, `davis_jf` the same with the DAVIS measures.
    """

    j: float
    f: float
    jf: float
    f_mask: float
    s: float
    davis_j: float
    davis_f: float
    davis_jf: float
    num_clips: int


def similarity(pred: ArrayLike, gt: ArrayLike) -> float:
    """Return the official J ("miou"): the mean over frames of their IoU.

    A frame whose truth is empty scores the share of pixels not predicted: covering a tenth by mistake
    still gives 0.9, where the DAVIS J gives 0.

    Args:
        pred: (T, H, W) probabilities in [0, 1], or bool; above 0.4 is the object.
        gt: (T, H, W) true masks.

    Raises:
        DatasetError: shapes differ or there is no frame.
    """
    probabilities, truth = _clip(pred, gt)
    found = probabilities > J_THRESHOLD
    total = 0.0
    for mask, target in zip(found, truth, strict=True):
        if target.any():
            total += np.count_nonzero(mask & target) / np.count_nonzero(mask | target)
        else:
            total += np.count_nonzero(~mask) / mask.size
    return total / len(found)


def max_f_beta(pred: ArrayLike, gt: ArrayLike) -> float:
    """Return the official F: the best over 255 thresholds of the mean F over frames with a target.

    F = 1.3 P R / (0.3 P + R) on pixels, P and R per frame and threshold. 0 if no frame has a target.

    Args:
        pred: (T, H, W) probabilities in [0, 1], or bool.
        gt: (T, H, W) true masks.

    Raises:
        DatasetError: shapes differ or there is no frame.
    """
    probabilities, truth = _clip(pred, gt)
    # The last one is 1 in float32, where 1 - 1e-10 cannot be told from it.
    thresholds = np.linspace(0, 1 - 1e-10, NUM_THRESHOLDS).astype(np.float32)
    curves = [
        _f_curve(frame, target, thresholds)
        for frame, target in zip(probabilities, truth, strict=True)
        if target.any()
    ]
    return float(np.mean(curves, axis=0).max()) if curves else 0.0


def f_beta(pred: ArrayLike, gt: ArrayLike) -> float:
    """Return the mean F (beta^2 = 0.3) of masks over the frames with a target; 0 if there is none.

    Args:
        pred: (T, H, W) probabilities in [0, 1], or bool; above 0.4 is the object.
        gt: (T, H, W) true masks.

    Raises:
        DatasetError: shapes differ or there is no frame.
    """
    probabilities, truth = _clip(pred, gt)
    found = probabilities > J_THRESHOLD
    values = [
        float(
            _f_value(
                np.float64(np.count_nonzero(mask & target)),
                np.float64(np.count_nonzero(mask)),
                int(np.count_nonzero(target)),
            )
        )
        for mask, target in zip(found, truth, strict=True)
        if target.any()
    ]
    return sum(values) / len(values) if values else 0.0


def null_s(pred: ArrayLike) -> float:
    """Return S of a clip without a target: sqrt(predicted pixels / all pixels), 0 is best.

    Args:
        pred: (T, H, W) probabilities in [0, 1], or bool; above 0.5 is the object.

    Raises:
        DatasetError: not (T, H, W), empty, or not probabilities.
    """
    probabilities = _probabilities(pred)
    return math.sqrt(np.count_nonzero(probabilities > S_THRESHOLD) / probabilities.size)


def score_clip(pred: ArrayLike, gt: ArrayLike) -> RefavsScore:
    """Score one expression over one clip.

    Args:
        pred: (T, H, W) probabilities in [0, 1], or bool.
        gt: (T, H, W) true masks, anything but zero being the object.

    Raises:
        DatasetError: shapes differ, there is no frame, or `pred` holds no probabilities.
    """
    probabilities, truth = _clip(pred, gt)
    pairs = list(zip(probabilities > J_THRESHOLD, truth, strict=True))
    return RefavsScore(
        j=similarity(probabilities, truth),
        f=max_f_beta(probabilities, truth),
        f_mask=f_beta(probabilities, truth),
        s=null_s(probabilities),
        davis_j=sum(region_similarity(a, b) for a, b in pairs) / len(pairs),
        davis_f=sum(boundary_f(a, b) for a, b in pairs) / len(pairs),
        num_frames=len(pairs),
    )


def summarise(scores: Iterable[RefavsScore]) -> RefavsSummary:
    """Average the clips of one split (test_s, test_u or test_n), each with the same weight.

    Raises:
        DatasetError: there is none.
    """
    rows = list(scores)
    if not rows:
        raise DatasetError("expected at least one scored clip, got none")
    names = ("j", "f", "f_mask", "s", "davis_j", "davis_f")
    mean = {name: sum(getattr(row, name) for row in rows) / len(rows) for name in names}
    return RefavsSummary(
        **mean,
        jf=(mean["j"] + mean["f"]) / 2,
        davis_jf=(mean["davis_j"] + mean["davis_f"]) / 2,
        num_clips=len(rows),
    )


def mix(seen: RefavsSummary, unseen: RefavsSummary) -> float:
    """Return "Mix" of the papers: the mean J&F of the seen and unseen test splits."""
    return (seen.jf + unseen.jf) / 2


def to_official_size(mask: ArrayLike, *, truth: bool) -> NDArray[np.bool_]:
    """Resize a mask to the 256x256 of the official evaluator, bilinear with pixel centres at .5.

    Args:
        mask: (H, W), anything but zero is the object.
        truth: the official loader keeps every pixel that the object touches at all; a prediction
            (`truth=False`) is cut at one half, as the official model's own output is at 256x256 already.

    Returns:
        (256, 256) bool.

    Raises:
        DatasetError: the mask is not (H, W).
    """
    array = np.asarray(mask)
    if array.ndim != 2 or 0 in array.shape:
        raise DatasetError(f"expected a mask (H, W), got shape {array.shape}")
    # In 8 bits, as the loader resizes files of {0, 255}; what rounds to 0 is not touched.
    grey = np.where(array != 0, np.float32(255), np.float32(0))
    for axis in (0, 1):
        grey = _resample(grey, axis)
    return grey >= (0.5 if truth else 127.5)


def _resample(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Resample one axis to 256 samples by linear interpolation between two neighbours."""
    size = values.shape[axis]
    centres = np.clip((np.arange(OFFICIAL_SIZE) + 0.5) * (size / OFFICIAL_SIZE) - 0.5, 0, size - 1)
    low = np.minimum(centres.astype(np.int64), max(size - 2, 0))
    weight = (centres - low).astype(np.float32)
    weight = weight[:, None] if axis == 0 else weight[None, :]
    first = np.take(values, low, axis)
    second = np.take(values, np.minimum(low + 1, size - 1), axis)
    mixed: NDArray[np.float32] = first + (second - first) * weight
    return mixed


def _f_curve(
    frame: NDArray[np.float32], target: NDArray[np.bool_], thresholds: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return F of a frame at every threshold, from one histogram instead of 255 passes."""
    # A pixel is predicted at all thresholds up to its own value: `above` of them.
    above = np.searchsorted(thresholds, frame.ravel(), side="right")
    size = len(thresholds) + 1
    predicted = np.bincount(above, minlength=size)
    right = np.bincount(above[target.ravel()], minlength=size)
    # Entry k: pixels with a value of at least threshold k.
    counts = [np.cumsum(h[::-1])[::-1][1:].astype(np.float64) for h in (right, predicted)]
    return _f_value(counts[0], counts[1], int(np.count_nonzero(target)))


def _f_value(
    right: NDArray[np.float64] | np.float64,
    predicted: NDArray[np.float64] | np.float64,
    target: int,
) -> NDArray[np.float64]:
    """Return 1.3 P R / (0.3 P + R), 0 where nothing is right."""
    # P = right / predicted and R = right / target, so that both fractions share their numerator.
    return np.asarray((1 + BETA_SQUARED) * right / (BETA_SQUARED * target + predicted), np.float64)


def _probabilities(pred: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(pred)
    if array.ndim != 3 or 0 in array.shape:
        raise DatasetError(f"expected predictions (T, H, W), got shape {array.shape}")
    values = array.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise DatasetError(f"expected probabilities in [0, 1] or bool, got {low} to {high}")
    return values


def _clip(pred: ArrayLike, gt: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    probabilities, truth = _probabilities(pred), np.asarray(gt)
    if probabilities.shape != truth.shape:
        raise DatasetError(
            f"expected masks (T, H, W) of one size, got prediction {probabilities.shape}, "
            f"ground truth {truth.shape}"
        )
    return probabilities, truth != 0
