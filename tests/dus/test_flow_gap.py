"""Strides of the tracker: which frames are tracked, which are warped, and from where."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from omni_sdk.config import TrackingConfig
from omni_sdk.dus.flow.gap import MAX_GAP, Gap
from omni_sdk.dus.masks import mask_iou, rle_decode, rle_encode
from omni_sdk.dus.sam2.tracker import Sam2Tracker
from omni_sdk.dus.tracks import build_tracks
from omni_sdk.errors import MediaError
from omni_sdk.media.frames import VideoFrame
from omni_sdk.stages import KeyframePrompt, ObjectMask

SIZE = (96, 128)


def frame_at(t: int, *, visible: bool = True) -> tuple[VideoFrame, NDArray[np.bool_]]:
    """A textured square that moves 3 pixels a frame, and its mask."""
    rng = np.random.default_rng(5)
    coarse = rng.uniform(40, 215, (SIZE[0] // 4, SIZE[1] // 4))
    luma = coarse.repeat(4, 0).repeat(4, 1)
    skin = rng.uniform(0, 255, (10, 10)).repeat(4, 0).repeat(4, 1)
    mask = np.zeros(SIZE, bool)
    if visible:
        luma[20:60, 10 + 3 * t : 50 + 3 * t] = skin
        mask[20:60, 10 + 3 * t : 50 + 3 * t] = True
    image = np.zeros((8, 8, 3), np.uint8)
    return VideoFrame(t, t / 10, image, luma.astype(np.uint8)), mask


def masks_of(mask: NDArray[np.bool_]) -> list[ObjectMask]:
    return [ObjectMask(1, rle_encode(mask), 5.0 if mask.any() else -5.0)]


def fill(
    stride: int | str, tracked: dict[int, bool], frames: range, visible: range
) -> dict[int, ObjectMask]:
    """Walk over frames, tracking those that the gap asks for; return what it filled in."""
    gap, filled = Gap(stride, SIZE), {}  # type: ignore[arg-type]
    for t in frames:
        frame, mask = frame_at(t, visible=t in visible)
        if gap.hold(frame, {1}):
            continue
        tracked[t] = True
        filled |= {f.frame_index: f.masks[0] for f in gap.fill(frame, masks_of(mask))}
    return filled | {f.frame_index: f.masks[0] for f in gap.rest()}


@pytest.mark.parametrize("frames", [range(9), range(8, -1, -1)])
def test_frames_in_between_are_carried(frames: range) -> None:
    tracked: dict[int, bool] = {}
    filled = fill(4, tracked, frames, range(9))
    assert list(tracked) == list(frames)[::4]
    assert list(filled) == [t for t in frames if t not in tracked]
    for t, mask in filled.items():
        assert mask.source == "propagated"
        assert mask.score == 5.0
        assert mask.confidence > 0.7
        assert mask_iou(rle_decode(mask.counts, SIZE), frame_at(t)[1]) > 0.97


def test_an_end_without_a_tracked_frame_is_carried_from_one_side() -> None:
    tracked: dict[int, bool] = {}
    filled = fill(4, tracked, range(7), range(7))
    assert list(tracked) == [0, 4]
    assert mask_iou(rle_decode(filled[6].counts, SIZE), frame_at(6)[1]) > 0.97


@pytest.mark.parametrize(("visible", "last"), [(range(3), 2), (range(3, 9), None)])
def test_objects_that_come_or_go_within_a_gap(visible: range, last: int | None) -> None:
    tracked: dict[int, bool] = {}
    filled = fill(8, tracked, range(9), visible)
    assert list(tracked) == [0, 8]
    for t, mask in filled.items():
        assert rle_decode(mask.counts, SIZE).any() == (t in visible), t
        assert (mask.score > 0) == (t in visible)


def test_auto_tracks_when_the_object_goes_and_else_rarely() -> None:
    tracked: dict[int, bool] = {}
    fill("auto", tracked, range(MAX_GAP + 2), range(20))
    assert list(tracked) == [0, MAX_GAP]
    tracked = {}
    fill("auto", tracked, range(6), range(4))
    assert list(tracked) == [0, 4]


def test_other_objects_than_before_are_tracked() -> None:
    gap = Gap(4, SIZE)
    frame, mask = frame_at(0)
    assert not gap.hold(frame, {1})
    gap.fill(frame, masks_of(mask))
    assert not gap.hold(frame_at(1)[0], {1, 2})
    assert gap.hold(frame_at(1)[0], {1})


def test_frames_without_luma_say_what_to_do() -> None:
    frame = VideoFrame(3, 0.3, np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(MediaError, match=r"frame 3: a stride .* luma"):
        Gap(4, SIZE).fill(frame, [])


class LumaFrames:
    """A source of (T, S, S, 3) images with luma; counts what it holds no longer."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = images
        self.num_frames, self.height, self.width = images.shape[:3]

    def _at(self, i: int) -> VideoFrame:
        return VideoFrame(i, i / 8, self.images[i], np.ascontiguousarray(self.images[i, ..., 1]))

    def forward(self, start: int, stop: int, *, luma: bool = False) -> Iterator[VideoFrame]:
        assert luma
        return (self._at(i) for i in range(start, stop))

    def backward(self, start: int, stop: int, *, luma: bool = False) -> Iterator[VideoFrame]:
        assert luma
        return (self._at(i) for i in range(start, stop, -1))


@pytest.mark.parametrize("stride", [3, "auto"])
def test_a_run_with_a_stride(onnx_tracker: Sam2Tracker, make_clip, stride) -> None:
    """Every frame once, each marked; the frames that wait are never more than the stride allows."""
    images, boxes = make_clip(11)
    prompts = [KeyframePrompt(4, boxes[4, :1]), KeyframePrompt(6, boxes[6, 1:2])]
    run = onnx_tracker.track(LumaFrames(images), prompts, TrackingConfig(stride=stride))
    frames = list(run)
    assert sorted(f.frame_index for f in frames) == list(range(11))
    sources = {f.frame_index: {m.object_id: m.source for m in f.masks} for f in frames}
    assert all(s.keys() == {1, 2} for s in sources.values())
    assert sources[4][1] == "tracked"
    assert sources[6][2] == "tracked"
    kinds = {s for f in sources.values() for s in f.values()}
    assert kinds <= {"tracked", "propagated"}
    if stride == 3:
        assert "propagated" in kinds
    assert run.timings_ms["carry"] > 0
    track = build_tracks(frames, {}, (128, 128))[0]
    assert track.sources == tuple(sources[t][1] for t in range(11))
    assert track.confidences.shape == (11,)


def test_a_stride_of_one_asks_for_no_luma(onnx_tracker: Sam2Tracker, make_clip) -> None:
    images, boxes = make_clip(3)

    class Plain(LumaFrames):
        def forward(self, start: int, stop: int, *, luma: bool = False) -> Iterator[VideoFrame]:
            assert not luma
            return (VideoFrame(i, i / 8, self.images[i]) for i in range(start, stop))

    run = onnx_tracker.track(Plain(images), [KeyframePrompt(0, boxes[0, :1])], TrackingConfig())
    assert [m.source for f in run for m in f.masks] == ["tracked"] * 3


@pytest.mark.parametrize("stride", [0, 33, "fast", 1.5])
def test_bad_strides(stride) -> None:
    with pytest.raises(ValueError, match="stride"):
        TrackingConfig(stride=stride)
