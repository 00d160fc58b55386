"""Masks: COCO run-length form, and what the tracker, the writers and the metrics do with masks.

Masks are (H, W) bool or uint8 arrays (non-zero is foreground) of any strides; sizes are
(height, width) in pixels; run-length masks are COCO's compressed text as bytes, byte-identical to
pycocotools'. The kernels are native; where the native module is absent, `masks_numpy` gives the same
results.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from omni_sdk import native
from omni_sdk.dus import masks_numpy
from omni_sdk.errors import LimitError, MaskError

MAX_MASK_PIXELS = 1 << 28
"""Largest mask that any function here accepts, in pixels."""

Mask = NDArray[np.bool_] | NDArray[np.uint8]
_T = TypeVar("_T")


def rle_encode(mask: Mask) -> bytes:
    """Encode a mask in COCO's compressed run-length form.

    Args:
        mask: (H, W) bool or uint8; non-zero is foreground.

    Returns:
        The text of `pycocotools.mask.encode(...)["counts"]`, byte for byte.

    Raises:
        TypeError: the mask is no bool or uint8 array.
        ValueError: it is not two-dimensional, or empty.
        LimitError: it has more than `MAX_MASK_PIXELS` pixels.
    """
    checked = _check_mask(mask)
    core = native.core()
    if core is None:
        return masks_numpy.rle_encode(checked != 0)
    text: bytes = core.rle_encode(checked)
    return text


def rle_decode(counts: bytes, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode COCO's compressed run-length form.

    Args:
        counts: the text; untrusted.
        size: (height, width) in pixels.

    Returns:
        (height, width) bool, C-contiguous.

    Raises:
        MaskError: the text is malformed, or its runs do not add up to height * width.
        ValueError: `size` is not two positive integers.
        LimitError: the size has more than `MAX_MASK_PIXELS` pixels.
    """
    text, checked = _check_counts(counts), check_size(size)
    core = native.core()
    if core is None:
        return masks_numpy.rle_decode(text, checked)
    mask: NDArray[np.bool_] = _parsed(core.rle_decode, text, *checked)
    return mask


def logits_to_rle(
    logits: NDArray[np.float32], size: tuple[int, int], threshold: float = 0.0
) -> bytes:
    """Upsample low-resolution mask logits to `size`, threshold them, encode the mask: in one pass.

    The upsampling is bilinear with half-pixel centres (align_corners=False, no antialiasing), in
    single precision, rounded as torch's CPU kernel with fused multiply-add: the mask is
    `torch.nn.functional.interpolate(logits, size, mode="bilinear") > threshold`, pixel for pixel, where
    torch runs that kernel (x86 with AVX2, and height + width > 128). torch's other kernels round
    differently; from those a pixel can differ only where the value is within rounding of the
    threshold: for weights that agree, 2**-20 of the largest magnitude among the four neighbours.

    Args:
        logits: (h, w) float32. NaN becomes background.
        size: (height, width) of the mask in pixels.
        threshold: pixels above it are foreground; finite.

    Returns:
        COCO's compressed run-length form, as of `rle_encode`.

    Raises:
        TypeError: the logits are no float32 array.
        ValueError: a shape, the size or the threshold is out of range.
        LimitError: the size has more than `MAX_MASK_PIXELS` pixels.
    """
    _check_logits(logits, 2)
    return logits_to_rles(logits[None], size, threshold)[0]


def logits_to_rles(
    logits: NDArray[np.float32], size: tuple[int, int], threshold: float = 0.0
) -> list[bytes]:
    """Do `logits_to_rle` for several objects.

    Args:
        logits: (N, h, w) float32.
        size: (height, width) of the masks in pixels.
        threshold: pixels above it are foreground; finite.

    Returns:
        N compressed masks.

    Raises:
        TypeError: the logits are no float32 array.
        ValueError: a shape, the size or the threshold is out of range.
        LimitError: the size has more than `MAX_MASK_PIXELS` pixels.
    """
    _check_logits(logits, 3)
    checked = check_size(size)
    if not abs(threshold) <= float(np.finfo(np.float32).max):
        raise ValueError(f"threshold must be finite, got {threshold = }")
    core = native.core()
    if core is None:
        masks = (masks_numpy.logits_to_mask(one, checked, threshold) for one in logits)
        return [masks_numpy.rle_encode(mask) for mask in masks]
    texts: list[bytes] = core.logits_to_rle(np.ascontiguousarray(logits), *checked, threshold)
    return texts


def rle_area(counts: bytes, size: tuple[int, int]) -> int:
    """Count the foreground pixels of a compressed mask.

    Args:
        counts: COCO's compressed text; untrusted.
        size: (height, width) in pixels.

    Raises:
        MaskError: the text is malformed or does not fit the size.
        ValueError: `size` is not two positive integers.
        LimitError: the size is above `MAX_MASK_PIXELS`.
    """
    text, checked = _check_counts(counts), check_size(size)
    core = native.core()
    if core is None:
        return int(masks_numpy.parse_runs(text, checked)[1::2].sum())
    area: int = _parsed(core.rle_area, text, *checked)
    return area


def rle_box(counts: bytes, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Bounding box of a compressed mask.

    Args:
        counts: COCO's compressed text; untrusted.
        size: (height, width) in pixels.

    Returns:
        x0, y0, x1, y1 in pixels, half-open (x0 <= x < x1); (0, 0, 0, 0) for an empty mask.

    Raises:
        MaskError: the text is malformed or does not fit the size.
        ValueError: `size` is not two positive integers.
        LimitError: the size is above `MAX_MASK_PIXELS`.
    """
    text, checked = _check_counts(counts), check_size(size)
    core = native.core()
    if core is None:
        return masks_numpy.rle_box(text, checked)
    box: tuple[int, int, int, int] = _parsed(core.rle_box, text, *checked)
    return box


def rle_iou(a: bytes, b: bytes, size: tuple[int, int]) -> float:
    """Intersection over union of two compressed masks of one size; 1 where both are empty.

    pycocotools says 0 for two empty masks; here they are equal masks, as for the J of DAVIS.

    Args:
        a: COCO's compressed text; untrusted.
        b: as `a`.
        size: (height, width) of both in pixels.

    Raises:
        MaskError: a text is malformed or does not fit the size.
        ValueError: `size` is not two positive integers.
        LimitError: the size is above `MAX_MASK_PIXELS`.
    """
    return float(rle_iou_matrix([a], [b], size)[0, 0])


def rle_iou_matrix(
    a: Sequence[bytes], b: Sequence[bytes], size: tuple[int, int]
) -> NDArray[np.float64]:
    """Pairwise `rle_iou`.

    Args:
        a: N compressed texts; untrusted.
        b: M compressed texts; untrusted.
        size: (height, width) of all of them in pixels.

    Returns:
        (N, M) float64.

    Raises:
        MaskError: a text is malformed or does not fit the size.
        ValueError: `size` is not two positive integers.
        LimitError: the size is above `MAX_MASK_PIXELS`.
    """
    texts_a, texts_b = [_check_counts(c) for c in a], [_check_counts(c) for c in b]
    checked = check_size(size)
    core = native.core()
    if core is None:
        return masks_numpy.rle_iou(texts_a, texts_b, checked)
    matrix: NDArray[np.float64] = _parsed(core.rle_iou, texts_a, texts_b, *checked)
    return matrix


def rle_union(counts: Sequence[bytes], size: tuple[int, int]) -> bytes:
    """Unite compressed masks of one size; the union of none is empty.

    Args:
        counts: compressed texts; untrusted.
        size: (height, width) of all of them in pixels.

    Returns:
        The compressed union, as `rle_encode` would write it.

    Raises:
        MaskError: a text is malformed or does not fit the size.
        ValueError: `size` is not two positive integers.
        LimitError: the size is above `MAX_MASK_PIXELS`.
    """
    texts, checked = [_check_counts(c) for c in counts], check_size(size)
    core = native.core()
    if core is None:
        return masks_numpy.rle_union(texts, checked)
    union: bytes = _parsed(core.rle_union, texts, *checked)
    return union


def mask_iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks of one size (the J of DAVIS); 1 where both are empty.

    Args:
        a: (H, W) bool or uint8.
        b: (H, W) bool or uint8.

    Raises:
        TypeError: a mask is no bool or uint8 array.
        ValueError: a mask is not two-dimensional or empty, or the sizes differ.
        LimitError: a mask has more than `MAX_MASK_PIXELS` pixels.
    """
    checked_a, checked_b = _check_pair(a, b)
    core = native.core()
    if core is None:
        return masks_numpy.mask_iou(checked_a != 0, checked_b != 0)
    iou: float = core.mask_iou(checked_a, checked_b)
    return iou


def clean_mask(mask: Mask, *, min_area: int = 0, max_hole: int = 0) -> NDArray[np.bool_]:
    """Remove small components, then fill small holes.

    A component is 8-connected foreground. A hole is 4-connected background, as it is once the small
    components are gone, that does not touch the border of the image: what touches it is outside, and
    never filled.

    Args:
        mask: (H, W) bool or uint8.
        min_area: components of fewer pixels are removed; 0 or 1 keeps all.
        max_hole: holes of at most this many pixels are filled; 0 fills none.

    Returns:
        (H, W) bool, a new array.

    Raises:
        TypeError: the mask is no bool or uint8 array.
        ValueError: it is not two-dimensional or empty, or a limit is negative.
        LimitError: it has more than `MAX_MASK_PIXELS` pixels.
    """
    checked = _check_mask(mask)
    least = _check_count("min_area", min_area)
    most = _check_count("max_hole", max_hole)
    core = native.core()
    if core is None:
        return masks_numpy.clean_mask(checked != 0, least, most)
    cleaned: NDArray[np.bool_] = core.clean_mask(checked, least, most)
    return cleaned


def boundary(mask: Mask) -> NDArray[np.bool_]:
    """Boundary map of a mask by the rule of DAVIS (davis2017/metrics.py, _seg2bmap).

    A pixel is on the boundary where it differs from its right, lower or lower-right neighbour. The
    last row looks right only, the last column down only; the last pixel never is.

    Args:
        mask: (H, W) bool or uint8.

    Returns:
        (H, W) bool.

    Raises:
        TypeError: the mask is no bool or uint8 array.
        ValueError: it is not two-dimensional, or empty.
        LimitError: it has more than `MAX_MASK_PIXELS` pixels.
    """
    checked = _check_mask(mask)
    core = native.core()
    if core is None:
        return masks_numpy.boundary(checked != 0)
    edge: NDArray[np.bool_] = core.boundary(checked)
    return edge


def boundary_match(pred: Mask, gt: Mask, radius: int) -> tuple[int, int, int, int]:
    """Count what the boundary measure F of DAVIS needs.

    Precision is matched_pred / n_pred, recall matched_gt / n_gt; equal to dilating each boundary map
    with a disk and counting, without the dilation.

    Args:
        pred: (H, W) bool or uint8 mask (not a boundary map).
        gt: (H, W) bool or uint8 mask.
        radius: of the disk (dx**2 + dy**2 <= radius**2), in pixels; >= 0.

    Returns:
        n_pred, n_gt, matched_pred, matched_gt: boundary pixels of each mask, and those within
        `radius` of a boundary pixel of the other.

    Raises:
        TypeError: a mask is no bool or uint8 array.
        ValueError: a mask is not two-dimensional or empty, the sizes differ, or the radius is
            negative.
        LimitError: a mask has more than `MAX_MASK_PIXELS` pixels.
    """
    checked_pred, checked_gt = _check_pair(pred, gt)
    reach = _check_count("radius", radius)
    core = native.core()
    if core is None:
        return masks_numpy.boundary_match(checked_pred != 0, checked_gt != 0, reach)
    match: tuple[int, int, int, int] = core.boundary_match(checked_pred, checked_gt, reach)
    return match


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    """Check the size of a mask before anything of that size is allocated.

    Raises:
        ValueError: it is not two positive integers.
        LimitError: it has more than `MAX_MASK_PIXELS` pixels.
    """
    try:
        height, width = (operator.index(n) for n in size)
    except (TypeError, ValueError) as error:
        raise ValueError(f"size must be (height, width) integers, got {size!r:.80}") from error
    if height < 1 or width < 1:
        raise ValueError(f"size must be positive, got {height} x {width}")
    if height * width > MAX_MASK_PIXELS:
        raise LimitError(
            f"a mask may have at most {MAX_MASK_PIXELS} pixels, got {height} x {width}"
        )
    return height, width


def _check_mask(mask: Mask) -> NDArray[np.uint8]:
    """Check a mask and return its bytes, without a copy."""
    if not isinstance(mask, np.ndarray) or mask.dtype not in (np.bool_, np.uint8):
        found = getattr(mask, "dtype", type(mask).__name__)
        raise TypeError(f"mask must be a bool or uint8 array, got {found}")
    if mask.ndim != 2:
        raise ValueError(f"mask must be (H, W), got {mask.shape = }")
    check_size(mask.shape)
    return mask.view(np.uint8)


def _check_pair(a: Mask, b: Mask) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    checked_a, checked_b = _check_mask(a), _check_mask(b)
    if a.shape != b.shape:
        raise ValueError(f"masks must have one size, got {a.shape} and {b.shape}")
    return checked_a, checked_b


def _check_logits(logits: NDArray[np.float32], ndim: int) -> None:
    if not isinstance(logits, np.ndarray) or logits.dtype != np.float32:
        found = getattr(logits, "dtype", type(logits).__name__)
        raise TypeError(f"logits must be a float32 array, got {found}")
    if logits.ndim != ndim:
        raise ValueError(f"logits must have {ndim} dimensions, got {logits.shape = }")
    check_size(logits.shape[-2:])


def _check_count(name: str, value: int) -> int:
    """Check a number of pixels; values beyond any mask mean the same as the largest."""
    number = operator.index(value)
    if number < 0:
        raise ValueError(f"{name} must not be negative, got {number}")
    return min(number, MAX_MASK_PIXELS)


def _check_counts(counts: bytes) -> bytes:
    if not isinstance(counts, bytes):
        raise TypeError(f"counts must be bytes, got {type(counts).__name__}")
    return counts


def _parsed(kernel: Callable[..., _T], *args: object) -> _T:
    """Call a native kernel that parses RLE text; its complaint is about that text."""
    try:
        return kernel(*args)
    except ValueError as error:
        raise MaskError(str(error)) from error
