"""The detail system: descriptions are looked for, boxes become prompts, ids find their way back."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pytest

from omni_sdk.config import TrackingConfig
from omni_sdk.dus.keyframes import choose_keyframes
from omni_sdk.dus.masks import rle_encode
from omni_sdk.dus.system import Boxes, DetailSystem, Found, in_time_order, make_prompts
from omni_sdk.errors import PromptError
from omni_sdk.media.clock import Clock
from omni_sdk.media.frame_source import ImageFrameSource
from omni_sdk.stages import (
    FrameMasks,
    FrameSource,
    GroundedBox,
    Image,
    Keyframe,
    KeyframePrompt,
    ObjectMask,
    Segment,
)

CLOCK = Clock(np.arange(16) * 4, np.arange(16) * 0.5, 8.0, 2.0)


class Point(NamedTuple):
    """The least that can be looked for."""

    frame_index: int
    description: str


def box(*xyxy: float) -> GroundedBox:
    return GroundedBox(np.array(xyxy, np.float32), "thing")


class World:
    """A grounder that finds a description on some frames; a frame's number stands in its pixels."""

    def __init__(self, missing: Sequence[int] = (), **visible: Sequence[int]) -> None:
        self._visible, self._missing = visible, missing
        self.asked: list[list[tuple[int, str]]] = []
        self.read: list[int] = []

    def images(self, frames: Sequence[int]) -> Mapping[int, Image]:
        assert len(set(frames)) == len(frames)
        self.read += frames
        return {f: np.full((8, 8, 3), f, np.uint8) for f in frames if f not in self._missing}

    def ground(self, images: Sequence[Image], descriptions: Sequence[str]) -> list[Boxes]:
        pairs = [(int(i[0, 0, 0]), d) for i, d in zip(images, descriptions, strict=True)]
        self.asked.append(pairs)
        return [(box(f, 0, 50, 50),) if f in self._visible[d] else () for f, d in pairs]


class Boxed:
    """A tracker whose masks are the boxes, on every frame; ids count up from 1."""

    image_size = 8

    def track(
        self, frames: FrameSource, prompts: Sequence[KeyframePrompt], config: TrackingConfig
    ) -> BoxedRun:
        return BoxedRun(frames, prompts)


class BoxedRun:
    def __init__(self, frames: FrameSource, prompts: Sequence[KeyframePrompt]) -> None:
        self.object_ids: list[tuple[int, ...]] = []
        self.timings_ms = {"propagate": 5.0}
        self.closed = False
        self._frames, self._prompts = frames, prompts

    def __iter__(self) -> Iterator[FrameMasks]:
        first = 1
        for prompt in self._prompts:
            count = len(prompt.boxes_xyxy)
            self.object_ids.append(tuple(range(first, first + count)))
            first += count
        empty = rle_encode(np.zeros((self._frames.height, self._frames.width), bool))
        for frame in self._frames.forward(0, self._frames.num_frames):
            masks = tuple(ObjectMask(i, empty, 1.0) for i in range(1, first))
            yield FrameMasks(frame.frame_index, frame.pts_seconds, masks)

    def close(self) -> None:
        self.closed = True


FRAMES = ImageFrameSource(
    lambda i, size: np.zeros((*size, 3), np.uint8), np.arange(64) / 8, (96, 96), 8
)


def system(world: World, second_looks: int = 2) -> DetailSystem:
    return DetailSystem(world, Boxed(), TrackingConfig(second_looks=second_looks))


def look_for(world: World, segments: Sequence[Segment], looks: int) -> list[Found[Keyframe]]:
    dus = system(world, looks)
    return in_time_order(
        dus.ground(dus.looks(choose_keyframes(segments, CLOCK, 4), CLOCK), world.images)
    )


def test_what_is_hidden_in_the_middle_is_found_beside_it() -> None:
    segments = [Segment(0, 8, "a"), Segment(0, 8, "b"), Segment(2, 2, "c")]
    world = World(a=[8], b=[8, 40], c=[])
    found = look_for(world, segments, 2)
    # "c" has one frame alone: it is not asked for there again
    assert world.asked == [
        [(16, "c"), (32, "a"), (32, "b")],
        [(16, "a"), (16, "b")],
        [(48, "a"), (48, "b")],
    ]
    assert [(f.look.frame_index, f.boxes) for f in found] == [(16, ()), (32, ()), (32, ())]

    found = look_for(World(a=[8], b=[8, 40], c=[]), segments, 4)
    assert [(f.look.frame_index, f.look.pts_seconds, f.look.description) for f in found] == [
        (8, 1.0, "a"),
        (8, 1.0, "b"),
        (16, 2.0, "c"),
    ]
    assert [len(f.boxes) for f in found] == [1, 1, 0]
    assert found[0].boxes[0].box_xyxy[0] == 8
    assert [(f.look.start_seconds, f.look.end_seconds) for f in found] == [(0, 8), (0, 8), (2, 2)]


def test_what_is_found_is_not_looked_for_again() -> None:
    world = World(a=[8, 16, 32])
    (found,) = look_for(world, [Segment(0, 8, "a")], 4)
    assert (found.look.frame_index, world.asked) == (32, [[(32, "a")]])
    assert look_for(World(), [], 4) == []


def test_no_second_looks_no_second_questions() -> None:
    world = World(a=[8, 16])
    (found,) = look_for(world, [Segment(0, 8, "a")], 0)
    assert (found.boxes, world.asked) == ((), [[(32, "a")]])


def test_what_is_known_is_not_asked() -> None:
    """Rollouts of one clip share a memo; one frame of two descriptions is read once."""
    world, memo = World(a=[8], b=[]), {}
    dus = system(world)
    points = [(Point(8, "a"),), (Point(8, "b"),), (Point(8, "a"),)]
    first = dus.ground(points, world.images, memo=memo)
    assert [len(f.boxes) for f in first] == [1, 0, 1]
    assert (world.asked, world.read) == ([[(8, "a"), (8, "b")]], [8])
    assert dus.ground(points[::-1], world.images, memo=memo) == first[::-1]
    assert len(world.asked) == 1


def test_a_frame_that_cannot_be_decoded_holds_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world = World(missing=[32], a=[16, 32])
    with caplog.at_level(logging.WARNING):
        (found,) = look_for(world, [Segment(0, 8, "a")], 1)
    assert found.look.frame_index == 16
    assert "frame 32 cannot be decoded" in caplog.text


def test_boxes_of_a_frame_are_one_prompt() -> None:
    found = [
        Found(Point(48, "d"), (box(1, 1, 9, 9),)),
        Found(Point(8, "a"), (box(0, 0, 10, 10),)),
        Found(Point(8, "same as a"), (box(0, 0, 10, 10.4), box(50, 50, 60, 60))),
        Found(Point(32, "c"), ()),
    ]
    prompts, places = make_prompts(found)
    assert [(p.frame_index, p.boxes_xyxy.shape) for p in prompts] == [(8, (2, 4)), (48, (1, 4))]
    assert places == [[(1, 0)], [(0, 0)], [(0, 0), (0, 1)], []]
    assert make_prompts([Found(Point(3, "x"), ())]) == ([], [[]])


def test_masks_come_with_ids_for_what_was_found() -> None:
    dus = system(World())
    found = [Found(Point(48, "d"), (box(1, 1, 9, 9),)), Found(Point(8, "a"), (box(0, 0, 9, 9),))]
    with dus.track(found, FRAMES) as run:
        frames = list(run)
    assert [f.frame_index for f in frames] == list(range(64))
    assert run.object_ids == [(2,), (1,)]
    assert dus.watch.timings().propagate == 5.0


def test_nothing_found_is_a_run_without_frames() -> None:
    with system(World()).track([Found(Point(3, "x"), ())], FRAMES) as run:
        assert list(run) == []
    assert run.object_ids == [()]


def test_a_run_ends_however_it_is_left() -> None:
    inner = BoxedRun(FRAMES, [])

    class One(Boxed):
        def track(self, *_: object) -> BoxedRun:
            return inner

    dus = DetailSystem(None, One())
    with pytest.raises(KeyError), dus.track_prompts([], FRAMES):
        raise KeyError
    assert inner.closed


def test_a_missing_half_is_told() -> None:
    half = DetailSystem(None, None)
    with pytest.raises(PromptError, match="no grounder"):
        half.ground([(Point(0, "a"),)], World().images)
    with pytest.raises(PromptError, match="no tracker"):
        half.track([Found(Point(0, "a"), (box(0, 0, 1, 1),))], FRAMES)
    with half.track([Found(Point(0, "a"), ())], FRAMES) as run:
        assert list(run) == []
