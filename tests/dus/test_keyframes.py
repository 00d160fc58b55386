from __future__ import annotations

import logging

import numpy as np
import pytest

from omni_sdk.dus.keyframes import choose_keyframes, labels_of, looks_at, with_objects
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


def test_second_looks_are_far_from_the_middle_first() -> None:
    (keyframe,) = choose_keyframes([Segment(0, 8, "a")], CLOCK, 4)
    looks = looks_at(keyframe, CLOCK, 4)
    assert [look.frame_index for look in looks] == [32, 16, 48, 8, 56]
    assert [look.pts_seconds for look in looks] == [4.0, 2.0, 6.0, 1.0, 7.0]
    assert {(look.start_seconds, look.end_seconds, look.description) for look in looks} == {
        (0.0, 8.0, "a")
    }
    assert looks_at(keyframe, CLOCK, 0) == (keyframe,)


def test_second_looks_follow_a_real_clock() -> None:
    real = Clock(CLOCK.frame_indices, CLOCK.pts_seconds * 10, 80.0, None)
    (keyframe,) = choose_keyframes([Segment(20, 60, "a")], real, 4)
    assert [look.frame_index for look in looks_at(keyframe, real, 1)] == [32, 24]
    assert looks_at(keyframe, real, 1)[1].pts_seconds == 30.0


def test_objects_and_labels() -> None:
    chosen = choose_keyframes([Segment(0, 2, "a"), Segment(4, 4, "b")], CLOCK, 4)
    filled = [
        with_objects(chosen[0], [GroundedBox(np.zeros(4, np.float32), "first")], [2]),
        with_objects(chosen[1], [_box(1, 1, 9, 9), _box(2, 2, 8, 8)], [2, 5]),
    ]
    assert [[o.object_id for o in k.objects] for k in filled] == [[2], [2, 5]]
    assert labels_of(filled) == {2: "first", 5: "thing"}
    with pytest.raises(ValueError, match="zip"):
        with_objects(chosen[0], [_box(1, 1, 9, 9)], [])
