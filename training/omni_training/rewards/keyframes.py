"""R_K = l1 R_diversity + l2 R_num + l3 R_saliency: are the chosen moments the right ones?

The paper (section 3.2) gives R_saliency and the form of R_diversity, and leaves R_num, the lambdas and
dist_reward open. What is chosen here, and why:

- every part lies in [0, 1] (diversity may go down to `OVERLAP_PUNISH`), so equal lambdas weigh equally;
- nothing grows with the length of an answer: moments beyond the target number cost, text is not paid;
- diversity measures where in time the moments lie, not how many differ. The published code counts
  unique frames, which scores frames 0, 1, 2, 3 like 0, 7, 14, 21 although the prompt asks for moments
  "spanning the entire video".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

OVERLAP_PUNISH = -0.2
"""Cost of an answer made of repeated frames only (the paper's "e.g. -0.2")."""


def number_reward(count: int, target: int, num_frames: int) -> float:
    """Return R_num in [0, 1]: 1 at the target number of moments, falling linearly to 0 at 0 and 2x.

    Symmetric, since a missing and a surplus moment each put one grounding call in the wrong place.

    Args:
        count: moments of the answer, repeats included.
        target: wanted moments ("about 4"), >= 1; a clip of fewer frames cannot show more moments than
            it has frames.
        num_frames: sampled frames T, >= 1.
    """
    wanted = min(target, num_frames)
    return max(0.0, 1.0 - abs(count - wanted) / wanted)


def saliency_reward(samples: Sequence[int], union_areas: ArrayLike) -> float:
    """Return R_saliency = mean over the chosen frames of area / largest area, in [0, 1].

    Args:
        samples: chosen sampled frames; a frame counts once. 0 without any.
        union_areas: (T,) pixels of the targets' union on each sampled frame.
    """
    areas = np.asarray(union_areas, np.float64)
    unique = sorted(set(samples))
    if not unique or areas.max() == 0:
        return 0.0
    return float(areas[unique].mean() / areas.max())


def coverage(samples: Sequence[int], visible: ArrayLike, target: int) -> float:
    """Return the share of the target's time on screen that the moments cover, in [0, 1].

    The frames that show the target are cut into as many equal runs as moments are wanted (fewer if there
    are fewer frames); a run is covered by at least one moment in it. Moments elsewhere cover nothing, and
    moments that crowd into one run cover one.

    Args:
        samples: chosen sampled frames.
        visible: (T,) whether the target is to be seen.
        target: wanted moments, >= 1.
    """
    shown = np.flatnonzero(np.asarray(visible, bool))
    if not len(shown):
        return 0.0
    runs = np.array_split(shown, min(target, len(shown)))
    return sum(bool(set(samples) & set(run.tolist())) for run in runs) / len(runs)


def diversity_reward(samples: Sequence[int], visible: ArrayLike, target: int) -> float:
    """Return R_diversity = overlap_punish |I| / M + coverage, in [OVERLAP_PUNISH, 1].

    I are the repeats among the M moments (paper: i with idx(s_i) = idx(s_i+1)); dividing by M bounds the
    punishment, and `coverage` stands for dist_reward |D|, which pays for every further distinct frame.

    Args:
        samples: chosen sampled frames, repeats included.
        visible: (T,) whether the target is to be seen.
        target: wanted moments, >= 1.
    """
    if not samples:
        return 0.0
    repeats = len(samples) - len(set(samples))
    return OVERLAP_PUNISH * repeats / len(samples) + coverage(samples, visible, target)
