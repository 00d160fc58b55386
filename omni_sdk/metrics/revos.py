"""ReVOS: J and F as elsewhere, pixel accuracy A and robustness R, and the mean of two kinds of question.

Source: `tools/eval_revos.py` and `tools/metrics.py` of cilinyan/VISA.

Note [Two encodings]: the official script computes A and R on the values stored in the PNG files, not on
sets of pixels. Its own model stores objects as 255, so that one wrong pixel weighs 255 times in R and no
object pixel ever equals the annotation's 1 in A: a perfect mask has A = .84 and a good one R = 0 (this
explains the low R in published tables). Where annotated instances overlap, the annotation itself is 2,
and 1 - 2 wraps to 255 in 8 bits. So each score comes three times: `sets` (objects as sets of pixels: what
R means to say), `values_1` and `values_255` (the official arithmetic on {0, 1} and {0, 255} files).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omni_sdk.errors import DatasetError
from omni_sdk.metrics.davis import boundary_f, region_similarity
from omni_sdk.metrics.expressions import frame_pairs

REFERRING, REASONING, NO_TARGET = 0, 1, 2
KINDS = ("referring", "reasoning", "no_target")


@dataclass(frozen=True, slots=True)
class PixelScore:
    """Accuracy and robustness in one encoding, [0, 1]; `r` is None without foreground masks."""

    a: float
    r: float | None


@dataclass(frozen=True, slots=True)
class RevosScore:
    """One expression of ReVOS.

    Attributes:
        type_id: 0 referring, 1 reasoning, 2 no target (scored, never averaged).
        j: mean region similarity over frames, [0, 1].
        f: mean boundary accuracy over frames, [0, 1].
        sets: A and R over sets of pixels.
        values_1: A and R as the official script gives them for {0, 1} files.
        values_255: A and R as it gives them for {0, 255} files.
        num_frames: of the video.
        num_missing: frames without a prediction; not 0 makes every score 0, as in the script.
    """

    type_id: int
    j: float
    f: float
    sets: PixelScore
    values_1: PixelScore
    values_255: PixelScore
    num_frames: int
    num_missing: int = 0

    @property
    def jf(self) -> float:
        """Mean of J and F."""
        return (self.j + self.f) / 2


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """Means over the expressions of a kind, from values rounded to 0.01 percent as the script does."""

    j: float
    f: float
    jf: float
    sets: PixelScore
    values_1: PixelScore
    values_255: PixelScore
    num_expressions: int


@dataclass(frozen=True, slots=True)
class RevosSummary:
    """The table's row; a group without expressions is None, and then `overall` is None too.

    Attributes:
        referring: over type 0.
        reasoning: over type 1.
        overall: the mean of the two groups, whatever their sizes.
        num_no_target: expressions of type 2, which no mean includes.
        num_incomplete: expressions that lacked a prediction.
    """

    referring: GroupSummary | None
    reasoning: GroupSummary | None
    overall: GroupSummary | None
    num_no_target: int
    num_incomplete: int


def accuracy(pred: NDArray[np.uint8], gt: NDArray[np.uint8]) -> float:
    """Return A of a frame: the share of pixels whose values are equal (Note [Two encodings]).

    Args:
        pred: (H, W) uint8 values of the prediction file.
        gt: (H, W) uint8 number of annotated instances over each pixel.
    """
    return float(np.mean(pred == gt))


def robustness(
    pred: NDArray[np.uint8], gt: NDArray[np.uint8], foreground: NDArray[np.uint8]
) -> float:
    """Return R of a frame: max(0, 1 - false positives / foreground), in the script's 8-bit arithmetic.

    Args:
        pred: (H, W) uint8 values of the prediction file.
        gt: (H, W) uint8 number of annotated instances over each pixel.
        foreground: (H, W) uint8 number of known objects over each pixel, asked for or not.
    """
    wrong = int(np.sum((np.uint8(1) - gt) * pred, dtype=np.uint64))
    known = int(np.sum(foreground, dtype=np.uint64))
    return max(1 - wrong / (known + 1e-6), 0.0)


def score_expression(
    pred: Iterable[ArrayLike | None],
    gt: Iterable[ArrayLike | None],
    *,
    type_id: int,
    foreground: Iterable[ArrayLike] | None = None,
) -> RevosScore:
    """Score one expression, holding one frame at a time.

    Args:
        pred: per frame an (H, W) mask, anything but zero being the object; None: no prediction exists.
        gt: per frame (H, W) the number of annotated instances over each pixel (bool where they cannot
            overlap); None: nothing annotated.
        type_id: 0, 1 or 2.
        foreground: per frame (H, W) the number of known objects over each pixel; without, R is None.

    Raises:
        DatasetError: sizes or numbers of frames differ, there is no frame, or the type is unknown.
    """
    if type_id not in (REFERRING, REASONING, NO_TARGET):
        raise DatasetError(f"expected type_id 0, 1 or 2, got {type_id!r}")
    known = None if foreground is None else iter(foreground)
    totals = np.zeros(8)
    frames = missing = 0
    for found, truth in frame_pairs(pred, gt):
        around = None if known is None else _next_foreground(known, frames)
        frames += 1
        if found is None:
            missing += 1
        elif not missing:
            totals += _frame_scores(found, truth, around)
    if known is not None and next(known, None) is not None:
        raise DatasetError(f"expected {frames} foreground masks, one per frame, got more")
    if missing:
        totals[:] = 0
    j, f, *rest = (float(value) for value in totals / frames)
    pixels = [
        PixelScore(a, None if known is None else r)
        for a, r in zip(rest[::2], rest[1::2], strict=True)
    ]
    return RevosScore(type_id, j, f, pixels[0], pixels[1], pixels[2], frames, missing)


def missing_expression(num_frames: int, *, type_id: int) -> RevosScore:
    """Return the score of an expression without any prediction: 0."""
    zero = PixelScore(0.0, 0.0)
    return RevosScore(type_id, 0.0, 0.0, zero, zero, zero, num_frames, num_frames)


def summarise(scores: Iterable[RevosScore]) -> RevosSummary:
    """Average referring and reasoning expressions, and those two means."""
    rows = list(scores)
    referring = _group([row for row in rows if row.type_id == REFERRING])
    reasoning = _group([row for row in rows if row.type_id == REASONING])
    return RevosSummary(
        referring,
        reasoning,
        None if referring is None or reasoning is None else _overall(referring, reasoning),
        num_no_target=sum(row.type_id == NO_TARGET for row in rows),
        num_incomplete=sum(row.num_missing > 0 for row in rows),
    )


def _next_foreground(known: Iterator[ArrayLike], frame: int) -> NDArray[np.generic]:
    value = next(known, None)
    if value is None:
        raise DatasetError(f"expected as many foreground masks as frames, they end after {frame}")
    return np.asarray(value)


def _frame_scores(
    found: NDArray[np.generic], truth: NDArray[np.generic], around: NDArray[np.generic] | None
) -> NDArray[np.float64]:
    """Return J, F and three pairs (A, R) of a frame; R is 0 without a foreground."""
    j, f = region_similarity(found, truth), boundary_f(found, truth)
    if around is not None and around.shape != truth.shape:
        raise DatasetError(
            f"expected masks (H, W) of one size, got ground truth {truth.shape}, "
            f"foreground {around.shape}"
        )
    on = (found != 0).view(np.uint8)
    instances = truth.astype(np.uint8)
    objects = None if around is None else around.astype(np.uint8)
    values = [j, f]
    for prediction, annotation, known in (
        (on, (instances != 0).view(np.uint8), None if objects is None else (objects != 0)),
        (on, instances, objects),
        (on * np.uint8(255), instances, objects),
    ):
        values.append(accuracy(prediction, annotation))
        values.append(
            0.0 if known is None else robustness(prediction, annotation, known.view(np.uint8))
        )
    return np.array(values)


def _rounded(value: float) -> float:
    return round(100 * value, 2) / 100


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _pixels(scores: list[PixelScore]) -> PixelScore:
    known = [score.r for score in scores if score.r is not None]
    # A mean over some expressions only would not be the official one.
    complete = len(known) == len(scores)
    return PixelScore(
        _mean([_rounded(score.a) for score in scores]),
        _mean([_rounded(r) for r in known]) if complete else None,
    )


def _group(rows: list[RevosScore]) -> GroupSummary | None:
    if not rows:
        return None
    j = _mean([_rounded(row.j) for row in rows])
    f = _mean([_rounded(row.f) for row in rows])
    return GroupSummary(
        j,
        f,
        (j + f) / 2,
        _pixels([row.sets for row in rows]),
        _pixels([row.values_1 for row in rows]),
        _pixels([row.values_255 for row in rows]),
        len(rows),
    )


def _overall(first: GroupSummary, second: GroupSummary) -> GroupSummary:
    def middle(a: PixelScore, b: PixelScore) -> PixelScore:
        r = None if a.r is None or b.r is None else (a.r + b.r) / 2
        return PixelScore((a.a + b.a) / 2, r)

    return GroupSummary(
        (first.j + second.j) / 2,
        (first.f + second.f) / 2,
        (first.jf + second.jf) / 2,
        middle(first.sets, second.sets),
        middle(first.values_1, second.values_1),
        middle(first.values_255, second.values_255),
        first.num_expressions + second.num_expressions,
    )
