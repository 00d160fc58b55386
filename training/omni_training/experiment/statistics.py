"""Means over clips and seeds, and paired bootstrap intervals of their differences.

Every model answers the same clips, so a difference between two arms is taken clip by clip. One round of the
bootstrap draws clips with replacement, the same ones for both sides, and the seeds of each side with
replacement of their own: the interval holds the luck of the clips and that of the training seeds. With
three seeds the second is known roughly at best, so the figures of each seed are reported beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MEASURES = (
    "j_and_f",
    "right_object",
    "span_iou",
    "keyframe_box_iou",
    "absent_correct",
    "right_description",
)
LOW, HIGH = 2.5, 97.5


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the central 95 % of its bootstrap distribution."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


def table(scores: Mapping[str, Mapping[str, Any]], models: Sequence[str], measure: str) -> Floats:
    """Return (models, clips) of a measure, clips in the order of the first model's scores.

    Clips to which the measure does not apply (no absent query, no target) are left out.
    """
    clips = list(scores[models[0]])
    rows = [[scores[model][clip][measure] for clip in clips] for model in models]
    values = np.array(
        [[np.nan if v is None else float(v) for v in row] for row in rows], np.float64
    )
    return values[:, np.flatnonzero(~np.isnan(values).any(axis=0))]


def mean_interval(values: Floats, *, rounds: int, seed: int = 0) -> Interval:
    """Return the mean of (S, C) values over S seeds and C clips."""
    rng = np.random.default_rng(seed)
    draws = [_resampled(values, *_draw(values, rng)) for _ in range(rounds)]
    return _interval(float(values.mean()), draws)


def difference(ours: Floats, theirs: Floats, *, rounds: int, seed: int = 0) -> Interval:
    """Return the paired difference of means, ours minus theirs.

    Args:
        ours: (S, C) scores of S seeds on C clips.
        theirs: (Z, C) scores on the same clips; Z may differ from S.
        rounds: of the bootstrap.
        seed: of its draws.

    Raises:
        ValueError: the clips differ in number, or there are none.
    """
    if ours.shape[1] != theirs.shape[1] or ours.shape[1] == 0:
        raise ValueError(f"expected the same clips, got {ours.shape} and {theirs.shape}")
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(rounds):
        seeds, clips = _draw(ours, rng)
        others = rng.integers(len(theirs), size=len(theirs))
        draws.append(_resampled(ours, seeds, clips) - _resampled(theirs, others, clips))
    return _interval(float(ours.mean() - theirs.mean()), draws)


def _draw(values: Floats, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    seeds, clips = values.shape
    return rng.integers(seeds, size=(seeds,)), rng.integers(clips, size=(clips,))


def _resampled(values: Floats, seeds: NDArray[np.int64], clips: NDArray[np.int64]) -> float:
    return float(values[seeds][:, clips].mean())


def _interval(mean: float, draws: list[float]) -> Interval:
    low, high = np.percentile(draws, [LOW, HIGH])
    return Interval(mean, float(low), float(high))
