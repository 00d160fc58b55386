"""The published reward for video object segmentation, with its bugs. Used by the `reference` preset only.

Source: github.com/aim-uofa/Omni-R1 at 1de42f8, src/omni_r1/load_datasets/revos.py and
src/omni_r1/reward.py; formulas in omni-r1.md section 1.5, numbers in square brackets are those of its
section 3. Bugs kept, besides those of `reference_text`:

- [6] the IoU of a true box whose left edge is 0 is 0: a perfect box there earns nothing.
- [9] with alpha_G = 0 (the May-2025 script), when no box could be read, or when the tracker failed, the
  reward is built without R_A, saliency and the mismatch term: they are silently dropped.
- [10] boxes beyond the number of true objects are cut in output order before the matching, so the best
  one may be lost; unread boxes stand as (-1, -1, -1, -1).
- [12] a frame where both masks are empty has J = 1: finding nothing is paid.
- a span of n frames expands to n frames, the first 4 distinct ones are grounded, in index order.
- "diversity" counts distinct frames: {0, 1, 2, 3} earns what {0, 7, 14, 21} earns.
- len_control adds 1 to completions of 320 to 750 tokens: length is paid as much as all boxes.
- IoU counts pixels inclusively (+1), and scaled true boxes keep that convention.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from omni_sdk.dus.assignment import linear_assignment
from omni_sdk.metrics.davis import region_similarity

from omni_training.rewards.reference_text import FPS, ReferenceSegment, read_answer
from omni_training.rewards.truth import ClipTruth

MATCH = ELEMENT = TIME_CONSISTENCY = 0.2
MASK_RATIO = 1.0
INTERVAL_LENGTH = 0.2
OVERLAP_PENALTY = 0.5
GAP = 0.4
KEYFRAMES = 4
LENGTH_BONUS_TOKENS = (320, 750)
LENGTH_BONUS_THRESHOLD = 0.1
_EPSILON = 1e-6
_NO_BOX = np.full(4, -1.0, np.float32)


@dataclass(frozen=True, slots=True)
class ReferenceMoments:
    """The part of the reward that needs the text and the true masks only.

    Attributes:
        cumulated: tags, elements, valid times and share of frames with the object, per object; <= 1.6.
        frame: 0.4 per distinct frame up to 4, then falling.
        overlap: -0.2 per further frame of a span, -0.5 per repeated frame.
        saliency: `avg_ratio`, mean over the grounded frames of area / largest area.
        grounded: sampled frames that go to the grounder, and their descriptions; empty when nothing
            in the answer was valid (the reward is then `cumulated` alone).
    """

    cumulated: float
    frame: float = 0.0
    overlap: float = 0.0
    saliency: float = 0.0
    grounded: tuple[tuple[int, str], ...] = ()


def moments_reward(answer: str, truth: ClipTruth) -> ReferenceMoments:
    """Return the published reward of the moments in an answer's text (`time_reward_multi_time`).

    Args:
        answer: text between the answer tags.
        truth: true objects on the sampled frames; the code has at least one object.
    """
    parsed = read_answer(answer, truth.num_frames)
    if parsed.num_objects == 0:
        return ReferenceMoments(0.0)
    paid = MATCH * parsed.num_objects + ELEMENT * parsed.num_complete
    paid += TIME_CONSISTENCY * len(parsed.segments)
    if not parsed.segments:
        return ReferenceMoments(paid / parsed.num_objects)
    spans = [_frames(s, truth.num_frames) for s in parsed.segments]
    paid += MASK_RATIO * sum(_visible_share(span, truth) for span in spans)
    length = sum(min(0.0, (1 - len(span)) * INTERVAL_LENGTH) for span in spans)
    every = np.concatenate(spans)
    unique = np.unique(every)
    grounded = [
        (int(f), next(s.description for s, r in zip(parsed.segments, spans, strict=True) if f in r))
        for f in unique[:KEYFRAMES]
    ]
    return ReferenceMoments(
        cumulated=paid / parsed.num_objects,
        frame=frame_reward(len(unique)),
        overlap=length - OVERLAP_PENALTY * (len(every) - len(unique)),
        saliency=_saliency([f for f, _ in grounded], truth),
        grounded=tuple(grounded),
    )


def frame_reward(distinct: int) -> float:
    """Return 0.4, 0.8, 1.2, 1.6 for 1..4 distinct frames, then 0.8, 0.4, 0.0, -0.4 ..."""
    return GAP * (distinct if distinct <= KEYFRAMES else 2 * KEYFRAMES - 1 - distinct)


def box_terms(
    found: Sequence[ArrayLike], true_inclusive: NDArray[np.float32]
) -> tuple[float, float]:
    """Return (avg_iou, mismatch) of the grounded frames.

    Args:
        found: for each keyframe the grounder's (P, 4) boxes in output order; an object that could not
            be read is (-1, -1, -1, -1).
        true_inclusive: (N, K, 4) true boxes, right and bottom pixel included; -1 where there is none.

    Returns:
        avg_iou in [0, 1] over the (object, frame) pairs with a true box; mismatch <= 0.
    """
    objects, frames = true_inclusive.shape[:2]
    matched = np.zeros((objects, frames))
    surplus = 0
    for frame, boxes in enumerate(found):
        given = np.asarray(boxes, np.float32).reshape(-1, 4)
        surplus += max(0, len(given) - objects)
        padded = np.concatenate([given, np.tile(_NO_BOX, (objects, 1))])[:objects]
        iou = _inclusive_iou(true_inclusive[:, frame], padded)
        rows, columns = linear_assignment(-iou)
        matched[rows, frame] = iou[rows, columns]
    valid = (true_inclusive != -1).all(axis=2)
    mean = float(matched[valid].mean()) if valid.any() else 0.0
    return mean, -0.5 * surplus / (objects + _EPSILON) / max(frames, 1)


def mask_j(pairs: Iterable[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> float:
    """Return sam_iou: mean over all frames of J of the unions, 1 where both are empty [12]."""
    return float(np.mean([region_similarity(found, true) for found, true in pairs]))


def true_inclusive(truth: ClipTruth, samples: Sequence[int]) -> NDArray[np.float32]:
    """Return (N, K, 4) true boxes in the published convention: inclusive edges, -1 where absent."""
    boxes = truth.boxes_xyxy[:, list(samples)] - np.array([0, 0, 1, 1], np.float32)
    return np.where(truth.areas[:, list(samples), None] > 0, boxes, _NO_BOX)


def length_bonus(rewards: Sequence[float], num_tokens: Sequence[int]) -> list[float]:
    """Return +1 for each completion of 320..750 tokens with reward > 0.1, where a group has two such rewards.

    Args:
        rewards: accuracy rewards of one group.
        num_tokens: tokens of its completions.
    """
    low, high = LENGTH_BONUS_TOKENS
    good = [r > LENGTH_BONUS_THRESHOLD for r in rewards]
    if sum(good) < 2:
        return [0.0] * len(rewards)
    return [float(g and low <= n <= high) for g, n in zip(good, num_tokens, strict=True)]


def _frames(segment: ReferenceSegment, num_frames: int) -> NDArray[np.int64]:
    start = min(int(segment.start_seconds * FPS), num_frames - 1)
    end = min(int(segment.end_seconds * FPS), num_frames - 1)
    return np.arange(start, end + 1)


def _visible_share(span: NDArray[np.int64], truth: ClipTruth) -> float:
    cells = truth.areas[:, span]
    return float(np.count_nonzero(cells) / cells.size) if cells.size else 0.0


def _saliency(samples: Sequence[int], truth: ClipTruth) -> float:
    """Area summed over objects (not of their union), as the code has it."""
    areas = truth.areas.sum(axis=0)
    return float((areas[list(samples)] / (areas.max() + _EPSILON)).mean())


def _inclusive_iou(true: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, N) IoU that counts edge pixels twice over (+1), and is 0 where the true x0 is not > 0 [6]."""
    t, f = true[:, None].astype(np.float64), found[None].astype(np.float64)
    sides = np.minimum(t[..., 2:], f[..., 2:]) - np.maximum(t[..., :2], f[..., :2]) + 1
    inter = np.prod(np.maximum(sides, 0), axis=-1)
    area = [np.prod(b[..., 2:] - b[..., :2] + 1, axis=-1) for b in (t, f)]
    union = area[0] + area[1] - inter
    # The published code has no guard against boxes with inverted edges beyond this one either.
    iou = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return np.where(t[..., 0] > 0, iou, 0.0)
