"""Box IoU, for evaluation and rewards: the tracker's own, so that all agree."""

from __future__ import annotations

from omni_sdk.dus.boxes import box_area, box_iou

__all__ = ["box_area", "box_iou"]
