"""Intervals of paired differences, the contrasts' verdicts, and the plots."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omni_training.experiment.plots import curve_plot, interval_plot
from omni_training.experiment.report import CONTRASTS, verdict
from omni_training.experiment.settings import ARMS, START
from omni_training.experiment.statistics import Interval, difference, mean_interval, table


def test_a_constant_gain_has_no_width() -> None:
    base = np.random.default_rng(0).random((1, 200))
    found = difference(base + 0.1, base, rounds=200)
    assert found.mean == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)
    assert found.excludes_zero


def test_pairing_narrows_the_interval() -> None:
    """The clips' own difficulty cancels: far narrower than the intervals of the two means."""
    rng = np.random.default_rng(1)
    clips = rng.random((1, 300))
    theirs = clips + rng.normal(0, 0.01, (1, 300))
    ours = clips + rng.normal(0, 0.01, (3, 300))
    paired = difference(ours, theirs, rounds=400)
    alone = mean_interval(ours, rounds=400)
    assert paired.high - paired.low < (alone.high - alone.low) / 5
    assert paired.low < 0 < paired.high


def test_seeds_that_disagree_widen_it() -> None:
    base = np.zeros((1, 500))
    agree = np.full((3, 500), 0.1)
    disagree = np.array([[-0.2], [0.1], [0.4]]) + base
    assert difference(agree, base, rounds=300).excludes_zero
    assert not difference(disagree, base, rounds=300).excludes_zero


def test_coverage_is_about_what_it_says() -> None:
    """With many seeds, 95 % intervals hold the truth in most repetitions."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(60):
        effect = rng.normal(0, 0.05, (12, 1)) + rng.normal(0, 0.2, (12, 60))
        found = difference(effect + 0.03, np.zeros((1, 60)), rounds=150)
        held += found.low <= 0.03 <= found.high
    assert held >= 50


def test_different_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="same clips"):
        difference(np.zeros((1, 3)), np.zeros((1, 4)), rounds=1)
    with pytest.raises(ValueError, match="same clips"):
        difference(np.zeros((1, 0)), np.zeros((1, 0)), rounds=1)


def test_measures_that_do_not_apply_are_left_out() -> None:
    scores = {
        "start": {"a": {"x": 1.0}, "b": {"x": None}, "c": {"x": 0.5}},
        "other": {"c": {"x": 0.0}, "a": {"x": 1.0}, "b": {"x": None}},
    }
    np.testing.assert_array_equal(table(scores, ["start", "other"], "x"), [[1.0, 0.5], [1.0, 0.0]])


def test_table_of_booleans_and_missing_clips() -> None:
    scores: dict[str, Any] = {"start": {"a": {"x": True}}, "other": {}}
    with pytest.raises(KeyError):
        table(scores, ["start", "other"], "x")


@pytest.mark.parametrize(
    ("found", "paper", "said"),
    [
        (Interval(0.02, 0.01, 0.03), 4.7, "same sign"),
        (Interval(-0.02, -0.03, -0.01), 4.7, "opposite sign"),
        (Interval(0.02, -0.01, 0.05), 4.7, "not told apart from 0"),
        (Interval(0.02, 0.01, 0.03), None, "no figure in the paper"),
    ],
)
def test_verdicts(found: Interval, paper: float | None, said: str) -> None:
    assert verdict(found, paper) == said


def test_contrasts_name_arms_and_the_papers_figures() -> None:
    assert all(c.ours in ARMS and c.theirs in (*ARMS, START) for c in CONTRASTS)
    figures = {c.name: c.paper for c in CONTRASTS}
    assert figures["R_K alone against the start"] == pytest.approx(-1.4)
    assert figures["R_A on top of R_K+R_G, judge of the training"] == pytest.approx(-1.5)
    assert figures["R_A on top of R_K+R_G, judge swapped"] == pytest.approx(2.9)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(-1e4, 1e4, allow_nan=False, allow_subnormal=False), min_size=1, max_size=6)
)
def test_plots_are_well_formed_and_bounded(values: list[float]) -> None:
    rows = {f"<arm {i}>": (v, v - 1, v + 1) for i, v in enumerate(values)}
    lines = {"a & b": (list(range(len(values))), values)}
    for text in (interval_plot("t", rows, "u"), curve_plot("t", lines, "step")):
        root = ElementTree.fromstring(text)
        assert len(list(root)) < 200, "ticks do not explode"
