from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_sdk.errors import DatasetError
from omni_sdk.metrics.boxes import box_iou
from omni_sdk.metrics.spans import coverage_iou, span_iou


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 4), (2, 6), 1 / 3),
        ((0, 4), (0, 4), 1.0),
        ((0, 4), (4, 6), 0.0),
        ((0, 4), (5, 6), 0.0),
        ((0, 4), (1, 2), 0.25),
        ((3, 3), (3, 3), 1.0),
        ((3, 3), (4, 4), 0.0),
        ((3, 3), (2, 4), 0.0),
    ],
)
def test_pairs(first: Any, second: Any, expected: float) -> None:
    assert span_iou([first], [second])[0, 0] == pytest.approx(expected)
    assert span_iou([second], [first])[0, 0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([], [], 1.0),
        ([(0, 2)], [], 0.0),
        ([(0, 2), (1, 3)], [(0, 3)], 1.0),
        ([(0, 1), (2, 3)], [(0, 3)], 2 / 3),
        ([(0, 1), (0, 1)], [(0, 2)], 0.5),
        ([(1, 1)], [(1, 1), (1, 1)], 1.0),
        ([(1, 1)], [(2, 2)], 0.0),
    ],
)
def test_coverage(first: Any, second: Any, expected: float) -> None:
    assert coverage_iou(first, second) == pytest.approx(expected)


@pytest.mark.parametrize(
    "bad", [[(2, 1)], [(0, math.nan)], [(0, math.inf)], [1, 2, 3], [[1, 2, 3]]]
)
def test_bad_spans(bad: Any) -> None:
    for measure in (span_iou, coverage_iou):
        with pytest.raises(DatasetError, match="spans"):
            measure(bad, [(0, 1)])


_SPANS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda p: tuple(sorted(p))), max_size=5
)


@given(_SPANS, _SPANS)
@settings(deadline=None, max_examples=100)
def test_coverage_equals_counting(first: Any, second: Any) -> None:
    covered = [np.zeros(40, bool), np.zeros(40, bool)]
    for line, spans in zip(covered, (first, second), strict=True):
        for start, end in spans:
            line[start:end] = True
    union = (covered[0] | covered[1]).sum()
    if union:
        expected = (covered[0] & covered[1]).sum() / union
        assert coverage_iou(first, second) == pytest.approx(expected)
    assert coverage_iou(first, second) == coverage_iou(second, first)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),
        ((0, 0, 2, 2), (2, 2, 3, 3), 0.0),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
        ((2, 2, 0, 0), (0, 0, 2, 2), 0.0),
    ],
)
def test_box_iou(first: Any, second: Any, expected: float) -> None:
    assert box_iou([first], [second])[0, 0] == pytest.approx(expected)
    assert box_iou([], [second]).shape == (0, 1)
