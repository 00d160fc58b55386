"""Clean-up against OpenCV, and boundaries against dilation as in the DAVIS evaluation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from omni_sdk.dus import masks, masks_numpy

pytestmark = pytest.mark.usefixtures("built")

BoolArray = NDArray[np.bool_]
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 140))
MASKS = hnp.arrays(np.bool_, SIZES, elements=st.booleans(), fill=st.booleans())
MANY = settings(max_examples=150, deadline=None)


def clean_with_labels(
    mask: BoolArray, min_area: int, max_hole: int, label: Callable[[BoolArray, int], BoolArray]
) -> BoolArray:
    """Oracle: `label(mask, connectivity)` gives an int map of components, 0 for the rest."""
    objects = label(mask, 8)
    keep = np.bincount(objects.ravel()) >= min_area
    keep[0] = False
    kept = keep[objects]
    background = label(~kept, 4)
    fill = np.bincount(background.ravel()) <= max_hole
    fill[0] = False
    rim = np.concatenate([background[0], background[-1], background[:, 0], background[:, -1]])
    fill[rim] = False
    return kept | fill[background]


def label_opencv(mask: BoolArray, connectivity: int) -> BoolArray:
    cv2 = pytest.importorskip("cv2")
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=connectivity)[1]


def label_scipy(mask: BoolArray, connectivity: int) -> BoolArray:
    return ndimage.label(mask, np.ones((3, 3)) if connectivity == 8 else None)[0]


@MANY
@given(MASKS, st.integers(0, 30), st.integers(0, 30))
def test_clean_mask(mask: BoolArray, min_area: int, max_hole: int) -> None:
    before = mask.copy()
    cleaned = masks.clean_mask(mask, min_area=min_area, max_hole=max_hole)
    np.testing.assert_array_equal(mask, before)
    np.testing.assert_array_equal(cleaned, masks_numpy.clean_mask(mask, min_area, max_hole))
    expected = clean_with_labels(mask, min_area, max_hole, label_scipy)
    np.testing.assert_array_equal(cleaned, expected)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3, 0.5])
@pytest.mark.parametrize("limits", [(0, 0), (2, 1), (200, 200), (10**9, 0), (0, 10**9)])
def test_clean_mask_equals_opencv(
    blobs: Callable[..., BoolArray], noise: float, limits: tuple[int, int]
) -> None:
    mask = blobs(4, 270, 481)
    mask ^= np.random.default_rng(1).random(mask.shape) < noise
    cleaned = masks.clean_mask(mask, min_area=limits[0], max_hole=limits[1])
    expected = clean_with_labels(mask, *limits, label_opencv)
    np.testing.assert_array_equal(cleaned, expected)


def test_clean_mask_rules() -> None:
    mask = np.zeros((9, 12), np.bool_)
    mask[1:6, 1:6] = True
    mask[2:5, 2:5] = False  # a hole of nine pixels
    mask[3, 3] = True  # a speck in it
    mask[7, 8] = mask[8, 9] = True  # diagonal neighbours: one component of two pixels
    assert masks.clean_mask(mask, min_area=2)[7, 8]
    assert not masks.clean_mask(mask, min_area=3)[7:, 8:].any()
    # with the speck gone the hole has nine pixels
    assert not masks.clean_mask(mask, min_area=2, max_hole=8)[2, 2]
    assert masks.clean_mask(mask, min_area=2, max_hole=9)[1:6, 1:6].all()
    # background at the border is never a hole
    corner = np.ones((5, 5), np.bool_)
    corner[0, 0] = False
    assert not masks.clean_mask(corner, max_hole=25)[0, 0]


@pytest.mark.parametrize("name", ["min_area", "max_hole"])
def test_negative_limits(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        masks.clean_mask(np.zeros((2, 2), np.bool_), **{name: -1})


def dilation_counts(a: BoolArray, b: BoolArray, radius: int) -> tuple[int, int, int, int]:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = x * x + y * y <= radius * radius
    edge_a, edge_b = masks_numpy.boundary(a), masks_numpy.boundary(b)
    near_a = edge_a & ndimage.binary_dilation(edge_b, disk)
    near_b = edge_b & ndimage.binary_dilation(edge_a, disk)
    return tuple(int(np.count_nonzero(m)) for m in (edge_a, edge_b, near_a, near_b))


@MANY
@given(st.data(), SIZES, st.integers(0, 12))
def test_boundary_match(data: st.DataObject, size: tuple[int, int], radius: int) -> None:
    a, b = (data.draw(hnp.arrays(np.bool_, size, fill=st.booleans())) for _ in range(2))
    match = masks.boundary_match(a, b, radius)
    assert match == masks_numpy.boundary_match(a, b, radius)
    assert match == dilation_counts(a, b, radius)
    assert masks.boundary_match(b, a, radius) == (match[1], match[0], match[3], match[2])


@pytest.mark.parametrize("radius", [0, 1, 8, 63, 64, 65, 200, 10**12])
def test_boundary_match_at_any_radius(blobs: Callable[..., BoolArray], radius: int) -> None:
    a, b = np.zeros((90, 301), np.bool_), np.zeros((90, 301), np.bool_)
    a[5:40, 3:60] = blobs(5, 35, 57)
    b[50:80, 180:300] = blobs(6, 30, 120)
    match = masks.boundary_match(a, b, radius)
    assert match == masks_numpy.boundary_match(a, b, radius)
    if radius < 10:
        assert match == dilation_counts(a, b, radius)
    if radius > 400:
        assert match[:2] == match[2:]


@MANY
@given(MASKS)
def test_boundary(mask: BoolArray) -> None:
    """Equal to the shifted comparisons of the DAVIS evaluation."""
    east, south, south_east = (np.zeros_like(mask) for _ in range(3))
    east[:, :-1] = mask[:, 1:]
    south[:-1] = mask[1:]
    south_east[:-1, :-1] = mask[1:, 1:]
    expected = (mask ^ east) | (mask ^ south) | (mask ^ south_east)
    expected[-1] = mask[-1] ^ east[-1]
    expected[:, -1] = mask[:, -1] ^ south[:, -1]
    expected[-1, -1] = False
    np.testing.assert_array_equal(masks.boundary(mask), expected)
    np.testing.assert_array_equal(masks_numpy.boundary(mask), expected)


def test_negative_radius() -> None:
    with pytest.raises(ValueError, match="radius"):
        masks.boundary_match(np.zeros((2, 2), np.bool_), np.zeros((2, 2), np.bool_), -1)


def test_real_masks(shared: object) -> None:
    """Annotations of DAVIS, as stored: encode, decode and match the boundary counts."""
    image = pytest.importorskip("PIL.Image")
    paths = sorted((shared / "data" / "davis_masks").rglob("*.png"))[::40]
    if not paths:
        pytest.skip("no DAVIS masks in the shared data")
    for path in paths:
        mask = np.asarray(image.open(path)) != 0
        if mask.ndim == 3:
            mask = mask.any(2)
        np.testing.assert_array_equal(masks.rle_decode(masks.rle_encode(mask), mask.shape), mask)
        moved = np.roll(mask, (5, -9), (0, 1))
        assert masks.boundary_match(mask, moved, 8) == masks_numpy.boundary_match(mask, moved, 8)
