from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from omni_sdk.dus.boxes import box_area, box_iou, check_boxes, mask_box
from omni_sdk.errors import PromptError

CORNERS = arrays(np.int64, st.tuples(st.integers(1, 4), st.just(4)), elements=st.integers(0, 12))


def _paint(box: np.ndarray) -> np.ndarray:
    mask = np.zeros((12, 12), bool)
    x0, y0, x1, y1 = box
    mask[y0 : max(y0, y1), x0 : max(x0, x1)] = True
    return mask


@settings(deadline=None, max_examples=80)
@given(CORNERS, CORNERS)
def test_iou_and_area_equal_painted_pixels(a: np.ndarray, b: np.ndarray) -> None:
    iou = box_iou(a, b)
    for i, first in enumerate(map(_paint, a)):
        assert box_area(a)[i] == first.sum()
        for j, second in enumerate(map(_paint, b)):
            union = (first | second).sum()
            expected = (first & second).sum() / union if union else 0
            assert iou[i, j] == pytest.approx(expected)
    assert iou.shape == (len(a), len(b))


@settings(deadline=None, max_examples=50)
@given(CORNERS)
def test_mask_box_finds_a_painted_box(boxes: np.ndarray) -> None:
    for box in boxes:
        mask = _paint(box)
        found = mask_box(mask)
        if mask.any():
            np.testing.assert_array_equal(found, box)
        else:
            assert found is None


def test_no_boxes() -> None:
    assert box_iou(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)
    assert check_boxes(np.zeros((0, 4)), size_hw=(5, 5)).shape == (0, 4)


def test_clips_to_the_frame() -> None:
    clipped = check_boxes([[-5, 2, 30, 9]], size_hw=(8, 20))
    np.testing.assert_array_equal(clipped, [[0, 2, 20, 8]])
    assert clipped.dtype == np.float32


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, np.nan, 5]], "is not finite"),
        ([[0, 0, np.inf, 5]], "is not finite"),
        ([[0, 0, 1e300, 5]], "is not finite"),
        ([[6, 0, 5, 5]], "inverted or empty"),
        ([[0, 5, 5, 5]], "inverted or empty"),
        ([[30, 0, 40, 5]], "lies outside the frame of 20 x 8 pixels"),
        ([[-9, 0, 0, 5]], "lies outside"),
        ([[0, 0, 5]], "shape"),
        ([0, 0, 5, 5], "shape"),
        ([["a", 0, 5, 5]], "numbers"),
        ([[0, 0, 5], [1, 2, 3, 4]], "numbers"),
    ],
)
def test_refuses(boxes: object, message: str) -> None:
    with (
        np.errstate(over="ignore"),
        pytest.raises(PromptError, match=f"frame 3: .*{message}"),
    ):
        check_boxes(boxes, size_hw=(8, 20), where="frame 3: ")  # type: ignore[arg-type]


@settings(deadline=None, max_examples=150)
@given(arrays(np.float64, (2, 4), elements=st.floats(allow_nan=True, allow_infinity=True)))
def test_any_floats_are_refused_or_end_inside_the_frame(boxes: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        try:
            checked = check_boxes(boxes, size_hw=(48, 64))
        except PromptError:
            return
    assert (checked >= 0).all()
    assert (checked <= [64, 48, 64, 48]).all()
    assert (box_area(checked) > 0).all()
