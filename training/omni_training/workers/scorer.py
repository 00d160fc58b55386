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
from omni_sdk.dus.masks import rle_decode
from omni_sdk.dus.system import Boxes, DetailSystem, Found, Images
from omni_sdk.errors import DatasetError
from omni_sdk.stages import FrameSource, GroundedBox, Grounder, Image, Tracker

from omni_training.factories import find_factory
from omni_training.rewards.jobs import DusScores, GroundingPoint, RewardJob
from omni_training.rewards.presets import scoring
from omni_training.rewards.truth import ClipTruth


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
        self._system = DetailSystem(grounder, tracker, tracking or TrackingConfig())
        self._max_clips = max_clips
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def score(self, job: RewardJob) -> DusScores:
        """Score one job.

        Raises:
            OmniError: the clip cannot be read, or a stage refuses it.
            PromptError: the job asks for boxes or masks without a stage that makes them.
        """
        started = time.perf_counter()
        entry = self._entry(job.sample_id)
        found = self._found(entry, job.points)
        mask = self._mask(entry, job, found) if job.masks else None
        box, mismatch = _box_scores(entry.clip.truth, job, found)
        return DusScores(
            box=box,
            mask=mask,
            mismatch=mismatch,
            num_boxes=sum(len(f.boxes) for f in found),
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

    def _found(
        self, entry: _Entry, points: Sequence[GroundingPoint]
    ) -> list[Found[GroundingPoint]]:
        asked = [p for p in points if p.boxes_xyxy is None]
        answers = self._system.ground(
            [p.looks() for p in asked], images_of(entry.clip), memo=entry.boxes
        )
        found = iter(answers)
        return [next(found) if p.boxes_xyxy is None else Found(p, _given(p)) for p in points]

    def _mask(self, entry: _Entry, job: RewardJob, found: list[Found[GroundingPoint]]) -> float:
        key = (job.preset, *_mask_key(found))
        if key not in entry.masks:
            entry.masks[key] = self._propagate(entry.clip, job, found)
        return entry.masks[key]

    def _propagate(
        self, clip: RewardClip, job: RewardJob, found: list[Found[GroundingPoint]]
    ) -> float:
        size = (clip.frames.height, clip.frames.width)
        union: dict[int, NDArray[np.bool_]] = {}
        with self._system.track(found, clip.frames) as run:
            for frame in run:
                masks = [rle_decode(m.counts, size).astype(bool) for m in frame.masks]
                union[frame.frame_index] = np.logical_or.reduce(masks or [np.zeros(size, bool)])
        true = clip.true_masks()
        if not true:
            raise DatasetError(f"sample {job.sample_id!r} has no annotated frame")
        pairs = [(union.get(i, np.zeros_like(mask)), mask) for i, mask in sorted(true.items())]
        return scoring(job.preset).mask_score(pairs)


def images_of(clip: RewardClip) -> Images:
    """Return what gives a grounder the frames of a clip."""
    return lambda frames: {frame: clip.image(frame) for frame in frames}


def _given(point: GroundingPoint) -> Boxes:
    boxes = [np.array(b, np.float32) for b in point.boxes_xyxy or ()]
    return tuple(GroundedBox(box, point.description) for box in boxes)


def _mask_key(found: list[Found[GroundingPoint]]) -> list[tuple[Any, ...]]:
    return sorted(
        (f.look.frame_index, *(tuple(float(v) for v in b.box_xyxy) for b in f.boxes)) for f in found
    )


def _box_scores(
    truth: ClipTruth, job: RewardJob, found: list[Found[GroundingPoint]]
) -> tuple[float, float]:
    """Return (R_A or avg_iou, mismatch)."""
    boxes = [np.array([b.box_xyxy for b in f.boxes], np.float32).reshape(-1, 4) for f in found]
    samples = [f.look.sample for f in found]
    if any(not 0 <= s < truth.num_frames for s in samples):
        raise DatasetError(
            f"sample {job.sample_id!r} has {truth.num_frames} frames, the job names {samples}"
        )
    return scoring(job.preset).box_scores(boxes, truth, samples)


def build_scorer(factory: str, options: dict[str, Any]) -> ClipScorer:
    """Make a scorer from "module:function" and its JSON options, as a worker process does.

    Raises:
        ValueError: there is no such function, or it returns something else.
    """
    scorer = find_factory(factory)(**options)
    if not isinstance(scorer, ClipScorer):
        raise ValueError(f"{factory} returned {type(scorer).__name__}, expected a ClipScorer")
    return scorer
