"""J and F of an expression over the frames of its video: what MeViS, Ref-YouTube-VOS and ReVOS average.

Source: `tools/eval_mevis.py` of henghuiding/MeViS and `tools/eval_davis17.py` of cilinyan/VISA: the masks
of all instances are merged, J and F are taken per frame and averaged over all frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omni_sdk.errors import DatasetError
from omni_sdk.metrics.davis import boundary_f, region_similarity

_END: Final = object()


@dataclass(frozen=True, slots=True)
class ExpressionScore:
    """The masks of one expression over one video.

    Attributes:
        j: mean region similarity over frames, [0, 1].
        f: mean boundary accuracy over frames, [0, 1].
        num_frames: frames with an annotation to compare with.
        num_missing: frames without a prediction. The official evaluators fail on the first one and give
            the whole expression 0; so `j` and `f` are 0 where this is not 0.
    """

    j: float
    f: float
    num_frames: int
    num_missing: int = 0

    @property
    def jf(self) -> float:
        """Mean of J and F."""
        return (self.j + self.f) / 2


def score_expression(
    pred: Iterable[ArrayLike | None], gt: Iterable[ArrayLike | None]
) -> ExpressionScore:
    """Score one expression, frame by frame, holding one frame at a time.

    Args:
        pred: per frame an (H, W) mask, anything but zero being the object; None: no prediction exists.
        gt: per frame the (H, W) masks of all its instances merged; None: nothing annotated, i.e. empty.

    Returns:
        Means over the frames; J = F = 0 when any prediction is missing, as the official evaluators do.

    Raises:
        DatasetError: the two differ in their number of frames or a frame's masks in size, or are empty.
    """
    j_total = f_total = 0.0
    frames = missing = 0
    for found, truth in frame_pairs(pred, gt):
        frames += 1
        if found is None:
            missing += 1
        elif not missing:
            j_total += region_similarity(found, truth)
            f_total += boundary_f(found, truth)
    if missing:
        return ExpressionScore(0.0, 0.0, frames, missing)
    return ExpressionScore(j_total / frames, f_total / frames, frames)


def missing_expression(num_frames: int) -> ExpressionScore:
    """Return the score of an expression without any prediction: 0."""
    return ExpressionScore(0.0, 0.0, num_frames, num_frames)


def frame_pairs(
    pred: Iterable[ArrayLike | None], gt: Iterable[ArrayLike | None]
) -> Iterator[tuple[NDArray[np.generic] | None, NDArray[np.generic]]]:
    """Yield (prediction or None, truth) per frame; a truth of None becomes empty.

    Raises:
        DatasetError: one of the two ends before the other, or there is no frame at all.
    """
    count = 0
    for found, truth in zip_longest(pred, gt, fillvalue=_END):
        if found is _END or truth is _END:
            shorter = "prediction" if found is _END else "ground truth"
            raise DatasetError(f"expected as many frames in both, the {shorter} ends after {count}")
        count += 1
        mask = None if found is None else np.asarray(found)
        if truth is None:
            yield mask, np.zeros((0, 0) if mask is None else mask.shape, np.bool_)
        else:
            yield mask, np.asarray(truth)
    if not count:
        raise DatasetError("expected at least one frame, got none")
