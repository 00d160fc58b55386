"""COCO run-length masks: byte equality with pycocotools, and with the numpy references."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pycocotools import mask as coco

from omni_sdk.dus import masks, masks_numpy
from omni_sdk.errors import LimitError, MaskError, OmniError

pytestmark = pytest.mark.usefixtures("built")

# Widths and heights on both sides of a 64-bit word.
SIZES = st.tuples(st.integers(1, 140), st.integers(1, 140))
MASKS = hnp.arrays(np.bool_, SIZES, elements=st.booleans(), fill=st.booleans())
MANY = settings(max_examples=150, deadline=None)


def coco_counts(mask: NDArray[np.bool_]) -> bytes:
    counts: bytes = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return counts


@MANY
@given(MASKS)
def test_encode_and_decode_equal_pycocotools(mask: NDArray[np.bool_]) -> None:
    expected = coco_counts(mask)
    assert masks.rle_encode(mask) == expected
    assert masks_numpy.rle_encode(mask) == expected
    for decoded in (
        masks.rle_decode(expected, mask.shape),
        masks_numpy.rle_decode(expected, mask.shape),
    ):
        assert decoded.dtype == np.bool_
        assert decoded.flags.c_contiguous
        np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize("density", [0.0, 1e-4, 0.02, 0.5, 0.98, 1.0])
def test_large_masks_equal_pycocotools(density: float) -> None:
    mask = np.random.default_rng(7).random((1083, 1921)) < density
    expected = coco_counts(mask)
    assert masks.rle_encode(mask) == expected
    np.testing.assert_array_equal(masks.rle_decode(expected, mask.shape), mask)


@pytest.mark.parametrize(
    "layout",
    [
        lambda m: m,
        np.asfortranarray,
        lambda m: m[::-1],
        lambda m: m[:, ::-1],
        lambda m: m[1::2, 3::3],
        lambda m: m.T,
        lambda m: np.broadcast_to(m[:1], m.shape),
        lambda m: m.astype(np.uint8) * 255,
        lambda m: np.stack([m, ~m], -1)[..., 1],
    ],
    ids=["C", "F", "up", "left", "steps", "T", "zero stride", "0/255", "interleaved"],
)
def test_any_layout(
    blobs: Callable[..., NDArray[np.bool_]], layout: Callable[[NDArray], NDArray]
) -> None:
    mask = layout(blobs(1, 131, 97))
    assert masks.rle_encode(mask) == coco_counts(mask != 0)


@MANY
@given(st.binary(max_size=40), SIZES)
def test_decode_is_total(text: bytes, size: tuple[int, int]) -> None:
    """Arbitrary bytes give a mask or a MaskError, the same in both implementations."""
    check_same_outcome(text, size)


@MANY
@given(st.lists(st.sampled_from(b"0123@NOPoo_`0"), max_size=24).map(bytes), st.integers(1, 40))
def test_decode_is_total_on_near_misses(text: bytes, height: int) -> None:
    check_same_outcome(text, (height, 5))


def check_same_outcome(text: bytes, size: tuple[int, int]) -> None:
    outcomes = []
    for decode in (masks.rle_decode, masks_numpy.rle_decode):
        try:
            outcomes.append(decode(text, size).tolist())
        except MaskError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]
    if outcomes[0] is not None:
        again = masks.rle_encode(np.array(outcomes[0], np.bool_))
        assert masks.rle_area(text, size) == masks.rle_area(again, size)
        assert masks.rle_union([text], size) == again


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        (b"", (2, 2), "cover 0 of 4"),
        (b"5", (2, 2), "exceed the 4"),
        (b"3", (2, 2), "cover 3 of 4"),
        (b"O", (2, 2), "negative"),  # -1
        (b"T", (2, 2), "cut off|negative"),  # promises another group
        (b"4 ", (2, 2), "byte 32 at offset 1"),
        (b"PPPPPPPP0", (2, 2), "more than 7"),
        (b"4" + b"0" * 100, (2, 2), "too long"),
    ],
)
def test_malformed_counts_say_what_is_wrong(
    text: bytes, size: tuple[int, int], message: str
) -> None:
    with pytest.raises(MaskError, match=message) as caught:
        masks.rle_decode(text, size)
    assert isinstance(caught.value, OmniError)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(MaskError):
        masks_numpy.rle_decode(text, size)


@pytest.mark.parametrize("size", [(1 << 20, 1 << 20), (1, (1 << 28) + 1), (1 << 70, 1)])
def test_sizes_are_checked_before_allocation(size: tuple[int, int]) -> None:
    with pytest.raises(LimitError):
        masks.rle_decode(b"0", size)
    with pytest.raises(LimitError):
        masks.logits_to_rle(np.zeros((4, 4), np.float32), size)


@pytest.mark.parametrize("size", [(0, 4), (4, -1), (4,), (1, 2, 3), ("a", 1), (1.5, 2), None])
def test_sizes_that_are_none(size: object) -> None:
    with pytest.raises(ValueError, match="size"):
        masks.rle_decode(b"0", size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        (np.zeros((2, 2)), TypeError),
        ([[0, 1]], TypeError),
        (np.zeros(4, np.uint8), ValueError),
        (np.zeros((0, 3), np.uint8), ValueError),
        (np.zeros((2, 2, 2), np.bool_), ValueError),
    ],
)
def test_masks_that_are_none(mask: object, error: type[Exception]) -> None:
    for function in (masks.rle_encode, masks.clean_mask, masks.boundary):
        with pytest.raises(error):
            function(mask)  # type: ignore[operator]


def test_counts_must_be_bytes() -> None:
    with pytest.raises(TypeError):
        masks.rle_decode("4", (2, 2))  # type: ignore[arg-type]


@MANY
@given(st.data(), SIZES)
def test_area_box_iou_union(data: st.DataObject, size: tuple[int, int]) -> None:
    a, b = (data.draw(hnp.arrays(np.bool_, size, fill=st.booleans())) for _ in range(2))
    ta, tb = masks.rle_encode(a), masks.rle_encode(b)
    objects = [{"size": list(size), "counts": t} for t in (ta, tb)]
    assert masks.rle_area(ta, size) == coco.area(objects[0]) == np.count_nonzero(a)
    box = masks.rle_box(ta, size)
    assert box == masks_numpy.rle_box(ta, size)
    if a.any():
        x, y, w, h = coco.toBbox(objects[0])
        assert box == (x, y, x + w, y + h)
    union = masks.rle_union([ta, tb], size)
    assert union == masks.rle_encode(a | b) == masks_numpy.rle_union([ta, tb], size)
    assert union == coco.merge(objects)["counts"]
    matrix = masks.rle_iou_matrix([ta, tb], [tb, ta, ta], size)
    assert matrix.shape == (2, 3)
    np.testing.assert_array_equal(matrix, masks_numpy.rle_iou([ta, tb], [tb, ta, ta], size))
    assert masks.rle_iou(ta, tb, size) == matrix[0, 0]
    assert masks.mask_iou(a, b) == masks_numpy.mask_iou(a, b) == matrix[0, 0]
    if a.any() or b.any():
        assert matrix[0, 0] == coco.iou(objects[:1], objects[1:], [0])[0, 0]
    else:
        assert matrix[0, 0] == 1.0


def test_empty_lists() -> None:
    assert masks.rle_union([], (3, 4)) == masks.rle_encode(np.zeros((3, 4), np.bool_))
    assert masks.rle_iou_matrix([], [b"4"], (2, 2)).shape == (0, 1)
    with pytest.raises(MaskError):
        masks.rle_iou_matrix([b"?"], [b"4"], (2, 2))
    with pytest.raises(MaskError):
        masks.rle_union([b"4", b"5"], (2, 2))


def test_masks_of_different_sizes() -> None:
    a, b = np.zeros((2, 3), np.bool_), np.zeros((3, 2), np.bool_)
    for function in (masks.mask_iou, lambda p, q: masks.boundary_match(p, q, 1)):
        with pytest.raises(ValueError, match="one size"):
            function(a, b)


@pytest.mark.usefixtures("without_native")
def test_public_functions_without_the_native_module(
    blobs: Callable[..., NDArray[np.bool_]],
) -> None:
    a, b = blobs(2, 40, 70), blobs(3, 40, 70)
    ta, tb = masks.rle_encode(a), masks.rle_encode(b)
    assert ta == coco_counts(a)
    np.testing.assert_array_equal(masks.rle_decode(ta, a.shape), a)
    assert masks.rle_area(ta, a.shape) == a.sum()
    assert masks.rle_iou(ta, tb, a.shape) == masks.mask_iou(a, b)
    assert masks.rle_union([ta, tb], a.shape) == coco_counts(a | b)
    x0, y0, x1, y1 = masks.rle_box(ta, a.shape)
    assert a[y0:y1, x0:x1].sum() == a.sum()
    assert masks.boundary_match(a, a, 0)[2] == masks.boundary(a).sum()
    assert masks.clean_mask(a, min_area=10**6).sum() == 0
    logits = np.full((1, 4, 4), 1, np.float32)
    assert masks.logits_to_rles(logits, (5, 6)) == [coco_counts(np.ones((5, 6), np.bool_))]
    with pytest.raises(MaskError):
        masks.rle_decode(b"?", (2, 2))
