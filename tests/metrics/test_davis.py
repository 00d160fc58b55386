from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from omni_sdk.errors import DatasetError
from omni_sdk.metrics.davis import (
    boundary_f,
    boundary_radius,
    region_similarity,
    statistics,
)

FULL = np.ones((6, 8), bool)
EMPTY = np.zeros((6, 8), bool)
LEFT = np.zeros((6, 8), bool)
LEFT[:, :4] = True
TOP_LEFT = np.zeros((6, 8), bool)
TOP_LEFT[:3, :4] = True


@pytest.mark.parametrize(
    ("pred", "gt", "void", "j", "f"),
    [
        (EMPTY, EMPTY, None, 1.0, 1.0),
        (EMPTY, LEFT, None, 0.0, 0.0),
        (LEFT, EMPTY, None, 0.0, 0.0),
        (LEFT, LEFT, None, 1.0, 1.0),
        (FULL, FULL, None, 1.0, 1.0),
        # The border of the picture is no boundary: a full mask has none, as an empty one.
        (FULL, EMPTY, None, 0.0, 1.0),
        (FULL, LEFT, None, 0.5, 0.0),
        (TOP_LEFT, LEFT, None, 0.5, None),
        # What differs is void, or all is.
        (TOP_LEFT, LEFT, LEFT & ~TOP_LEFT, 1.0, 1.0),
        (LEFT, EMPTY, FULL, 1.0, 1.0),
        (LEFT, TOP_LEFT, TOP_LEFT, 0.0, 0.0),
    ],
)
def test_edge_cases(
    pred: Any, gt: Any, void: Any, j: float, f: float | None, official_f: Callable[..., float]
) -> None:
    assert region_similarity(pred, gt, void) == j
    measured = boundary_f(pred, gt, void)
    assert measured == official_f(pred, gt, void)
    if f is not None:
        assert measured == f


def test_j_by_hand() -> None:
    pred = np.array([[1, 1, 0], [0, 1, 0]])
    gt = np.array([[1, 0, 0], [0, 1, 1]], np.uint8) * 255
    assert region_similarity(pred, gt) == 2 / 4
    assert region_similarity(pred, gt, [[0, 1, 0], [0, 0, 0]]) == 2 / 3


@pytest.mark.parametrize(
    ("size", "bound_th", "radius"),
    [
        ((480, 854), 0.008, 8),
        ((1080, 1920), 0.008, 18),
        ((75, 100), 0.008, 1),
        ((10, 10), 0.0, 0),
        ((10, 10), 3, 3),
    ],
)
def test_radius(size: tuple[int, int], bound_th: float, radius: int) -> None:
    assert boundary_radius(size, bound_th) == radius


@pytest.mark.parametrize("bound_th", [-0.1, math.nan, math.inf, 2.5])
def test_bad_radius(bound_th: float) -> None:
    with pytest.raises(ValueError, match="bound_th"):
        boundary_f(LEFT, LEFT, bound_th=bound_th)


@pytest.mark.parametrize(
    ("pred", "gt", "void"),
    [
        (LEFT, LEFT[:, :-1], None),
        (LEFT, LEFT, LEFT[:-1]),
        (LEFT[None], LEFT[None], None),
        (np.zeros((0, 4), bool), np.zeros((0, 4), bool), None),
    ],
)
@pytest.mark.parametrize("measure", [region_similarity, boundary_f])
def test_sizes_must_agree(measure: Callable[..., float], pred: Any, gt: Any, void: Any) -> None:
    with pytest.raises(DatasetError, match=r"expected masks \(H, W\)"):
        measure(pred, gt, void)


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_f_equals_the_formula(official_f: Callable[..., float], data: st.DataObject) -> None:
    shape = data.draw(array_shapes(min_dims=2, max_dims=2, max_side=24))
    masks = [data.draw(arrays(np.bool_, shape)) for _ in range(3)]
    void = masks[2] if data.draw(st.booleans()) else None
    bound_th = data.draw(st.sampled_from([0.0, 0.008, 0.05, 0.3, 1, 2, 30]))
    ours = boundary_f(masks[0], masks[1], void, bound_th)
    assert ours == official_f(masks[0], masks[1], void, bound_th)
    assert 0.0 <= ours <= 1.0
    assert ours == pytest.approx(boundary_f(masks[1], masks[0], void, bound_th))


@pytest.mark.parametrize("seed", range(6))
def test_f_equals_the_formula_on_blobs(official_f: Callable[..., float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (120, 160) if seed % 2 else (97, 53)
    y, x = np.mgrid[:height, :width]
    masks = []
    for _ in range(2):
        centre = rng.uniform(0, 1, 2) * (height, width)
        radius = rng.uniform(5, height / 2)
        masks.append((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2)
    masks[1] ^= rng.random((height, width)) < 0.01
    assert boundary_f(*masks) == official_f(*masks)


def test_official_numbers(davis_masks: Path, davis_expected: dict[str, Any]) -> None:
    image = pytest.importorskip("PIL.Image")

    def read(method: str, sequence: str, frame: int) -> Any:
        return np.asarray(image.open(davis_masks / method / sequence / f"{frame:05d}.png"))

    worst = 0.0
    for sequence, objects in davis_expected.items():
        # Every 7th frame keeps this short; `omni-sdk` benchmarks go over all of them.
        for frame in range(0, len(next(iter(objects.values()))["J"]), 7):
            truth, found = read("osvos", sequence, frame), read("rvos", sequence, frame)
            for object_id, numbers in objects.items():
                masks = found == numbers["prediction_id"], truth == int(object_id)
                worst = max(worst, abs(region_similarity(*masks) - numbers["J"][frame]))
                worst = max(worst, abs(boundary_f(*masks) - numbers["F"][frame]))
    # The list holds six decimals.
    assert worst <= 0.5e-6 + 1e-12


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 7, 16, 69, 100, 255])
def test_statistics_as_the_official_code(frames: int) -> None:
    values = np.random.default_rng(frames).random(frames)
    edges = np.round(np.linspace(1, frames, 5) + 1e-10) - 1
    edges = edges.astype(np.uint8)
    bins = [values[edges[i] : edges[i + 1] + 1] for i in range(4)]
    result = statistics(values)
    assert result.mean == np.nanmean(values)
    assert result.recall == np.nanmean(values > 0.5)
    assert result.decay == np.nanmean(bins[0]) - np.nanmean(bins[3])


def test_statistics_of_long_series_do_not_wrap() -> None:
    values = np.concatenate([np.ones(500), np.zeros(500)])
    assert statistics(values).decay == 1.0


def test_statistics_skip_nan() -> None:
    result = statistics([1.0, math.nan, 0.0, 0.0])
    assert result.mean == pytest.approx(1 / 3)
    assert result.recall == 0.25
    with pytest.raises(DatasetError, match="at least one frame"):
        statistics([math.nan])
    with pytest.raises(DatasetError, match="at least one frame"):
        statistics([])
