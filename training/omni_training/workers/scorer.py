"""Runs the detail system on one job and scores it against the truth. Used inside every backend."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from omni_sdk.config import TrackingConfig
from omni_sdk.dus.keyframes import make_prompts
from omni_sdk.dus.masks import rle_decode
from omni_sdk.errors import DatasetError
from omni_sdk.stages import FrameSource, GroundedBox, Grounder, Image, Keyframe, Tracker

from omni_training.factories import find_factory
from omni_training.rewards import reference
from omni_training.rewards.boxes import box_reward
from omni_training.rewards.jobs import DusScores, GroundingPoint, RewardJob
from omni_training.rewards.masks import mask_reward
from omni_training.rewards.truth import ClipTruth

Boxes = tuple[GroundedBox, ...]


class RewardClip(Protocol):
    """One training sample as a worker sees it."""

    @property
    def truth(self) -> ClipTruth:
        """True objects on the sampled frames."""

    @property
    def frames(self) -> FrameSource:
        """Frames for the tracker, numbered as `GroundingPoint.frame_index`."""

    def image(self, frame_index: int) -> Image:
        """Return the (H, W, 3) uint8 frame that the grounder reads."""

    def true_masks(self) -> dict[int, NDArray[np.bool_]]:
        """Return the (H, W) union of the true masks of every annotated frame."""


@dataclass(slots=True)
class _Entry:
    """A clip in the cache, and what its rollouts have already asked."""

    clip: RewardClip
    boxes: dict[tuple[int, str], Boxes] = field(default_factory=dict)
    masks: dict[tuple[Any, ...], float] = field(default_factory=dict)


class ClipScorer:
    """Grounds, propagates and scores; holds the last few clips.

    Rollouts of one group ask about the same clip and often the same moments: a (frame, description) is
    grounded once, and a set of boxes is propagated once, as long as the clip is held. Grounder and tracker
    must be deterministic (greedy).
    """

    def __init__(
        self,
        load: Callable[[str], RewardClip],
        grounder: Grounder | None,
        tracker: Tracker | None,
        *,
        tracking: TrackingConfig | None = None,
        max_clips: int = 4,
    ) -> None:
        """Wrap the stages.

        Args:
            load: sample id -> clip; raises an `OmniError` for a clip that cannot be read.
            grounder: finds boxes of points that bring none.
            tracker: makes masks; None where no job asks for them.
            tracking: options of the tracker.
            max_clips: clips held; the least recently used one goes.
        """
        self._load = load
        self._grounder = grounder
        self._tracker = tracker
        self._tracking = tracking or TrackingConfig()
        self._max_clips = max_clips
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def score(self, job: RewardJob) -> DusScores:
        """Score one job.

        Raises:
            OmniError: the clip cannot be read, or a stage refuses it.
            ValueError: the job asks for boxes or masks without a stage that makes them.
        """
        started = time.perf_counter()
        entry = self._entry(job.sample_id)
        boxes = self._boxes(entry, job.points)
        mask = self._mask(entry, job, boxes) if job.masks else None
        box, mismatch = _box_scores(entry.clip.truth, job, boxes)
        return DusScores(
            box=box,
            mask=mask,
            mismatch=mismatch,
            num_boxes=sum(len(b) for b in boxes),
            seconds=time.perf_counter() - started,
        )

    def _entry(self, sample_id: str) -> _Entry:
        entry = self._entries.get(sample_id)
        if entry is None:
            entry = _Entry(self._load(sample_id))
            self._entries[sample_id] = entry
            while len(self._entries) > self._max_clips:
                self._entries.popitem(last=False)
        self._entries.move_to_end(sample_id)
        return entry

    def _boxes(self, entry: _Entry, points: Sequence[GroundingPoint]) -> list[Boxes]:
        asked = dict.fromkeys(
            (p.frame_index, p.description) for p in points if p.boxes_xyxy is None
        )
        missing = [key for key in asked if key not in entry.boxes]
        if missing:
            if self._grounder is None:
                raise ValueError("the job brings no boxes and this worker has no grounder")
            images = [entry.clip.image(frame) for frame, _ in missing]
            found = self._grounder.ground(images, [text for _, text in missing])
            entry.boxes |= dict(zip(missing, found, strict=True))
        return [
            entry.boxes[p.frame_index, p.description]
            if p.boxes_xyxy is None
            else tuple(GroundedBox(np.array(b, np.float32), p.description) for b in p.boxes_xyxy)
            for p in points
        ]

    def _mask(self, entry: _Entry, job: RewardJob, boxes: list[Boxes]) -> float:
        key = (job.preset, *_mask_key(job.points, boxes))
        if key not in entry.masks:
            entry.masks[key] = self._propagate(entry.clip, job, boxes)
        return entry.masks[key]

    def _propagate(self, clip: RewardClip, job: RewardJob, boxes: list[Boxes]) -> float:
        keyframes = [Keyframe(0.0, 0.0, p.frame_index, 0.0, p.description) for p in job.points]
        order = np.argsort([k.frame_index for k in keyframes], kind="stable")
        prompts, _ = make_prompts([keyframes[i] for i in order], [boxes[i] for i in order])
        found: dict[int, NDArray[np.bool_]] = {}
        if prompts:
            if self._tracker is None:
                raise ValueError("the job asks for masks and this worker has no tracker")
            size = (clip.frames.height, clip.frames.width)
            for frame in self._tracker.track(clip.frames, prompts, self._tracking):
                masks = [rle_decode(m.counts, size).astype(bool) for m in frame.masks]
                found[frame.frame_index] = np.logical_or.reduce(masks or [np.zeros(size, bool)])
        true = clip.true_masks()
        if not true:
            raise DatasetError(f"sample {job.sample_id!r} has no annotated frame")
        pairs = [(found.get(i, np.zeros_like(mask)), mask) for i, mask in sorted(true.items())]
        return reference.mask_j(pairs) if job.preset == "reference" else mask_reward(pairs)


def _mask_key(points: Sequence[GroundingPoint], boxes: list[Boxes]) -> list[tuple[Any, ...]]:
    return sorted(
        (p.frame_index, *(tuple(float(v) for v in b.box_xyxy) for b in found))
        for p, found in zip(points, boxes, strict=True)
    )


def _box_scores(truth: ClipTruth, job: RewardJob, boxes: list[Boxes]) -> tuple[float, float]:
    """Return (R_A or avg_iou, mismatch)."""
    found = [np.array([b.box_xyxy for b in row], np.float32).reshape(-1, 4) for row in boxes]
    samples = [p.sample for p in job.points]
    if any(not 0 <= s < truth.num_frames for s in samples):
        raise DatasetError(
            f"sample {job.sample_id!r} has {truth.num_frames} frames, the job names {samples}"
        )
    if job.preset == "reference":
        # The published boxes include their last pixel; the grounder's numbers are compared as they are.
        return reference.box_terms(found, reference.true_inclusive(truth, samples))
    true = [truth.boxes_at(s) for s in samples]
    return box_reward(found, true, absent=truth.absent), 0.0


def build_scorer(factory: str, options: dict[str, Any]) -> ClipScorer:
    """Make a scorer from "module:function" and its JSON options, as a worker process does.

    Raises:
        ValueError: there is no such function, or it returns something else.
    """
    scorer = find_factory(factory)(**options)
    if not isinstance(scorer, ClipScorer):
        raise ValueError(f"{factory} returned {type(scorer).__name__}, expected a ClipScorer")
    return scorer
