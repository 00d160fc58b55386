from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from omni_sdk.errors import DatasetError
from omni_sdk.metrics.davis import boundary_f, region_similarity, statistics
from omni_sdk.metrics.davis_tracks import (
    SequenceScores,
    score_semisupervised,
    score_unsupervised,
    summarise,
)


def _maps(seed: int, frames: int, labels: int, noise: float = 0.0) -> list[Any]:
    """Blocks of labels that move one pixel per frame."""
    rng = np.random.default_rng(seed)
    maps = []
    for frame in range(frames):
        grid = np.zeros((30, 40), np.uint8)
        for label in range(1, labels + 1):
            grid[2 + 7 * (label - 1) : 8 + 7 * (label - 1), 3 + frame : 15 + frame] = label
        flip = rng.random(grid.shape) < noise
        grid[flip] = rng.integers(0, labels + 1, int(flip.sum()))
        maps.append(grid)
    return maps


def test_semisupervised_drops_first_and_last() -> None:
    gt = _maps(0, 6, 3)
    pred = _maps(1, 6, 3, noise=0.2)
    pred[0], pred[-1] = np.full((1, 1), 77), np.zeros((2, 2))
    scores = score_semisupervised(pred, gt)
    assert scores.j.shape == scores.f.shape == (3, 4)
    assert scores.matched_labels == (1, 2, 3)
    for label, frame in itertools.product((1, 2, 3), range(1, 5)):
        masks = pred[frame] == label, gt[frame] == label
        assert scores.j[label - 1, frame - 1] == region_similarity(*masks)
        assert scores.f[label - 1, frame - 1] == boundary_f(*masks)


def test_objects_are_those_of_the_first_frame() -> None:
    gt = _maps(0, 4, 2)
    gt[0][20:, 30:] = 255
    gt[2][25:, :5] = 3
    assert score_semisupervised(_maps(0, 4, 2), gt).j.shape == (2, 2)


@pytest.mark.parametrize(
    ("pred", "gt", "match"),
    [
        (_maps(0, 4, 3), _maps(0, 4, 2), "labels up to 2"),
        (_maps(0, 3, 2), _maps(0, 4, 2), "as many maps"),
        (_maps(0, 2, 2), _maps(0, 2, 2), "at least 3 frames"),
        ([], [], "as many maps"),
        (_maps(0, 4, 2), [np.zeros((30, 40))] * 4, "expected an object"),
        ([np.zeros((30, 41))] * 4, _maps(0, 4, 2), "of one size"),
    ],
)
def test_sequences_that_do_not_fit(pred: Any, gt: Any, match: str) -> None:
    with pytest.raises(DatasetError, match=match):
        score_semisupervised(pred, gt)


def _score_all_assignments(pred: list[Any], gt: list[Any], labels: int, proposals: int) -> float:
    """Return the best mean J&F over every assignment of proposals (or nothing) to objects."""

    def mean(label: int, proposal: int) -> float:
        values = []
        for found, truth in zip(pred, gt, strict=True):
            mask = (found == proposal) if proposal else np.zeros(found.shape, bool)
            target, void = truth == label, truth == 255
            values.append(
                (region_similarity(mask, target, void) + boundary_f(mask, target, void)) / 2
            )
        return float(np.mean(values))

    choices = [*range(1, proposals + 1), *[0] * labels]
    return max(
        float(np.mean([mean(k, p) for k, p in enumerate(order, 1)]))
        for order in set(itertools.permutations(choices, labels))
    )


@pytest.mark.parametrize(("labels", "proposals"), [(2, 3), (3, 2), (3, 3), (1, 4), (2, 0)])
def test_unsupervised_is_the_best_assignment(labels: int, proposals: int) -> None:
    pytest.importorskip("omni_sdk.dus.assignment")
    gt = _maps(0, 3, labels)
    gt[1][:4, :6] = 255
    pred = _maps(5, 3, max(proposals, 1), noise=0.3)
    if proposals:
        pred = [(p + 1) * (p > 0) % (proposals + 1) for p in pred]
    else:
        pred = [np.zeros_like(p) for p in pred]
    scores = score_unsupervised(pred, gt)
    best = _score_all_assignments(pred, gt, labels, proposals)
    assert (scores.j.mean() + scores.f.mean()) / 2 == pytest.approx(best)


def test_too_many_proposals() -> None:
    pytest.importorskip("omni_sdk.dus.assignment")
    with pytest.raises(DatasetError, match="at most 20"):
        score_unsupervised([np.full((30, 40), 21)] * 3, _maps(0, 3, 1))


def test_summary_weighs_objects_not_sequences() -> None:
    rng = np.random.default_rng(0)
    a = SequenceScores(rng.random((3, 9)), rng.random((3, 9)), (1, 2, 3))
    b = SequenceScores(rng.random((1, 5)), rng.random((1, 5)), (1,))
    summary = summarise({"a": a, "b": b})
    stats = [statistics(row) for row in (*a.j, *b.j)]
    assert summary.j.mean == pytest.approx(np.mean([s.mean for s in stats]))
    assert summary.j.recall == pytest.approx(np.mean([s.recall for s in stats]))
    assert summary.j.decay == pytest.approx(np.mean([s.decay for s in stats]))
    assert summary.jf_mean == (summary.j.mean + summary.f.mean) / 2
    assert list(summary.per_object) == ["a_1", "a_2", "a_3", "b_1"]
    assert summary.per_sequence["a"][0] == pytest.approx(a.j.mean())
    assert summary.num_objects == 4
    with pytest.raises(DatasetError, match="at least one"):
        summarise({})


def test_scores_must_fit() -> None:
    with pytest.raises(DatasetError, match="J and F"):
        SequenceScores(np.zeros((2, 3)), np.zeros((2, 4)), (1, 2))
    with pytest.raises(DatasetError, match="matched labels"):
        SequenceScores(np.zeros((2, 3)), np.zeros((2, 3)), (1,))
