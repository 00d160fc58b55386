"""What a run does with prompts, ids and frames; masks are compared in test_tracker.py."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from omni_export.sam2_graphs import write_graphs
from omni_export.sam2_parity import ArrayFrameSource

from omni_sdk.config import TrackingConfig
from omni_sdk.dus.boxes import mask_box
from omni_sdk.dus.masks import rle_decode
from omni_sdk.dus.sam2.propagation import Output
from omni_sdk.dus.sam2.tracker import Sam2Tracker
from omni_sdk.errors import MediaError, PromptError
from omni_sdk.media.frames import VideoFrame
from omni_sdk.stages import KeyframePrompt

CONFIG = TrackingConfig()
SIZE = (128, 128)


@pytest.fixture(scope="module")
def clip(make_clip) -> tuple[np.ndarray, np.ndarray]:
    return make_clip(10)


def _rectangle(x0: int, y0: int, x1: int, y1: int, score: float = 1.0) -> Output:
    """An object whose mask on the 128 x 128 frame is a rectangle (multiples of 4: one low-res cell)."""
    logits = np.full((32, 32), -9, np.float32)
    logits[y0 // 4 : y1 // 4, x0 // 4 : x1 // 4] = 9
    return Output(logits, np.zeros(128, np.float32), score, prompted=False)


def test_boxes_are_matched_with_the_masks_tracked_there(onnx_tracker: Sam2Tracker, clip) -> None:
    """By the greatest sum of IoU; below match_iou, of an absent object, or of a click: a new object."""
    tracked = {
        1: _rectangle(0, 0, 40, 40),
        2: _rectangle(20, 0, 60, 40),
        5: _rectangle(80, 80, 120, 120),
        6: _rectangle(0, 80, 40, 120, score=-1.0),
    }
    boxes = np.array(
        [
            [20, 0, 60, 40],  # is 2
            [8, 0, 46, 40],  # is nearer to 1 than to 2
            [100, 100, 128, 128],  # overlaps 5 by less than 0.5
            [0, 80, 40, 120],  # 6 is absent
        ],
        np.float32,
    )
    click = (np.array([[20, 20]], np.float32), np.array([1]))
    prompt = KeyframePrompt(5, boxes)
    clicked = KeyframePrompt(6, points=(click,))
    reserved = KeyframePrompt(7, boxes[:1], object_ids=(3,))
    run = onnx_tracker.track(ArrayFrameSource(clip[0]), [prompt, clicked, reserved], CONFIG)
    with_boxes, with_click, _ = run._waiting_prompts
    assert run._matched_ids(with_boxes, tracked) == (2, 1, 4, 7)
    assert run._matched_ids(with_click, tracked) == (4,)


def test_a_match_conditions_its_object_again(onnx_tracker: Sam2Tracker, clip) -> None:
    """The same as naming the object."""
    images, boxes = clip
    first = KeyframePrompt(2, boxes[2, :2], object_ids=(1, 2))
    alone = list(onnx_tracker.track(ArrayFrameSource(images), [first], CONFIG))
    (there,) = (f for f in alone if f.frame_index == 6)
    box = mask_box(rle_decode(there.masks[0].counts, SIZE))
    assert box is not None
    matched = onnx_tracker.track(
        ArrayFrameSource(images), [first, KeyframePrompt(6, box[None])], CONFIG
    )
    found = {f.frame_index: f for f in matched}
    (target,) = matched.object_ids[1]
    assert target in (1, 2)
    again = KeyframePrompt(6, box[None], object_ids=(target,))
    named = {
        f.frame_index: f
        for f in onnx_tracker.track(ArrayFrameSource(images), [first, again], CONFIG)
    }
    scores = [[m.score for t in range(10) for m in f[t].masks] for f in (found, named)]
    # One object less was tracked on frame 6, so that batches differ in size: float32 noise.
    np.testing.assert_allclose(*scores, atol=1e-2)
    before = {f.frame_index: f for f in alone}
    for t in range(10):
        a, b = (next(m for m in f[t].masks if m.object_id == target) for f in (before, found))
        assert (a.score == pytest.approx(b.score, abs=1e-6)) == (2 <= t < 6), t


def test_an_unmatched_box_is_a_new_object_with_a_free_id(onnx_tracker: Sam2Tracker, clip) -> None:
    images, boxes = clip
    prompts = [
        KeyframePrompt(0, boxes[0, :1]),
        KeyframePrompt(3, np.array([[0, 0, 5, 5]], np.float32)),
        KeyframePrompt(5, boxes[5, :1], object_ids=(2,)),
    ]
    run = onnx_tracker.track(ArrayFrameSource(images), prompts, CONFIG)
    list(run)
    assert run.object_ids == [(1,), (3,), (2,)], "2 is the caller's"


def test_two_prompts_on_one_frame(onnx_tracker: Sam2Tracker, clip) -> None:
    """The second names an object that the first has just made: one object, conditioned once."""
    images, boxes = clip
    once = onnx_tracker.track(ArrayFrameSource(images), [KeyframePrompt(4, boxes[4, :1])], CONFIG)
    frames = list(once)
    (frame,) = (f for f in frames if f.frame_index == 4)
    box = mask_box(rle_decode(frame.masks[0].counts, SIZE))
    assert box is not None
    twice = onnx_tracker.track(
        ArrayFrameSource(images),
        [KeyframePrompt(4, boxes[4, :1]), KeyframePrompt(4, box[None])],
        CONFIG,
    )
    assert list(twice) == frames
    assert twice.object_ids == [(1,), (1,)]


def test_without_backward_only_what_follows_a_prompt(onnx_tracker: Sam2Tracker, clip) -> None:
    images, boxes = clip
    prompts = [
        KeyframePrompt(3, boxes[3, :1], object_ids=(1,)),
        KeyframePrompt(6, boxes[6, 1:2], object_ids=(2,)),
    ]
    run = onnx_tracker.track(ArrayFrameSource(images), prompts, TrackingConfig(backward=False))
    found = {f.frame_index: [m.object_id for m in f.masks] for f in run}
    assert found == {t: [1] if t < 6 else [1, 2] for t in range(3, 10)}


def test_frames_come_as_soon_as_they_are_complete(onnx_tracker: Sam2Tracker, clip) -> None:
    """A later prompt that can start no object holds nothing back."""
    images, boxes = clip
    again = [KeyframePrompt(t, boxes[t, :1], object_ids=(1,)) for t in (0, 8)]
    read: list[int] = []

    class Watched(ArrayFrameSource):
        def forward(self, start: int, stop: int, *, luma: bool = False) -> Iterator[VideoFrame]:
            for frame in super().forward(start, stop, luma=luma):
                read.append(frame.frame_index)
                yield frame

    run = iter(onnx_tracker.track(Watched(images), again, CONFIG))
    assert next(run).frame_index == 0
    assert read == [0]
    free = [again[0], KeyframePrompt(8, boxes[8, 1:2])]
    assert next(iter(onnx_tracker.track(Watched(images), free, CONFIG))).frame_index == 8


def test_a_source_that_ends_early(onnx_tracker: Sam2Tracker, clip) -> None:
    """Frames that never come are missing; a prompt on one of them is an error."""
    images, boxes = clip

    class Short(ArrayFrameSource):
        def __init__(self, images: np.ndarray) -> None:
            super().__init__(images)
            self.num_frames = 14

        def forward(self, start: int, stop: int, *, luma: bool = False) -> Iterator[VideoFrame]:
            return super().forward(start, min(stop, 10), luma=luma)

    run = onnx_tracker.track(Short(images), [KeyframePrompt(4, boxes[4])], CONFIG)
    assert sorted(f.frame_index for f in run) == list(range(10))
    prompts = [KeyframePrompt(4, boxes[4]), KeyframePrompt(12, boxes[4])]
    with pytest.raises(MediaError, match="frame 12 holds a prompt, but the source ended"):
        list(onnx_tracker.track(Short(images), prompts, CONFIG))


def test_a_source_that_cannot_go_back(onnx_tracker: Sam2Tracker, clip) -> None:
    """Frames that do not come a second time keep the objects found going forward."""
    images, boxes = clip

    class OneWay(ArrayFrameSource):
        def backward(self, start: int, stop: int, *, luma: bool = False) -> Iterator[VideoFrame]:
            return iter(())

    prompts = [
        KeyframePrompt(2, boxes[2, :1], object_ids=(1,)),
        KeyframePrompt(5, boxes[5, 1:2], object_ids=(2,)),
    ]
    run = onnx_tracker.track(OneWay(images), prompts, CONFIG)
    found = {f.frame_index: [m.object_id for m in f.masks] for f in run}
    assert found == {t: [1] if t < 5 else [1, 2] for t in range(2, 10)}


BOX = np.array([[1, 1, 20, 20]], np.float32)
NO_BOX = np.zeros((0, 4), np.float32)


def _click(x: float, y: float, label: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    return ((np.array([[x, y]], np.float32), np.array([label])),)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "nothing to track"),
        ([KeyframePrompt(0, NO_BOX)], "nothing to track"),
        ([KeyframePrompt(10, BOX)], "frame 10 is outside the source, which has frames 0 to 9"),
        ([KeyframePrompt(-1, BOX)], "frame -1 is outside"),
        ([KeyframePrompt(3, -BOX)], r"prompt 0 \(frame 3\): box 0 .* inverted"),
        ([KeyframePrompt(3, BOX * np.nan)], "not finite"),
        ([KeyframePrompt(3, BOX + 500)], "outside the frame of 128 x 128 pixels"),
        ([KeyframePrompt(3, BOX, object_ids=(1, 2))], "1 different ids"),
        ([KeyframePrompt(3, BOX, object_ids=(0,))], "ids from 1"),
        ([KeyframePrompt(3, np.repeat(BOX, 2, 0), object_ids=(4, 4))], "2 different ids"),
        ([KeyframePrompt(3, BOX, points=(None, None))], "2 sets of points for 1 boxes"),
        ([KeyframePrompt(3)], "nothing to track"),
        ([KeyframePrompt(3, object_ids=(1,))], "object 0 has neither a box nor a click"),
        ([KeyframePrompt(3, points=(None,))], "object 0 has neither a box nor a click"),
        ([KeyframePrompt(3, points=_click(5, 1, 1), object_ids=(1, 2))], "1 different ids"),
        ([KeyframePrompt(3, points=(5,))], "object 0: expected .* points"),  # type: ignore[arg-type]
        ([KeyframePrompt(3, points=BOX)], "object 0: expected .* points"),  # type: ignore[arg-type]
        ([KeyframePrompt(3, BOX * np.inf, points=_click(5, 1, 1))], "not finite"),
        ([KeyframePrompt(3, BOX[0], points=_click(5, 1, 1))], r"shape \(N, 4\), got \(4,\)"),
        ([KeyframePrompt(3, points=_click(np.inf, 1, 1))], "not all inside"),
        ([KeyframePrompt(3, BOX[0])], r"shape \(N, 4\), got \(4,\)"),
        ([KeyframePrompt(3, BOX * np.nan, points=_click(5, 1, 1))], "not finite"),
        ([KeyframePrompt(3, BOX * 0, points=_click(5, 1, 1))], "inverted or empty"),
        ([KeyframePrompt(3, BOX, points=_click(500, 1, 1))], "not all inside"),
        ([KeyframePrompt(3, BOX, points=_click(np.nan, 1, 1))], "not all inside"),
        ([KeyframePrompt(3, BOX, points=_click(5, 1, 2))], "labels must be"),
        ([KeyframePrompt(3, np.repeat(BOX, 300, 0))], "300 boxes in one run; at most 256"),
    ],
)
def test_refuses_prompts(
    onnx_tracker: Sam2Tracker, clip, prompts: list[KeyframePrompt], message: str
) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(PromptError, match=message):
        onnx_tracker.track(ArrayFrameSource(clip[0]), prompts, CONFIG)


def test_memory_does_not_grow_with_the_clip(make_model, tmp_path, make_clip) -> None:
    """300 and 1,200 frames, two objects, forward and backward, on a model of 64 pixels."""
    from omni_sdk.bundle.bundle import Bundle, write_manifest
    from omni_sdk.bundle.manifest import SCHEMA_VERSION, Manifest
    from omni_sdk.engines.onnx import OnnxLoader
    from omni_sdk.hf.sam2_checkpoint import dus_spec

    model = make_model(64)
    spec = dus_spec(model, tmp_path)
    graphs = write_graphs(model, spec, tmp_path)
    write_manifest(
        tmp_path, Manifest(SCHEMA_VERSION, "tiny", "0", "", "", {}, {}, graphs, dus=spec)
    )
    tracker = Sam2Tracker.open(OnnxLoader("cpu", threads=1), Bundle.open(tmp_path))
    images, boxes = make_clip(8, 64)

    class Endless(ArrayFrameSource):
        def __init__(self, num_frames: int) -> None:
            super().__init__(images)
            self.num_frames = num_frames

        def forward(self, start: int, stop: int, *, luma: bool = False) -> Iterator[VideoFrame]:
            return (VideoFrame(i, i / 8, images[i % 8]) for i in range(start, stop))

        def backward(self, start: int, stop: int, *, luma: bool = False) -> Iterator[VideoFrame]:
            return (VideoFrame(i, i / 8, images[i % 8]) for i in range(start, stop, -1))

    def most_held(num_frames: int) -> int:
        prompts = [KeyframePrompt(num_frames // 2, boxes[0, :2])]
        held, count = [], 0
        tracemalloc.start()
        for count, _ in enumerate(tracker.track(Endless(num_frames), prompts, CONFIG), 1):
            if count % (num_frames // 5) == 0:
                gc.collect()  # also empties the interpreter's free lists, which are bounded
                held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert count == num_frames
        return max(held)

    most_held(40)  # what is loaded once
    short, long = most_held(300), most_held(1200)
    # One frame's memories of the two objects are 16 tokens x 64 channels x 4 bytes x 2 = 8 KiB: 7 MiB
    # for 900 frames. Measured: 163 KB and 163 KB.
    assert long - short < 16 << 10, (short, long)
