from __future__ import annotations

import logging

import numpy as np
import pytest

from omni_sdk.dus.keyframes import choose_keyframes, make_prompts, with_objects
from omni_sdk.media.clock import Clock
from omni_sdk.stages import GroundedBox, Segment

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
