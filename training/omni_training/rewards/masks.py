"""R_G: do the propagated masks meet the true ones?"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from omni_sdk.metrics.davis import region_similarity


def mask_reward(pairs: Iterable[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> float:
    """Return R_G = mean IoU of the unions of all objects, in [0, 1].

    The mean is over the frames where either mask has a pixel. The published code takes a frame where both
    are empty for 1 (as DAVIS does), so an answer that finds nothing earns the share of frames without
    the object; where no frame has a pixel at all, the clip and the answer agree: 1.

    Args:
        pairs: for each frame the (H, W) predicted and true union.
    """
    scores = [region_similarity(found, true) for found, true in pairs if found.any() or true.any()]
    return float(np.mean(scores)) if scores else 1.0
