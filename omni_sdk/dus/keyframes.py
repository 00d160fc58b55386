"""From the reasoner's moments to the frames that are looked at, and from boxes back to keyframes.

A segment of the answer becomes one keyframe: the source frame shown at the middle of the segment, or another
one of the segment where nothing is found there (a second look).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from omni_sdk.media.clock import Clock
from omni_sdk.stages import GroundedBox, GroundedObject, Keyframe, Segment

logger = logging.getLogger(__name__)

SECOND_LOOKS = (1 / 4, 3 / 4, 1 / 8, 7 / 8)
"""Shares of a moment at which it is looked for again, in order: far from its middle, then nearer its ends.

As many as `TrackingConfig.second_looks` allows."""


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


def looks_at(keyframe: Keyframe, clock: Clock, second_looks: int) -> tuple[Keyframe, ...]:
    """Return where a keyframe's description is looked for, in order: on its own frame, then elsewhere.

    What is described may be hidden just in the middle of its moment.

    Args:
        keyframe: as chosen.
        clock: of the frames that the reasoner saw; one of them is chosen.
        second_looks: how many of `SECOND_LOOKS` are tried. Short moments name a frame more than once.
    """
    others = []
    for share in SECOND_LOOKS[:second_looks]:
        seconds = keyframe.start_seconds + share * (keyframe.end_seconds - keyframe.start_seconds)
        sample = clock.sample_at(clock.to_told(seconds))
        frame, pts = int(clock.frame_indices[sample]), float(clock.pts_seconds[sample])
        others.append(replace(keyframe, frame_index=frame, pts_seconds=pts))
    return keyframe, *others


def with_objects(
    keyframe: Keyframe, boxes: Sequence[GroundedBox], object_ids: Sequence[int]
) -> Keyframe:
    """Return a keyframe that holds its boxes under the tracker's ids."""
    objects = tuple(
        GroundedObject(object_id, box.box_xyxy, box.label)
        for box, object_id in zip(boxes, object_ids, strict=True)
    )
    return replace(keyframe, objects=objects)


def labels_of(keyframes: Sequence[Keyframe]) -> Mapping[int, str]:
    """Return each object's label: that of the first keyframe that holds it."""
    return {o.object_id: o.label for k in keyframes[::-1] for o in k.objects}
