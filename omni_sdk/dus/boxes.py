"""Boxes: float32 (x0, y0, x1, y1), pixel edges, so that a full image is (0, 0, width, height)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omni_sdk.errors import PromptError

Boxes = NDArray[np.float32]


def box_area(boxes_xyxy: ArrayLike) -> NDArray[np.float64]:
    """Return (N,) areas in square pixels of (N, 4) boxes; 0 where a box is inverted."""
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    return np.asarray(sides[:, 0] * sides[:, 1])


def box_iou(a_xyxy: ArrayLike, b_xyxy: ArrayLike) -> NDArray[np.float64]:
    """Return (N, M) intersections over unions of (N, 4) and (M, 4) boxes; 0 where both are empty."""
    a = np.asarray(a_xyxy, np.float64).reshape(-1, 1, 4)
    b = np.asarray(b_xyxy, np.float64).reshape(1, -1, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = np.prod(np.clip(sides, 0, None), axis=-1)
    union = box_area(a_xyxy)[:, None] + box_area(b_xyxy)[None] - intersection
    iou = np.zeros_like(intersection)
    np.divide(intersection, union, out=iou, where=union > 0)
    return np.asarray(iou, np.float64)


def mask_box(mask: NDArray[np.bool_]) -> Boxes | None:
    """Return the (4,) box around an (H, W) mask's pixels, or None if it has none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def whole_pixels(box_xyxy: Boxes) -> tuple[int, int, int, int]:
    """Return a box on pixel edges, such as `mask_box` gives, as Python integers."""
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    return x0, y0, x1, y1


def check_boxes(boxes_xyxy: ArrayLike, *, size_hw: tuple[int, int], where: str = "") -> Boxes:
    """Validate boxes from a caller and clip them to the image.

    Args:
        boxes_xyxy: (N, 4) numbers, pixels of the image.
        size_hw: height and width of the image in pixels.
        where: start of messages, e.g. "frame 12: ".

    Returns:
        (N, 4) float32, inside the image, each of positive area.

    Raises:
        PromptError: not (N, 4) numbers, not finite, inverted, empty, or wholly outside the image.
    """
    height, width = size_hw
    try:
        boxes = np.array(boxes_xyxy, np.float32)
    except (TypeError, ValueError, OverflowError) as e:
        raise PromptError(f"{where}boxes must be (N, 4) numbers: {e}") from e
    if boxes.size == 0:
        return np.zeros((0, 4), np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise PromptError(
            f"{where}boxes must have shape (N, 4), got {boxes.shape}; one box is [[x0, y0, x1, y1]]"
        )
    clipped = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    for n, (box, inside) in enumerate(zip(boxes, clipped, strict=True)):
        shown = f"{where}box {n} {[round(float(v), 2) for v in box]}"
        if not np.isfinite(box).all():
            raise PromptError(f"{shown} is not finite")
        if box[2] <= box[0] or box[3] <= box[1]:
            raise PromptError(f"{shown} is inverted or empty; expected x0 < x1 and y0 < y1")
        if inside[2] <= inside[0] or inside[3] <= inside[1]:
            raise PromptError(
                f"{shown} lies outside the frame of {width} x {height} pixels; boxes are "
                "(x0, y0, x1, y1) in pixels of the source, not normalised"
            )
    return clipped
