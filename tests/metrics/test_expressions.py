from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from omni_sdk.errors import DatasetError
from omni_sdk.metrics import mevis, revos

ON = np.zeros((12, 16), bool)
ON[2:9, 3:11] = True
HALF = ON.copy()
HALF[:, 7:] = False
OFF = np.zeros_like(ON)


def test_expression_is_the_mean_over_frames(official_f: Callable[..., float]) -> None:
    score = mevis.score_expression([ON, HALF, OFF, OFF], [ON, ON, None, ON])
    assert score.j == (1 + 0.5 + 1 + 0) / 4
    assert score.f == (1 + official_f(HALF, ON) + 1 + 0) / 4
    assert score.jf == (score.j + score.f) / 2
    assert (score.num_frames, score.num_missing) == (4, 0)


@pytest.mark.parametrize(("pred", "missing"), [([ON, None], 1), ([None, ON], 1), ([None, None], 2)])
def test_a_missing_frame_costs_the_expression(pred: list[Any], missing: int) -> None:
    score = mevis.score_expression(pred, [ON, ON])
    assert (score.j, score.f, score.num_frames, score.num_missing) == (0.0, 0.0, 2, missing)
    scored = revos.score_expression(pred, [ON, ON], type_id=0, foreground=[ON, ON])
    assert (scored.j, scored.f, scored.sets.a, scored.values_255.r) == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("pred", "gt", "match"),
    [
        ([ON], [ON, ON], "prediction ends after 1"),
        ([ON, ON], [ON], "ground truth ends after 1"),
        ([], [], "at least one frame"),
        ([ON[:-1]], [ON], "of one size"),
        ([ON], [ON[None]], "of one size"),
    ],
)
def test_frames_that_do_not_fit(pred: list[Any], gt: list[Any], match: str) -> None:
    with pytest.raises(DatasetError, match=match):
        mevis.score_expression(pred, gt)
    with pytest.raises(DatasetError, match=match):
        revos.score_expression(pred, gt, type_id=1)


def test_frames_are_held_one_at_a_time() -> None:
    live = 0

    def frames() -> Any:
        nonlocal live
        for _ in range(5):
            live += 1
            assert live == 1
            yield ON
            live -= 1

    assert mevis.score_expression(frames(), iter([ON] * 5)).j == 1.0


def test_mevis_summary() -> None:
    rows = [
        mevis.ExpressionScore(0.5, 0.7, 10),
        mevis.ExpressionScore(1.0, 0.9, 2),
        mevis.missing_expression(7),
    ]
    summary = mevis.summarise(rows)
    assert summary.j == pytest.approx(0.5)
    assert summary.f == pytest.approx(1.6 / 3)
    assert summary.jf == (summary.j + summary.f) / 2
    assert (summary.num_expressions, summary.num_incomplete) == (3, 1)
    with pytest.raises(DatasetError, match="at least one"):
        mevis.summarise([])


def _official_a(gt: Any, pred: Any) -> float:
    return float(np.mean([np.mean(a == b) for a, b in zip(gt, pred, strict=True)]))


def _official_r(gt: Any, pred: Any, foreground: Any) -> float:
    values = []
    for a, b, c in zip(gt, pred, foreground, strict=True):
        values.append(max(1 - ((1 - a) * b).sum() / (c.sum() + 1e-6), 0.0))
    return float(np.mean(values))


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("seed", range(4))
def test_a_and_r_equal_the_script(seed: int, value: int) -> None:
    rng = np.random.default_rng(seed)
    # Instances overlap (2, 3), as merged annotations do.
    gt = (rng.random((3, 9, 11, 3)) < 0.3).sum(axis=3).astype(np.uint8)
    foreground = (rng.random((3, 9, 11, 4)) < 0.5).sum(axis=3).astype(np.uint8)
    pred = (rng.random((3, 9, 11)) < 0.1 * seed).astype(np.uint8) * np.uint8(value)
    score = revos.score_expression(pred, gt, type_id=0, foreground=foreground)
    ours = score.values_1 if value == 1 else score.values_255
    assert ours.a == pytest.approx(_official_a(gt, pred), abs=1e-12)
    assert ours.r == pytest.approx(_official_r(gt, pred, foreground), abs=1e-12)


def test_why_there_are_two_encodings() -> None:
    wrong = ON.copy()
    wrong[2, 2] = True
    score = revos.score_expression([wrong], [ON], type_id=0, foreground=[ON])
    area = int(ON.sum())
    assert score.sets.r == pytest.approx(1 - 1 / area)
    assert score.sets == score.values_1
    assert score.values_255.r == 0.0
    # A perfect mask: everything but the object itself is "accurate".
    perfect = revos.score_expression([ON], [ON], type_id=0, foreground=[ON])
    assert perfect.sets == revos.PixelScore(1.0, 1.0)
    assert perfect.values_255.a == pytest.approx(1 - area / ON.size)
    # Overlapping instances: 1 - 2 wraps to 255.
    twice = revos.score_expression([ON], [ON * np.uint8(2)], type_id=0, foreground=[ON])
    assert twice.sets == revos.PixelScore(1.0, 1.0)
    assert twice.values_1.r == 0.0


def test_revos_without_foreground_has_no_r() -> None:
    score = revos.score_expression([HALF], [ON], type_id=1)
    assert (score.sets.r, score.values_1.r, score.values_255.r) == (None, None, None)
    assert score.sets.a == pytest.approx(1 - 28 / ON.size)


@pytest.mark.parametrize(
    ("foreground", "match"),
    [([], "end after 0"), ([ON, ON], "got more"), ([ON[:-1]], "foreground")],
)
def test_foreground_must_fit(foreground: list[Any], match: str) -> None:
    with pytest.raises(DatasetError, match=match):
        revos.score_expression([ON], [ON], type_id=0, foreground=foreground)


def test_unknown_type() -> None:
    with pytest.raises(DatasetError, match="type_id"):
        revos.score_expression([ON], [ON], type_id=3)


def _scored(type_id: int, j: float, f: float, r: float | None = 0.5) -> revos.RevosScore:
    pixels = revos.PixelScore(0.9, r)
    return revos.RevosScore(type_id, j, f, pixels, pixels, pixels, 10)


def test_overall_is_the_mean_of_the_groups() -> None:
    rows = [
        _scored(0, 0.123456, 0.4),
        _scored(0, 0.2, 0.4),
        _scored(0, 0.3, 0.4),
        _scored(1, 0.8, 0.6),
        _scored(2, 1.0, 1.0),
        revos.missing_expression(10, type_id=1),
    ]
    summary = revos.summarise(rows)
    assert summary.referring is not None
    assert summary.reasoning is not None
    assert summary.overall is not None
    # The script rounds each expression to 0.01 percent first: 12.35, not 12.3456.
    assert summary.referring.j == pytest.approx((0.1235 + 0.2 + 0.3) / 3, abs=1e-15)
    assert summary.reasoning.j == pytest.approx(0.4)
    assert summary.overall.j == pytest.approx((summary.referring.j + 0.4) / 2)
    assert summary.overall.jf == pytest.approx((summary.overall.j + summary.overall.f) / 2)
    assert summary.overall.sets.r == pytest.approx((0.5 + 0.25) / 2)
    assert summary.overall.num_expressions == 5
    assert (summary.num_no_target, summary.num_incomplete) == (1, 1)


def test_a_group_may_be_missing() -> None:
    summary = revos.summarise([_scored(0, 0.5, 0.5, None)])
    assert summary.referring is not None
    assert summary.referring.sets.r is None
    assert summary.reasoning is None
    assert summary.overall is None
