"""Scores of results against the truth of their clips, and how the demo plays and prints them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("omni_sdk.metrics.davis", reason="needs the metrics")
pytest.importorskip("omni_sdk.dus.masks", reason="needs the RLE codec")
mask_utils = pytest.importorskip("pycocotools.mask")

from omni_sdk.cli.demo import describe  # noqa: E402
from omni_sdk.demo import play  # noqa: E402
from omni_sdk.demo.clip import SceneTruth, scene_truth  # noqa: E402
from omni_sdk.demo.evaluate import (  # noqa: E402
    ClipScore,
    format_table,
    score_clip,
    statistic,
    summarise,
)
from omni_sdk.demo.scene import make_scene  # noqa: E402
from omni_sdk.demo.world import STEP_SECONDS, held_out_seed  # noqa: E402
from omni_sdk.dus.tracks import MaskTrack  # noqa: E402
from omni_sdk.media.frames import VideoInfo  # noqa: E402
from omni_sdk.results import Result  # noqa: E402
from omni_sdk.stages import GroundedObject, Keyframe  # noqa: E402

MaskOf = Callable[[int], np.ndarray]


def truth_of(family: str, number: int = 0) -> SceneTruth:
    return scene_truth(make_scene(held_out_seed(family, number), family), size=(96, 96), fps=2)


def track(truth: SceneTruth, mask_of: MaskOf, object_id: int = 1) -> MaskTrack:
    count = truth.num_frames
    rles = [mask_utils.encode(np.asfortranarray(mask_of(t).astype(np.uint8))) for t in range(count)]
    return MaskTrack(
        object_id=object_id,
        label="",
        size=truth.size,
        frame_indices=np.arange(count),
        pts_seconds=np.array(truth.pts_seconds),
        rles=tuple(r["counts"] for r in rles),
        scores=np.ones(count, np.float32),
    )


def answer(truth: SceneTruth, status: str = "found", **changes: object) -> Result:
    height, width = truth.size
    video = VideoInfo("clip.mp4", width, height, truth.num_frames, 2.0, 8.0, True)
    return replace(Result(truth.query, "", "", status, video), **changes)


def keyframe(truth: SceneTruth, *, index: int, description: str | None = None) -> Keyframe:
    """The true span, grounded truly in a frame, of one object (the first answer's span for a wrong one)."""
    spans = dict(truth.scene.answers)
    start, end = spans.get(index, truth.scene.answers[0][1])
    frame = next(t for t in range(8, truth.num_frames) if truth.box(t, index))
    box = np.array(truth.box(frame, index), np.float32)
    return Keyframe(
        start * STEP_SECONDS,
        end * STEP_SECONDS,
        frame_index=frame,
        pts_seconds=truth.pts_seconds[frame],
        description=description or f"a {truth.scene.objects[index].name}",
        objects=(GroundedObject(1, box, ""),),
    )


def true_answer(truth: SceneTruth) -> Result:
    """Every target with its span, a true box and true masks; "absent" where there is none."""
    targets = [index for index, _ in truth.scene.answers]
    return answer(
        truth,
        "found" if targets else "absent",
        keyframes=tuple(keyframe(truth, index=i) for i in targets),
        tracks=tuple(track(truth, lambda t, i=i: truth.mask(t, i), i + 1) for i in targets),
    )


@pytest.mark.parametrize("family", ["last", "two", "occluded", "while"])
def test_the_truth_scores_one(family: str) -> None:
    truth = truth_of(family)
    score = score_clip(true_answer(truth), truth)
    assert score == ClipScore(family, "found", *[1.0] * 8)
    assert score.j_and_f == score.j_and_f_visible == 1.0


def test_one_of_two_answers_is_not_right() -> None:
    truth = truth_of("two")
    whole = true_answer(truth)
    score = score_clip(
        replace(whole, keyframes=whole.keyframes[:1], tracks=whole.tracks[:1]), truth
    )
    assert score.right_description == score.right_object == 0.0
    assert 0 < score.j < 1


def test_an_answer_too_many_is_not_right() -> None:
    truth = truth_of("last")
    whole = true_answer(truth)
    other = next(i for i in range(len(truth.scene.objects)) if i != truth.target)
    both = (*whole.keyframes, keyframe(truth, index=other))
    assert score_clip(replace(whole, keyframes=both), truth).right_description == 0.0


class TrueModels:
    """A pipeline that answers truly, and whose tracker finds the object under its box in every frame."""

    def __init__(self, truth: SceneTruth) -> None:
        self.truth = truth

    def __call__(self, path: Path, query: str, **options: Any) -> Result:
        assert query == self.truth.query
        return true_answer(self.truth)

    def track(self, path: Path, prompts: list[Any], **_: object) -> list[MaskTrack]:
        ((index, box),) = ((p.frame_index, tuple(p.boxes_xyxy[0])) for p in prompts)
        objects = range(len(self.truth.scene.objects))
        found = next(i for i in objects if self.truth.box(index, i) == box)
        return [track(self.truth, lambda t: self.truth.mask(t, found))]


@pytest.mark.parametrize(
    ("family", "told"),
    [
        ("null", "truth:    absent\nscore:    J&F 1.000 (J 1.000, F 1.000)"),
        (
            "two",
            "truth:    a green pole, 0.0-8.0 s; a cyan circle, 4.5-8.0 s\nscore:    J&F 1.000 ",
        ),
        ("occluded", "truth:    a magenta pole, 0.0-8.0 s\nscore:    J&F 1.000 "),
    ],
)
def test_the_demo_tells_every_true_answer(
    family: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(play, "SIZE", (96, 96))
    monkeypatch.setattr(play, "FPS", 2.0)
    models: Any = TrueModels(truth_of(family))
    played = play.play(models, held_out_seed(family, 0), family, tmp_path)
    assert told in describe(played)
    assert played.tracker_j == (None if family == "null" else 1.0)


def test_another_object_is_wrong() -> None:
    truth = truth_of("last")
    other = next(i for i in range(len(truth.scene.objects)) if i != truth.target)
    result = answer(
        truth,
        keyframes=(keyframe(truth, index=other),),
        tracks=(track(truth, lambda t: truth.mask(t, other)),),
    )
    score = score_clip(result, truth)
    assert score.right_object == score.right_description == 0.0
    assert score.j == 2 / 16  # the frames that show neither
    assert score.j_visible is not None
    assert score.j_visible < 0.1
    # The masks decide too: the right words for the wrong object, and the right object in other words.
    words = replace(
        result, keyframes=(keyframe(truth, index=other, description=truth.description),)
    )
    assert score_clip(words, truth).right_object == 1.0
    assert truth.target is not None
    right = track(truth, lambda t: truth.mask(t, truth.target))
    seen = score_clip(replace(result, tracks=(right,)), truth)
    assert (seen.right_object, seen.right_description) == (1.0, 0.0)


def test_tracks_are_scored_as_their_union() -> None:
    truth = truth_of("direct")
    assert truth.target is not None

    def half(t: int, *, left: bool) -> np.ndarray:
        pixels = truth.mask(t, truth.target)
        middle = 48
        pixels[:, slice(middle, None) if left else slice(middle)] = False
        return pixels

    left = track(truth, lambda t: half(t, left=True))
    right = track(truth, lambda t: half(t, left=False), 2)
    assert score_clip(answer(truth, tracks=(left, right)), truth).j == 1.0
    assert score_clip(answer(truth, tracks=(left,)), truth).j < 1.0


def test_empty_frames() -> None:
    """Frames before the target comes count 1 if left empty, and not at all among the visible ones."""
    truth = truth_of("last")
    seen = np.array([truth.mask(t, truth.target).any() for t in range(truth.num_frames)])
    assert 0 < seen.sum() < len(seen)
    nothing = track(truth, lambda t: np.zeros(truth.size, bool))
    score = score_clip(answer(truth, tracks=(nothing,)), truth)
    assert score.j == score.f == pytest.approx(1 - seen.mean())
    assert score.j_visible == score.f_visible == 0.0
    assert score.right_object == 0.0
    assert score_clip(answer(truth), truth).j == score.j  # no track at all is the same


@pytest.mark.parametrize("status", ["absent", "unparsed"])
def test_wrongly_absent_scores_zero(status: str) -> None:
    score = score_clip(answer(truth_of("last"), status), truth_of("last"))
    assert score == ClipScore("last", status, *[0.0] * 8)


@pytest.mark.parametrize(("status", "worth"), [("absent", 1.0), ("found", 0.0), ("unparsed", 0.0)])
def test_clips_without_a_target(status: str, worth: float) -> None:
    truth = truth_of("null")
    score = score_clip(answer(truth, status), truth)
    assert score == ClipScore("null", status, worth, worth, absent_correct=worth)


def test_spans_and_boxes() -> None:
    truth = truth_of("direct")
    assert truth.target is not None
    assert truth.span_seconds is not None
    start, end = truth.span_seconds
    whole = keyframe(truth, index=truth.target)
    middle = (start + end) / 2
    halves = (replace(whole, end_seconds=middle), replace(whole, start_seconds=middle, objects=()))
    score = score_clip(answer(truth, keyframes=halves), truth)
    assert score.span_iou == 1.0
    assert score.keyframe_box_iou == 1.0
    assert score_clip(answer(truth, keyframes=halves[:1]), truth).span_iou == pytest.approx(0.5)
    stray = GroundedObject(2, np.array([0, 0, 1, 1], np.float32), "")
    both = replace(whole, objects=(*whole.objects, stray))
    score = score_clip(answer(truth, keyframes=(both,)), truth)
    assert score.keyframe_box_iou == pytest.approx(0.5)


def test_results_of_another_clip() -> None:
    truth = truth_of("direct")
    other = scene_truth(truth.scene, size=(96, 96), fps=4)
    with pytest.raises(ValueError, match="another clip"):
        score_clip(answer(other), truth)
    small = scene_truth(truth.scene, size=(48, 48), fps=2)
    with pytest.raises(ValueError, match="track 1"):
        score_clip(answer(truth, tracks=(track(small, lambda t: small.mask(t, 0)),)), truth)


def test_summary() -> None:
    scores = [
        ClipScore("last", "found", 0.5, 0.7, 0.4, 0.6, 1.0, 1.0, 0.8, 0.6),
        ClipScore("last", "absent", *[0.0] * 8),
        ClipScore("null", "absent", 1.0, 1.0, absent_correct=1.0),
    ]
    table = summarise(scores)
    assert list(table) == ["last", "null", "all"]
    assert table["last"]["j_and_f"].mean == pytest.approx(0.3)
    assert table["last"]["j_and_f"].standard_error == pytest.approx(0.3)  # .6 / sqrt(2) / sqrt(2)
    assert table["all"]["j_and_f"].count == 3
    assert table["all"]["right_object"].count == 2
    assert set(table["null"]) == {"j_and_f", "j", "f", "absent_correct"}
    assert table["null"]["absent_correct"].standard_error == 0.0
    lines = format_table(table).splitlines()
    assert len(lines) == 4
    assert lines[1].split()[:3] == ["last", "2", "0.300"]
    assert summarise([]) == {"all": {}}
    assert format_table({"all": {}}).splitlines()[1].split()[:2] == ["all", "0"]
    with pytest.raises(ValueError, match="at least one"):
        statistic([])
