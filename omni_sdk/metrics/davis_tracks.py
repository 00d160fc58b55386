"""DAVIS over whole sequences: label maps in, J and F per object, and the table of the benchmark.

Source: `davis2017/evaluation.py`, `davis.py` and `results.py` of davis2017-evaluation. Per object the
mean over frames, then the mean over all objects of all sequences (not per sequence first); J&F is the
mean of the two means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omni_sdk.errors import DatasetError
from omni_sdk.metrics.davis import Statistics, boundary_f, region_similarity, statistics

VOID_LABEL = 255
MAX_PROPOSALS = 20


@dataclass(frozen=True, slots=True)
class SequenceScores:
    """J and F of one sequence.

    Attributes:
        j: (N, T) float64, objects in order of their label, frames in time order.
        f: (N, T) float64.
        matched_labels: (N,) the predicted label that each object was scored with; 0: none was left.
    """

    j: NDArray[np.float64]
    f: NDArray[np.float64]
    matched_labels: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.j.ndim != 2 or self.j.shape != self.f.shape:
            raise DatasetError(f"expected J and F (N, T), got {self.j.shape} and {self.f.shape}")
        if self.j.shape[0] != len(self.matched_labels):
            raise DatasetError(
                f"expected {self.j.shape[0]} matched labels, got {len(self.matched_labels)}"
            )

    def __repr__(self) -> str:
        return f"SequenceScores(objects={self.j.shape[0]}, frames={self.j.shape[1]})"


@dataclass(frozen=True, slots=True)
class DavisSummary:
    """The benchmark's table.

    Attributes:
        jf_mean: mean of the two means.
        j: mean over objects of mean, recall and decay of J.
        f: the same of F.
        per_object: "sequence_1" -> (J mean, F mean).
        per_sequence: sequence -> (mean J of its objects, mean F), as the site's second table has it.
        num_objects: in the means.
    """

    jf_mean: float
    j: Statistics
    f: Statistics
    per_object: dict[str, tuple[float, float]]
    per_sequence: dict[str, tuple[float, float]]
    num_objects: int


def score_semisupervised(pred: Sequence[ArrayLike], gt: Sequence[ArrayLike]) -> SequenceScores:
    """Score a sequence whose objects were given on its first frame.

    The first frame (given) and the last are left out. Label k of the prediction is object k; void pixels
    (255) of the truth are background, as in this track of the official code.

    Args:
        pred: T label maps (H, W), 0 is background. Maps of the first and last frame are not looked at.
        gt: T label maps (H, W); the objects are 1..N, N being the largest label of the first frame.

    Raises:
        DatasetError: fewer than three frames, numbers of frames or sizes differ, no object, or a
            predicted label above N.
    """
    count = _num_objects(pred, gt)
    if len(gt) < 3:
        raise DatasetError(
            f"expected at least 3 frames (first and last are dropped), got {len(gt)}"
        )
    pairs = [_maps(a, b) for a, b in zip(pred[1:-1], gt[1:-1], strict=True)]
    highest = max(int(found.max()) for found, _ in pairs)
    if highest > count:
        raise DatasetError(
            f"expected predicted labels up to {count}, the objects of the first frame; got {highest}"
        )
    values = np.zeros((2, count, len(pairs)))
    for frame, (found, truth) in enumerate(pairs):
        for label in range(1, count + 1):
            masks = found == label, truth == label
            values[:, label - 1, frame] = region_similarity(*masks), boundary_f(*masks)
    return SequenceScores(values[0], values[1], tuple(range(1, count + 1)))


def score_unsupervised(pred: Sequence[ArrayLike], gt: Sequence[ArrayLike]) -> SequenceScores:
    """Score a sequence whose objects had to be found: proposals are assigned to give the best J&F.

    All frames count. Void pixels (255) of the truth count neither way. Proposals without an object cost
    nothing, as in the official code; an object without a proposal is scored with an empty one.

    Args:
        pred: T label maps (H, W), 0 is background, at most 20 proposals.
        gt: T label maps (H, W); the objects are 1..N, N being the largest label of the first frame.

    Raises:
        DatasetError: numbers of frames or sizes differ, no object, or more than 20 proposals.
    """
    # Imported here: the assignment belongs to the tracker.
    from omni_sdk.dus.assignment import linear_assignment

    count = _num_objects(pred, gt)
    pairs = [_maps(a, b) for a, b in zip(pred, gt, strict=True)]
    proposals = max(int(found.max()) for found, _ in pairs)
    if proposals > MAX_PROPOSALS:
        raise DatasetError(f"expected at most {MAX_PROPOSALS} proposals, got label {proposals}")
    # Proposal 0 stands for the empty ones that the official code pads with.
    values = np.zeros((2, proposals + 1, count, len(pairs)))
    for frame, (found, truth) in enumerate(pairs):
        void = truth == VOID_LABEL
        for label in range(1, count + 1):
            target = truth == label
            for proposal in range(proposals + 1):
                mask = found == proposal if proposal else np.zeros_like(target)
                values[:, proposal, label - 1, frame] = (
                    region_similarity(mask, target, void),
                    boundary_f(mask, target, void),
                )
    padding = [0] * max(0, count - proposals)
    order = [*range(1, proposals + 1), *padding]
    score = values.mean(axis=(0, 3))[order]
    rows, objects = linear_assignment(-score)
    chosen = [order[rows[k]] for k in np.argsort(objects)]
    picked = values[:, chosen, np.arange(count)]
    return SequenceScores(picked[0], picked[1], tuple(chosen))


def summarise(sequences: Mapping[str, SequenceScores]) -> DavisSummary:
    """Average all objects of all sequences, each with the same weight.

    Raises:
        DatasetError: there is no object.
    """
    per_object: dict[str, tuple[float, float]] = {}
    per_sequence: dict[str, tuple[float, float]] = {}
    rows: list[tuple[Statistics, Statistics]] = []
    for name, scores in sequences.items():
        own = [(statistics(j), statistics(f)) for j, f in zip(scores.j, scores.f, strict=True)]
        rows += own
        means = [(j.mean, f.mean) for j, f in own]
        per_object |= {f"{name}_{k}": pair for k, pair in enumerate(means, 1)}
        if means:
            per_sequence[name] = (
                float(np.mean([j for j, _ in means])),
                float(np.mean([f for _, f in means])),
            )
    if not rows:
        raise DatasetError("expected at least one scored object, got none")
    j, f = (_average([row[k] for row in rows]) for k in (0, 1))
    return DavisSummary((j.mean + f.mean) / 2, j, f, per_object, per_sequence, len(rows))


def _average(rows: list[Statistics]) -> Statistics:
    def mean(name: str) -> float:
        return math.fsum(getattr(row, name) for row in rows) / len(rows)

    return Statistics(mean("mean"), mean("recall"), mean("decay"))


def _num_objects(pred: Sequence[ArrayLike], gt: Sequence[ArrayLike]) -> int:
    if len(pred) != len(gt) or not len(gt):
        raise DatasetError(f"expected as many maps in both, got {len(pred)} and {len(gt)}")
    count = _highest(np.asarray(gt[0]))
    if count == 0:
        raise DatasetError("expected an object in the first annotated frame, found none")
    return count


def _highest(labels: NDArray[np.generic]) -> int:
    """Return the largest label that is not void, 0 without any."""
    return int(np.max(labels, where=labels != VOID_LABEL, initial=0))


def _maps(found: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    a, b = np.asarray(found), np.asarray(truth)
    if a.ndim != 2 or a.shape != b.shape or not a.size:
        raise DatasetError(
            f"expected label maps (H, W) of one size, got prediction {a.shape}, ground truth {b.shape}"
        )
    return a, b
