"""The Detail Understanding System, System 2: descriptions on frames -> boxes -> masks with ids.

`Pipeline`, the reward workers and the experiments' evaluator all go through here, so what training rewards is
what users get. One call is two steps, between which the boxes can be looked at:

    found = system.ground(looks, images)        # which box, on which frame
    with system.track(found, frames) as run:    # masks of every frame
        for frame in run: ...
    run.object_ids                              # the object of each box in `found`
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Protocol, TypeVar

import numpy as np

from omni_sdk.config import TrackingConfig
from omni_sdk.dus.boxes import box_iou
from omni_sdk.dus.keyframes import looks_at, with_objects
from omni_sdk.errors import PromptError
from omni_sdk.media.clock import Clock
from omni_sdk.stages import (
    FrameMasks,
    FrameSource,
    GroundedBox,
    Grounder,
    Image,
    Keyframe,
    KeyframePrompt,
    Tracker,
    TrackingRun,
)
from omni_sdk.utils.timing import Stopwatch

logger = logging.getLogger(__name__)

SAME_OBJECT_IOU = 0.9
"""Two descriptions of one moment whose boxes overlap this much name the same object."""

Boxes = tuple[GroundedBox, ...]
Memo = MutableMapping[tuple[int, str], Boxes]
"""(frame index, description) -> boxes that are known already."""

Images = Callable[[Sequence[int]], Mapping[int, Image]]
"""Different frame indices -> those frames at full size; one that cannot be decoded may be missing."""


class Look(Protocol):
    """Something to look for on one frame: a `Keyframe`, or a point of a reward job."""

    @property
    def frame_index(self) -> int:
        """The frame, in the source."""

    @property
    def description(self) -> str:
        """What to look for."""


L = TypeVar("L", bound=Look)


@dataclass(frozen=True, slots=True)
class Found(Generic[L]):
    """Where something was looked for last, and the boxes that are there; none where it was never found."""

    look: L
    boxes: Boxes


@dataclass(frozen=True, slots=True)
class DetailSystem:
    """A grounder and a tracker that work together. Holds no state of a call.

    Attributes:
        grounder: finds boxes; None: only `track` works.
        tracker: makes masks; None: only `ground` works.
        config: options of the tracker.
        watch: receives "ground" and the tracker's own times.
    """

    grounder: Grounder | None
    tracker: Tracker | None
    config: TrackingConfig = field(default_factory=TrackingConfig)
    watch: Stopwatch = field(default_factory=Stopwatch)

    def looks(self, keyframes: Sequence[Keyframe], clock: Clock) -> list[tuple[Keyframe, ...]]:
        """Return where each keyframe's description is looked for: with `TrackingConfig.second_looks`."""
        return [looks_at(keyframe, clock, self.config.second_looks) for keyframe in keyframes]

    def ground(
        self,
        looks: Sequence[Sequence[L]],
        images: Images,
        *,
        memo: Memo | None = None,
    ) -> list[Found[L]]:
        """Look for descriptions on frames until each is found or has no look left.

        Args:
            looks: for each description where it is looked for, in order, at least once; a frame that comes
                again is not looked at again.
            images: gives the frames that the grounder reads. Nothing is found on one that is missing.
            memo: boxes that are known; what is asked is written into it.

        Returns:
            For each description the first look at which something was found; the first one where nothing was.

        Raises:
            PromptError: there is no grounder.
            OmniError: a frame cannot be read, or the grounder refuses a description.
        """
        found = [
            Found(row[0], boxes)
            for row, boxes in zip(
                looks, self._boxes([row[0] for row in looks], images, memo), strict=True
            )
        ]
        for turn in range(1, max(map(len, looks), default=0)):
            again = [
                n
                for n, row in enumerate(looks)
                if not found[n].boxes and turn < len(row) and not _seen(row, turn)
            ]
            tries = [looks[n][turn] for n in again]
            for n, look, boxes in zip(again, tries, self._boxes(tries, images, memo), strict=True):
                if boxes:
                    found[n] = Found(look, boxes)
        return found

    def _boxes(
        self,
        looks: Sequence[Look],
        images: Images,
        memo: Memo | None,
    ) -> list[Boxes]:
        known = {} if memo is None else memo
        keys = dict.fromkeys((look.frame_index, look.description) for look in looks)
        if asked := [key for key in keys if key not in known]:
            if self.grounder is None:
                raise PromptError("boxes are to be found, and there is no grounder: load one")
            pictures = images(list(dict.fromkeys(frame for frame, _ in asked)))
            there = [key for key in asked if key[0] in pictures]
            for key in asked:
                known[key] = ()
                if key not in there:
                    logger.warning("frame %d cannot be decoded: %r is not looked for there", *key)
            if there:
                with self.watch.stage("ground"):
                    answers = self.grounder.ground(
                        [pictures[frame] for frame, _ in there], [text for _, text in there]
                    )
                known.update(zip(there, map(tuple, answers), strict=True))
        return [known[look.frame_index, look.description] for look in looks]

    def track(self, found: Sequence[Found[L]], frames: FrameSource) -> DetailRun:
        """Prepare the masks of what was found; they are made while the run is iterated.

        Args:
            found: in any order; nothing found is a legal run without frames.
            frames: the source.

        Raises:
            PromptError: there is no tracker, or a box or frame lies outside the source.
        """
        prompts, places = make_prompts(found)
        run = self._run(prompts, frames) if prompts else None
        return DetailRun(run, places, self.watch)

    def track_prompts(self, prompts: Sequence[KeyframePrompt], frames: FrameSource) -> DetailRun:
        """Prepare the masks of a caller's own prompts; raises as `track`, also where none is given."""
        return DetailRun(self._run(prompts, frames), (), self.watch)

    def _run(self, prompts: Sequence[KeyframePrompt], frames: FrameSource) -> TrackingRun:
        if self.tracker is None:
            raise PromptError("masks are to be made, and there is no tracker: load one")
        return self.tracker.track(frames, prompts, self.config)


class DetailRun:
    """Masks in the making, to be iterated once. As a context manager it ends however it is left."""

    def __init__(
        self, run: TrackingRun | None, places: Sequence[Sequence[tuple[int, int]]], watch: Stopwatch
    ) -> None:
        self._run, self._places, self._watch = run, places, watch

    def __enter__(self) -> DetailRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A caller's own tracker need not have anything to end.
        if (close := getattr(self._run, "close", None)) is not None:
            close()
        if self._run is not None:
            self._watch.add(self._run.timings_ms)

    def __iter__(self) -> Iterator[FrameMasks]:
        return iter(() if self._run is None else self._run)

    @property
    def object_ids(self) -> list[tuple[int, ...]]:
        """The object of each box of each `Found`, in the order they came in; complete when iterated."""
        ids = [] if self._run is None else self._run.object_ids
        return [tuple(ids[prompt][place] for prompt, place in row) for row in self._places]


def _seen(row: Sequence[Look], turn: int) -> bool:
    return row[turn].frame_index in {look.frame_index for look in row[:turn]}


def with_ids(
    found: Sequence[Found[Keyframe]], object_ids: Sequence[Sequence[int]]
) -> tuple[Keyframe, ...]:
    """Return the keyframes of what was found, each with its boxes under the ids of `DetailRun.object_ids`."""
    return tuple(
        with_objects(item.look, item.boxes, ids)
        for item, ids in zip(found, object_ids, strict=True)
    )


def in_time_order(found: Sequence[Found[L]]) -> list[Found[L]]:
    """Return what was found by frame, as it was given within a frame."""
    return sorted(found, key=lambda item: item.look.frame_index)


def make_prompts(
    found: Sequence[Found[L]],
) -> tuple[list[KeyframePrompt], list[list[tuple[int, int]]]]:
    """Gather the boxes of each frame into one prompt, whatever descriptions they came from.

    Args:
        found: in any order.

    Returns:
        The prompts in time order (frames without boxes have none), and for each `Found` and box its
        (prompt, position in the prompt). Boxes of one frame that are one object share their place.
    """
    frames = sorted({item.look.frame_index for item in found if item.boxes})
    prompts: list[list[GroundedBox]] = [[] for _ in frames]
    places: list[list[tuple[int, int]]] = [[] for _ in found]
    for item, row in zip(found, places, strict=True):
        for box in item.boxes:
            prompt = frames.index(item.look.frame_index)
            row.append((prompt, _place(prompts[prompt], box)))
    return [
        KeyframePrompt(frame, np.stack([b.box_xyxy for b in boxes]).astype(np.float32))
        for frame, boxes in zip(frames, prompts, strict=True)
    ], places


def _place(known: list[GroundedBox], box: GroundedBox) -> int:
    """Return the position of a box among a frame's boxes, adding it if it is a new object."""
    if known:
        overlap = box_iou(box.box_xyxy[None], np.stack([b.box_xyxy for b in known]))[0]
        if overlap.max() >= SAME_OBJECT_IOU:
            return int(overlap.argmax())
    known.append(box)
    return len(known) - 1
