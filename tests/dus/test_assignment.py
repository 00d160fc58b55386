from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from omni_sdk.dus.assignment import linear_assignment, match_by_iou

SHAPES = st.tuples(st.integers(0, 7), st.integers(0, 7))
COSTS = SHAPES.flatmap(lambda s: arrays(np.float64, s, elements=st.floats(-1e3, 1e3)))
TIES = SHAPES.flatmap(lambda s: arrays(np.float64, s, elements=st.sampled_from([0.0, 1.0, 2.0])))
IOUS = SHAPES.flatmap(lambda s: arrays(np.float64, s, elements=st.floats(0, 1)))


@settings(deadline=None, max_examples=150)
@given(st.one_of(COSTS, TIES))
def test_equals_scipy(cost: np.ndarray) -> None:
    rows, columns = linear_assignment(cost)
    expected = linear_sum_assignment(cost)
    assert len(rows) == len(columns) == min(cost.shape)
    assert len(set(columns.tolist())) == len(columns)
    assert (np.diff(rows) > 0).all()
    np.testing.assert_allclose(cost[rows, columns].sum(), cost[expected].sum(), atol=1e-7)


def test_large_random_problem_equals_scipy() -> None:
    cost = np.random.default_rng(0).normal(size=(60, 90))
    rows, columns = linear_assignment(cost)
    np.testing.assert_array_equal((rows, columns), linear_sum_assignment(cost))


@pytest.mark.parametrize("cost", [[[1, np.nan]], [[np.inf]], [1, 2], 3.0])
def test_refuses(cost: object) -> None:
    with pytest.raises(ValueError, match="finite"):
        linear_assignment(cost)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=100)
@given(IOUS, st.floats(0.05, 1))
def test_match_keeps_the_threshold_and_is_the_best_of_all_matchings(
    iou: np.ndarray, minimum: float
) -> None:
    matched = match_by_iou(iou, minimum)
    pairs = [(n, m) for n, m in enumerate(matched) if m >= 0]
    assert len({m for _, m in pairs}) == len(pairs)
    assert all(iou[n, m] >= minimum for n, m in pairs)
    gain = np.where(iou >= minimum, iou, 0)
    best = gain[linear_sum_assignment(gain, maximize=True)].sum()
    assert sum(iou[n, m] for n, m in pairs) == pytest.approx(best)


def test_match_prefers_the_sum_over_the_single_best_pair() -> None:
    assert match_by_iou([[0.9, 0.8], [0.8, 0.1]], 0.5).tolist() == [1, 0]
    assert match_by_iou([[0.9, 0.8], [0.7, 0.1]], 0.75).tolist() == [0, -1]
