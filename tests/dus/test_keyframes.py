from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pytest

from omni_sdk.dus.keyframes import choose_keyframes, look_again, make_prompts, with_objects
from omni_sdk.media.clock import Clock
from omni_sdk.stages import GroundedBox, Keyframe, Segment

CLOCK = Clock(np.arange(16) * 4, np.arange(16) * 0.5, 8.0, 2.0)


def _box(*xyxy: float) -> GroundedBox:
    return GroundedBox(np.array(xyxy, np.float32), "thing")


def test_a_segment_is_grounded_at_its_middle_in_real_time() -> None:
    slow = Clock(CLOCK.frame_indices, CLOCK.pts_seconds * 10, 80.0, 2.0)
    (keyframe,) = choose_keyframes([Segment(2.0, 6.0, "a")], slow, 4)
    assert (keyframe.frame_index, keyframe.pts_seconds) == (32, 40.0)
    assert (keyframe.start_seconds, keyframe.end_seconds) == (20.0, 60.0)


def test_keyframes_are_in_time_order_and_once_each() -> None:
    segments = [Segment(6, 8, "b"), Segment(0, 2, "a"), Segment(0.1, 2, "a"), Segment(0, 2, "c")]
    keyframes = choose_keyframes(segments, CLOCK, 4)
    assert [(k.frame_index, k.description) for k in keyframes] == [(8, "a"), (8, "c"), (56, "b")]


def test_the_cap_counts_frames_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    segments = [Segment(i, i, d) for i in (5, 1, 3) for d in ("a", "b")]
    with caplog.at_level(logging.WARNING):
        keyframes = choose_keyframes(segments, CLOCK, 2)
    assert [k.frame_index for k in keyframes] == [8, 8, 24, 24]
    assert "chose 3 keyframes; the first 2" in caplog.text


class _World:
    """A grounder that finds a description on some frames, and remembers what it was asked."""

    def __init__(self, **visible: Sequence[int]) -> None:
        self._visible = visible
        self.asked: list[list[tuple[int, str]]] = []

    def __call__(self, keyframes: Sequence[Keyframe]) -> list[tuple[GroundedBox, ...]]:
        self.asked.append([(k.frame_index, k.description) for k in keyframes])
        return [
            (_box(k.frame_index, 0, 50, 50),)
            if k.frame_index in self._visible[k.description]
            else ()
            for k in keyframes
        ]


def test_what_is_hidden_in_the_middle_is_found_beside_it() -> None:
    world = _World(a=[8], b=[8, 40], c=[])
    segments = [Segment(0, 8, "a"), Segment(0, 8, "b"), Segment(2, 2, "c")]
    chosen = choose_keyframes(segments, CLOCK, 4)
    assert [(k.frame_index, k.description) for k in chosen] == [(16, "c"), (32, "a"), (32, "b")]
    found, boxes = look_again(chosen, world(chosen), CLOCK, 2, world)
    # "c" has one frame alone: it is not asked for there again
    assert world.asked[1:] == [[(16, "a"), (16, "b")], [(48, "a"), (48, "b")]]
    assert (found, boxes) == (chosen, ((), (), ()))

    found, boxes = look_again(chosen, world(chosen), CLOCK, 4, world)
    assert [(k.frame_index, k.pts_seconds, k.description) for k in found] == [
        (8, 1.0, "a"),
        (8, 1.0, "b"),
        (16, 2.0, "c"),
    ]
    assert [len(b) for b in boxes] == [1, 1, 0]
    assert boxes[0][0].box_xyxy[0] == 8
    assert [(k.start_seconds, k.end_seconds) for k in found] == [(0, 8), (0, 8), (2, 2)]
    assert len(world.asked) == 7  # the last look has nothing to look for


def test_what_is_found_is_not_looked_for_again() -> None:
    world = _World(a=[8, 16, 32])
    chosen = choose_keyframes([Segment(0, 8, "a")], CLOCK, 4)
    boxes = world(chosen)
    assert look_again(chosen, boxes, CLOCK, 4, world) == (chosen, tuple(boxes))
    assert world.asked == [[(32, "a")]]
    assert look_again((), (), CLOCK, 4, world) == ((), ())


def test_no_second_looks_no_second_questions() -> None:
    world = _World(a=[])
    chosen = choose_keyframes([Segment(0, 8, "a")], CLOCK, 4)
    assert look_again(chosen, world(chosen), CLOCK, 0, world) == (chosen, ((),))
    assert len(world.asked) == 1


def test_second_looks_follow_a_real_clock() -> None:
    real = Clock(CLOCK.frame_indices, CLOCK.pts_seconds * 10, 80.0, None)
    chosen = choose_keyframes([Segment(20, 60, "a")], real, 4)
    ((keyframe,), _) = look_again(chosen, [()], real, 1, _World(a=[24]))
    assert (keyframe.frame_index, keyframe.pts_seconds) == (24, 30.0)


def test_prompts_gather_a_frames_boxes_and_ids_find_their_way_back() -> None:
    segments = [
        Segment(0, 2, "a"),
        Segment(0, 2, "same as a"),
        Segment(4, 4, "b"),
        Segment(6, 6, "c"),
    ]
    keyframes = choose_keyframes(segments, CLOCK, 4)
    first, again, second = _box(0, 0, 10, 10), _box(0, 0, 10, 10.4), _box(50, 50, 60, 60)
    boxes = [[first], [again, second], [], [_box(1, 1, 9, 9)]]
    prompts, places = make_prompts(keyframes, boxes)
    assert [(p.frame_index, p.boxes_xyxy.shape) for p in prompts] == [(8, (2, 4)), (48, (1, 4))]
    filled = with_objects(keyframes, boxes, places, [(1, 2), (1,)])
    assert [[o.object_id for o in k.objects] for k in filled] == [[1], [1, 2], [], [1]]


def test_no_boxes_no_prompts() -> None:
    keyframes = choose_keyframes([Segment(0, 2, "a")], CLOCK, 4)
    assert make_prompts(keyframes, [[]]) == ([], [[]])
