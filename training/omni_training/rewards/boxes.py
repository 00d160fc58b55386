"""R_A: do the grounder's boxes on the chosen frames meet the true objects?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from omni_sdk.dus.assignment import linear_assignment
from omni_sdk.dus.boxes import box_iou

MAX_BOXES = 64
"""Boxes of one frame that are matched; further ones only count as surplus. The grounder's text decides
the number, and the assignment costs its cube."""


def frame_box_reward(found_xyxy: ArrayLike, true_xyxy: ArrayLike) -> float:
    """Return 1 - L_Hungarian of one frame, in [0, 1].

    Boxes are matched one to one for the greatest sum of IoU (cost -IoU, paper section 3.2); the sum is
    divided by the larger number, so that a missed object and a surplus box cost the same. No box where
    there is no object gives 1.

    Args:
        found_xyxy: (P, 4) boxes of the grounder.
        true_xyxy: (G, 4) true boxes, in pixels of the same image.
    """
    found = np.asarray(found_xyxy, np.float64).reshape(-1, 4)
    true = np.asarray(true_xyxy, np.float64).reshape(-1, 4)
    larger = max(len(found), len(true))
    if larger == 0:
        return 1.0
    iou = box_iou(found[:MAX_BOXES], true)
    if iou.size == 0:
        return 0.0
    rows, columns = linear_assignment(-iou)
    return float(iou[rows, columns].sum() / larger)


def box_reward(found: Sequence[ArrayLike], true: Sequence[ArrayLike], *, absent: bool) -> float:
    """Return R_A = mean over keyframes of `frame_box_reward`, in [0, 1].

    Args:
        found: for each keyframe (P, 4) boxes.
        true: for each keyframe (G, 4) boxes.
        absent: nothing in the clip answers the query. Then no keyframe is the right answer (1), and a
            keyframe is worth what the grounder makes of it: 1 if it, too, finds nothing.
    """
    if not found:
        return float(absent)
    return float(np.mean([frame_box_reward(f, t) for f, t in zip(found, true, strict=True)]))
