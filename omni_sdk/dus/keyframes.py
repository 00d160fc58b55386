"""From the reasoner's moments to the tracker's prompts.

A segment of the answer becomes one keyframe: the source frame shown at the middle of the segment, or another
one of the segment where nothing is found there. The grounder's boxes on one frame become one prompt, whatever
descriptions they came from.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from omni_sdk.dus.boxes import box_iou
from omni_sdk.media.clock import Clock
from omni_sdk.stages import GroundedBox, GroundedObject, Keyframe, KeyframePrompt, Segment

logger = logging.getLogger(__name__)

SAME_OBJECT_IOU = 0.9
"""Two descriptions of one moment whose boxes overlap this much name the same object."""

LOOKS = (1 / 4, 3 / 4, 1 / 8, 7 / 8)
"""Shares of a moment at which it is looked for again, in order: far from its middle, then nearer its ends.

As many as `TrackingConfig.second_looks` allows."""

Boxes = tuple[GroundedBox, ...]


def choose_keyframes(
    segments: Sequence[Segment], clock: Clock, max_keyframes: int
) -> tuple[Keyframe, ...]:
    """Pick the frame to ground for each segment.

    Args:
        segments: on the reasoner's clock.
        clock: maps them to the source's frames and real seconds.
        max_keyframes: distinct frames that are kept, the earliest ones (as the authors do).

    Returns:
        Keyframes in time order without objects; a (frame, description) pair comes once.
    """
    keyframes: dict[tuple[int, str], Keyframe] = {}
    for segment in segments:
        sample = clock.sample_at((segment.start_seconds + segment.end_seconds) / 2)
        index = int(clock.frame_indices[sample])
        keyframes.setdefault(
            (index, segment.description),
            Keyframe(
                start_seconds=clock.to_real(segment.start_seconds),
                end_seconds=clock.to_real(segment.end_seconds),
                frame_index=index,
                pts_seconds=float(clock.pts_seconds[sample]),
                description=segment.description,
            ),
        )
    ordered = sorted(keyframes.values(), key=lambda k: k.frame_index)
    frames = sorted({k.frame_index for k in ordered})
    if len(frames) > max_keyframes:
        logger.warning(
            "the reasoner chose %d keyframes; the first %d are grounded (max_keyframes)",
            len(frames),
            max_keyframes,
        )
        ordered = [k for k in ordered if k.frame_index in frames[:max_keyframes]]
    return tuple(ordered)


def look_again(
    keyframes: Sequence[Keyframe],
    boxes: Sequence[Boxes],
    clock: Clock,
    looks: int,
    ground: Callable[[Sequence[Keyframe]], Sequence[Boxes]],
) -> tuple[tuple[Keyframe, ...], tuple[Boxes, ...]]:
    """Ground other frames of the moments in whose middle nothing was found.

    Args:
        keyframes: in time order.
        boxes: for each keyframe what the grounder found.
        clock: of the frames that the reasoner saw; one of them is chosen.
        looks: how many of `LOOKS` are tried.
        ground: finds keyframes' descriptions on their frames.

    Returns:
        Keyframes in time order and their boxes. A keyframe's frame is the first on which something was found;
        the middle of its moment where nothing was.
    """
    known, found = list(keyframes), list(boxes)
    seen = [{k.frame_index} for k in known]
    for share in LOOKS[:looks]:
        tries = [
            (i, moved)
            for i, keyframe in enumerate(known)
            if not found[i] and (moved := _at(keyframe, share, clock)).frame_index not in seen[i]
        ]
        if not tries:
            continue
        for (i, moved), answer in zip(tries, ground([m for _, m in tries]), strict=True):
            seen[i].add(moved.frame_index)
            if answer:
                known[i], found[i] = moved, answer
    order = sorted(range(len(known)), key=lambda i: known[i].frame_index)
    return tuple(known[i] for i in order), tuple(found[i] for i in order)


def _at(keyframe: Keyframe, share: float, clock: Clock) -> Keyframe:
    """Return a keyframe moved to the frame shown at a share of its moment."""
    seconds = keyframe.start_seconds + share * (keyframe.end_seconds - keyframe.start_seconds)
    sample = clock.sample_at(clock.to_told(seconds))
    return replace(
        keyframe,
        frame_index=int(clock.frame_indices[sample]),
        pts_seconds=float(clock.pts_seconds[sample]),
    )


def make_prompts(
    keyframes: Sequence[Keyframe], boxes: Sequence[Sequence[GroundedBox]]
) -> tuple[list[KeyframePrompt], list[list[tuple[int, int]]]]:
    """Gather the boxes of each frame into one prompt.

    Args:
        keyframes: in time order.
        boxes: for each keyframe what the grounder found.

    Returns:
        The prompts (frames without boxes have none), and for each keyframe and box its
        (prompt, position in the prompt).
    """
    prompts: list[list[GroundedBox]] = []
    frames: list[int] = []
    places: list[list[tuple[int, int]]] = []
    for keyframe, found in zip(keyframes, boxes, strict=True):
        row: list[tuple[int, int]] = []
        for box in found:
            if not frames or frames[-1] != keyframe.frame_index:
                frames.append(keyframe.frame_index)
                prompts.append([])
            row.append((len(prompts) - 1, _place(prompts[-1], box)))
        places.append(row)
    return [
        KeyframePrompt(frame, np.stack([b.box_xyxy for b in found]).astype(np.float32))
        for frame, found in zip(frames, prompts, strict=True)
    ], places


def _place(known: list[GroundedBox], box: GroundedBox) -> int:
    """Return the position of a box among a frame's boxes, adding it if it is a new object."""
    if known:
        overlap = box_iou(box.box_xyxy[None], np.stack([b.box_xyxy for b in known]))[0]
        if overlap.max() >= SAME_OBJECT_IOU:
            return int(overlap.argmax())
    known.append(box)
    return len(known) - 1


def with_objects(
    keyframes: Sequence[Keyframe],
    boxes: Sequence[Sequence[GroundedBox]],
    places: Sequence[Sequence[tuple[int, int]]],
    object_ids: Sequence[Sequence[int]],
) -> tuple[Keyframe, ...]:
    """Write the tracker's object ids into the keyframes."""
    filled = []
    for keyframe, found, row in zip(keyframes, boxes, places, strict=True):
        objects = tuple(
            GroundedObject(object_ids[place[0]][place[1]], box.box_xyxy, box.label)
            for box, place in zip(found, row, strict=True)
        )
        filled.append(replace(keyframe, objects=objects))
    return tuple(filled)
