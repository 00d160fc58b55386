"""The tracker against transformers' own session, one object per session (see Note [One run])."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from omni_export.sam2_parity import (
    ArrayFrameSource,
    SessionPrompt,
    normalise,
    session_track,
    upsample,
)
from transformers import Sam2VideoModel

from omni_sdk.config import TrackingConfig
from omni_sdk.dus.masks import rle_decode
from omni_sdk.dus.sam2.tracker import Sam2Tracker
from omni_sdk.stages import FrameMasks, KeyframePrompt

ENOUGH = TrackingConfig(max_conditioning=16)
# Both sides round memories to bfloat16. Float32 sums in another order differ by 1e-6, which now and then
# puts a value on the other side of a rounding boundary: one unit (2^-8) in a memory, up to 2e-3 in logits of
# this model (up to 0.05 with trained weights). So masks may differ in boundary pixels, and scores a little.
MIN_IOU = 0.99
SCORE_TOLERANCE = 1e-2

Found = dict[int, FrameMasks]
Expected = dict[int, tuple[np.ndarray, float]]
Reference = Callable[..., Expected]


@pytest.fixture(scope="session")
def reference(model: Sam2VideoModel, onnx_tracker: Sam2Tracker) -> Reference:
    """One object, by transformers."""

    def run(images: np.ndarray, prompts: Sequence[SessionPrompt]) -> Expected:
        return session_track(model, normalise(onnx_tracker._graphs, images), prompts)

    return run


def track(
    tracker: Sam2Tracker,
    images: np.ndarray,
    prompts: list[KeyframePrompt],
    config: TrackingConfig = ENOUGH,
) -> tuple[Found, list[tuple[int, ...]]]:
    run = tracker.track(ArrayFrameSource(images), prompts, config)
    frames = list(run)
    found = {f.frame_index: f for f in frames}
    assert len(found) == len(frames), "each frame once"
    assert all(value > 0 for value in run.timings_ms.values())
    assert set(run.timings_ms) == {"encode", "propagate", "mask"}
    return found, run.object_ids


def assert_same(found: Found, object_id: int, expected: Expected, size: tuple[int, int]) -> None:
    assert sorted(found) == sorted(expected)
    covered = 0
    for index, (logits, score) in expected.items():
        (ours,) = (m for m in found[index].masks if m.object_id == object_id)
        mask, target = rle_decode(ours.counts, size), upsample(logits, size) > 0
        union = (mask | target).sum()
        iou = (mask & target).sum() / union if union else 1.0
        assert iou >= MIN_IOU, (index, iou)
        assert ours.score == pytest.approx(score, abs=SCORE_TOLERANCE), index
        covered += mask.sum()
    assert covered > 0, "a comparison of empty masks shows nothing"


def corners(frame: int, box: np.ndarray) -> SessionPrompt:
    return SessionPrompt(frame, box.reshape(2, 2), np.array([2, 3]))


def prompt(frame: int, boxes: np.ndarray, **options: object) -> KeyframePrompt:
    return KeyframePrompt(frame, boxes, **options)  # type: ignore[arg-type]


def test_forward_and_backward(tracker: Sam2Tracker, reference: Reference, make_clip) -> None:
    images, boxes = make_clip(22)
    for start in (0, 9, 21):
        found, ids = track(tracker, images, [prompt(start, boxes[start, :1])])
        assert ids == [(1,)]
        assert [f.pts_seconds for f in found.values()] == [i / 8 for i in found]
        order = [*range(start, 22), *range(start - 1, -1, -1)]
        assert list(found) == order, "in order of completion"
        assert_same(found, 1, reference(images, [corners(start, boxes[start, 0])]), (128, 128))


def test_objects_on_several_keyframes(
    tracker: Sam2Tracker, reference: Reference, make_clip
) -> None:
    """Objects 1 and 2 start on frame 4; 2 is prompted again and 3 starts on frame 11."""
    images, boxes = make_clip(20)
    prompts = [
        prompt(11, boxes[11, 1:], object_ids=(2, 3)),
        prompt(4, boxes[4, :2], object_ids=(1, 2)),
    ]
    found, ids = track(tracker, images, prompts)
    assert ids == [(2, 3), (1, 2)]
    assert all([m.object_id for m in f.masks] == [1, 2, 3] for f in found.values())
    assert list(found) == [*range(11, 20), *range(10, -1, -1)]
    at = {4: boxes[4], 11: boxes[11]}
    for object_id, starts in {1: (4,), 2: (4, 11), 3: (11,)}.items():
        session = [corners(t, at[t][object_id - 1]) for t in starts]
        assert_same(found, object_id, reference(images, session), (128, 128))


def test_limited_conditioning(
    tracker: Sam2Tracker, model: Sam2VideoModel, reference: Reference, make_clip, monkeypatch
) -> None:
    """Four prompts, two memories of them: transformers' max_cond_frame_num, with the pointers limited
    as well, as in Meta's code (see Note [What differs from transformers])."""
    images, boxes = make_clip(16)
    starts = (2, 4, 7, 10)
    upstream = Sam2VideoModel._get_object_pointers

    def selected_only(self, session, obj_idx, frame_idx, *args, **kwargs):  # type: ignore[no-untyped-def]
        outputs = session.output_dict_per_obj[obj_idx]
        everything = outputs["cond_frame_outputs"]
        chosen, _ = self._select_closest_cond_frames(
            frame_idx, everything, self.config.max_cond_frame_num
        )
        outputs["cond_frame_outputs"] = chosen
        try:
            return upstream(self, session, obj_idx, frame_idx, *args, **kwargs)
        finally:
            outputs["cond_frame_outputs"] = everything

    monkeypatch.setattr(Sam2VideoModel, "_get_object_pointers", selected_only)
    monkeypatch.setattr(model.config, "max_cond_frame_num", 2)
    prompts = [prompt(t, boxes[t, :1], object_ids=(1,)) for t in starts]
    limited, _ = track(tracker, images, prompts, TrackingConfig(max_conditioning=2))
    expected = reference(images, [corners(t, boxes[t, 0]) for t in starts])
    assert_same(limited, 1, expected, (128, 128))
    free, _ = track(tracker, images, prompts, ENOUGH)
    assert [free[t].masks[0].score for t in range(12, 16)] != [
        limited[t].masks[0].score for t in range(12, 16)
    ]


@pytest.mark.parametrize(
    "labels", [[1], [1, 0], [1, 1, 0]], ids=["one click: best of three", "two", "three"]
)
def test_clicks(tracker: Sam2Tracker, reference: Reference, make_clip, labels: list[int]) -> None:
    images, boxes = make_clip(9)
    x0, y0, x1, y1 = boxes[3, 0]
    xy = np.array([[(x0 + x1) / 2, (y0 + y1) / 2], [4, 4], [9, 100]], np.float32)[: len(labels)]
    clicks = ((xy, np.array(labels)),)
    found, ids = track(tracker, images, [KeyframePrompt(3, points=clicks)])
    assert ids == [(1,)]
    assert_same(found, 1, reference(images, [SessionPrompt(3, xy, np.array(labels))]), (128, 128))


@pytest.mark.parametrize("labels", [[1], [0, 1]], ids=["one click", "two"])
def test_a_box_and_clicks_are_one_prompt(
    tracker: Sam2Tracker, reference: Reference, make_clip, labels: list[int]
) -> None:
    """In the order of transformers' `process_new_points_or_boxes_for_video_frame`."""
    images, boxes = make_clip(9)
    box = boxes[3, 0]
    x0, y0, x1, y1 = box
    xy = np.array([[(x0 + x1) / 2, (y0 + y1) / 2], [4, 4]], np.float32)[: len(labels)]
    given = prompt(3, box[None], points=((xy, np.array(labels)),))
    both = SessionPrompt(3, np.concatenate([box.reshape(2, 2), xy]), np.array([2, 3, *labels]))
    expected = reference(images, [both])
    for other in (corners(3, box), SessionPrompt(3, xy, np.array(labels))):
        without = reference(images, [other])
        assert not np.allclose(expected[3][0], without[3][0], atol=SCORE_TOLERANCE)
    found, ids = track(tracker, images, [given])
    assert ids == [(1,)]
    assert_same(found, 1, expected, (128, 128))


def test_source_larger_than_the_trackers_image(onnx_tracker: Sam2Tracker, make_clip) -> None:
    """Boxes scale down, masks scale up, each axis on its own."""
    images, boxes = make_clip(3)

    class Wide(ArrayFrameSource):
        def __init__(self, images: np.ndarray) -> None:
            super().__init__(images)
            self.height, self.width = 96, 320

    scale = np.array([320 / 128, 96 / 128] * 2, np.float32)
    square, _ = track(onnx_tracker, images, [prompt(0, boxes[0])])
    run = onnx_tracker.track(Wide(images), [prompt(0, boxes[0] * scale)], ENOUGH)
    for frame in run:
        for a, b in zip(frame.masks, square[frame.frame_index].masks, strict=True):
            assert a.score == pytest.approx(b.score, abs=1e-4)
            wide, narrow = rle_decode(a.counts, (96, 320)), rle_decode(b.counts, (128, 128))
            assert wide.mean() == pytest.approx(narrow.mean(), abs=0.02)


def test_batches_do_not_change_the_masks(onnx_tracker: Sam2Tracker, make_clip) -> None:
    images, boxes = make_clip(6)
    prompts = [prompt(1, boxes[1]), prompt(3, boxes[3], object_ids=(7, 8, 9))]
    one_by_one = Sam2Tracker(onnx_tracker._graphs, attention_bytes=1)
    a, _ = track(onnx_tracker, images, prompts)
    b, _ = track(one_by_one, images, prompts)
    for index in a:
        for x, y in zip(a[index].masks, b[index].masks, strict=True):
            assert x.object_id == y.object_id
            assert x.score == pytest.approx(y.score, abs=SCORE_TOLERANCE)


def test_same_request_same_answer(tracker: Sam2Tracker, make_clip) -> None:
    images, boxes = make_clip(5)
    prompts = [prompt(2, boxes[2])]
    assert track(tracker, images, prompts) == track(tracker, images, prompts)


def test_absent_object_has_an_empty_mask(make_model, make_clip) -> None:
    from omni_sdk.hf.sam2_checkpoint import dus_spec
    from omni_sdk.hf.tracker import HfTracker

    absent = make_model()
    with torch.no_grad():
        absent.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(-50.0)
    images, boxes = make_clip(4)
    found, _ = track(
        HfTracker.from_model(absent, dus_spec(absent, "nowhere")), images, [prompt(1, boxes[1])]
    )
    masks = [m for f in found.values() for m in f.masks]
    assert len(masks) == 12
    assert all(m.score < 0 and not rle_decode(m.counts, (128, 128)).any() for m in masks)
