"""The published reward of refCOCOg (SegZero's): one box and two points on it.

Source: github.com/aim-uofa/Omni-R1 at 1de42f8, src/omni_r1/load_datasets/segzero.py.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_FLAT_OBJECT = re.compile(r"{[^}]+}")
_FAR = 999.0


def refcocog_reward(answer: str, box: ArrayLike, points: ArrayLike) -> float:
    """Return the SegZero reward in [0, 4.4]: IoU, points, box distance and strict format.

    Args:
        answer: text between the answer tags.
        box: (4,) true xyxy in resized pixels.
        points: (2, 2) true points in resized pixels.
    """
    value = _flat_object(answer)
    true = [float(v) for v in np.asarray(box, np.float64)]
    found = _four(value)
    iou = _plain_iou(found, true) if found else 0.0
    box_distance = sum(abs(a - b) for a, b in zip(found, true, strict=True)) / 4 if found else _FAR
    point_distance = _point_distance(value, found, np.asarray(points, np.float64))
    return (
        max(0.0, iou - 0.5) * 2
        + (0.4 if iou > 0.5 else 0.0)
        + min(1.0, max(0.0, (150.0 - point_distance) * 0.02))
        + min(1.0, max(0.0, (30.0 - box_distance) * 0.05))
        + _strict_format(value)
    )


def _flat_object(text: str) -> dict[str, Any]:
    match = _FLAT_OBJECT.search(text)
    try:
        value = json.loads(match.group(0)) if match else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _numbers(value: Any, count: int) -> list[float] | None:
    if not isinstance(value, list) or len(value) != count:
        return None
    if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in value):
        return None
    return [float(v) for v in value]


def _four(value: dict[str, Any]) -> list[float] | None:
    key = next((k for k in value if "bbox" in k.lower()), None)
    return _numbers(value[key], 4) if key else None


def _plain_iou(a: list[float], b: list[float]) -> float:
    x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    inter = (x1 - x0 + 1) * (y1 - y0 + 1) if x0 < x1 and y0 < y1 else 0.0
    area = sum((c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b))
    return inter / (area - inter) if area != inter else 0.0


def _point_distance(value: dict[str, Any], box: list[float] | None, true: ArrayLike) -> float:
    keys = [k for k in value if "points" in k.lower()][:2]
    found = [_numbers(value[k], 2) for k in keys]
    if box is None or len(found) != 2:
        return _FAR
    pairs = [[float(int(x)) for x in p] for p in found if p is not None]
    inside = all(box[0] <= x <= box[2] and box[1] <= y <= box[3] for x, y in pairs)
    if len(pairs) != 2 or not inside:
        return _FAR
    target = np.asarray(true, np.float64)
    orders = (target, target[::-1])
    return (
        min(sum(math.dist(p, t) for p, t in zip(pairs, order, strict=True)) for order in orders) / 2
    )


def _strict_format(value: dict[str, Any]) -> float:
    wanted = {"bbox_2d": 4, "points_1": 2, "points_2": 2}
    right = [isinstance(value.get(k), list) and len(value[k]) == n for k, n in wanted.items()]
    return float(all(right))
