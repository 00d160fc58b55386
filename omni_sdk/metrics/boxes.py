"""Box IoU, for evaluation and rewards."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omni_sdk.errors import DatasetError


def box_iou(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Return the IoU of every pair of boxes, (N, M) float64 in [0, 1]; boxes without area give 0.

    Args:
        first: (N, 4) xyxy in pixels.
        second: (M, 4) xyxy in pixels.

    Raises:
        DatasetError: the shapes are not (N, 4) and (M, 4).
    """
    a, b = _boxes(first), _boxes(second)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(np.maximum(box[:, 2:] - box[:, :2], 0), axis=1) for box in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - inter
    iou = np.zeros(union.shape, np.float64)
    np.divide(inter, union, out=iou, where=union > 0)
    return iou


def _boxes(value: ArrayLike) -> NDArray[np.float64]:
    boxes = np.asarray(value, np.float64)
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DatasetError(f"expected boxes (N, 4) xyxy, got shape {boxes.shape}")
    return boxes
