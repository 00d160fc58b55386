"""The whole system on real files: decode, GRS, grounder, tracker, writers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from omni_sdk import Pipeline
from omni_sdk.config import GenerationConfig, PipelineConfig, SamplingConfig, TrackingConfig
from omni_sdk.demo.clip import SceneTruth
from omni_sdk.demo.evaluate import score_clip
from omni_sdk.errors import (
    BundleError,
    MediaError,
    ModelOutputError,
    OmniError,
    OptionError,
    PromptError,
    QueryError,
    ResultError,
)
from omni_sdk.events import Finished, Frame, Grounded, Reasoned
from omni_sdk.results import Result
from omni_sdk.stages import KeyframePrompt

Clips = dict[str, tuple[Path, SceneTruth]]


@pytest.fixture(scope="session")
def results(pipe: Pipeline, clips: Clips) -> dict[str, Result]:
    return {family: pipe(path, truth.query) for family, (path, truth) in clips.items()}


def test_finds_the_right_objects(results: dict[str, Result], clips: Clips) -> None:
    """One held-out clip of each family; the shipped model names .88 to 1.0 of a family's right."""
    asked = [family for family, (_, truth) in clips.items() if truth.target is not None]
    scores = [score_clip(results[family], clips[family][1]) for family in asked]
    assert len(scores) == 10
    assert np.mean([score.right_description for score in scores]) >= 0.8
    assert np.mean([score.span_iou for score in scores]) > 0.7
    assert np.mean([score.j_and_f_visible for score in scores]) > 0.5
    true = [clips[f][1].answer.split("<answer>")[1].removesuffix("</answer>") for f in asked]
    assert any(results[f].answer == answer for f, answer in zip(asked, true, strict=True))


def test_two_answers_are_two_tracks(results: dict[str, Result]) -> None:
    result = results["two"]
    assert len(result.keyframes) == len(result.tracks) == 2
    assert len({k.description for k in result.keyframes}) == 2
    assert {track.object_id for track in result.tracks} == {1, 2}


def test_says_absent_when_nothing_matches(results: dict[str, Result], clips: Clips) -> None:
    result = results["null"]
    assert (result.status, result.keyframes, result.tracks) == ("absent", (), ())
    assert score_clip(result, clips["null"][1]).absent_correct == 1.0


def test_what_is_hidden_in_the_middle_of_its_moment_is_found(
    pipe: Pipeline, results: dict[str, Result], clips: Clips
) -> None:
    path, truth = clips["occluded"]
    once = PipelineConfig(tracking=TrackingConfig(second_looks=0))
    hidden, found = pipe(path, truth.query, config=once), results["occluded"]
    assert (hidden.status, hidden.tracks, len(hidden.keyframes)) == ("absent", (), 1)
    assert hidden.answer == found.answer
    assert found.status == "found"
    assert score_clip(found, truth).keyframe_box_iou > 0.5
    assert score_clip(found, truth).j > score_clip(hidden, truth).j


def test_second_looks_change_nothing_that_is_found_at_once(
    pipe: Pipeline, results: dict[str, Result], clips: Clips
) -> None:
    path, truth = clips["direct"]
    once = PipelineConfig(tracking=TrackingConfig(second_looks=0))
    assert _untimed(pipe(path, truth.query, config=once)) == _untimed(results["direct"])


def test_every_frame_has_a_mask(results: dict[str, Result]) -> None:
    result = results["last"]
    (track,) = result.tracks
    assert track.frame_indices.tolist() == list(range(64))
    np.testing.assert_allclose(track.pts_seconds, np.arange(64) / 8, atol=1e-3)
    assert track.mask_at(40).shape == (192, 192)
    (keyframe,) = result.keyframes
    assert keyframe.objects[0].object_id == track.object_id
    assert track.label == keyframe.description
    x0, y0, x1, y1 = keyframe.objects[0].box_xyxy
    inside = track.mask_at(keyframe.frame_index)[int(y0) : int(y1), int(x0) : int(x1)]
    assert inside.sum() > 0.8 * track.mask_at(keyframe.frame_index).sum()


def test_the_same_request_twice_gives_the_same_answer(
    pipe: Pipeline, results: dict[str, Result], clips: Clips
) -> None:
    path, truth = clips["direct"]
    assert _untimed(pipe(path, truth.query)) == _untimed(results["direct"])


def test_timings_add_up(results: dict[str, Result]) -> None:
    times = results["direct"].timings_ms
    beside = ("total", "overlapped", "carry")
    parts = [getattr(times, name) for name in times.__slots__ if name not in beside]
    assert times.overlapped > 0  # decoding went on beside the tracker
    assert times.carry == 0.0  # every frame is tracked at stride 1
    assert all(part > 0 for part in parts)
    assert 0.7 * times.total < sum(parts) <= 1.01 * times.total


def test_streaming_gives_what_a_call_gives(
    pipe: Pipeline, results: dict[str, Result], clips: Clips, tmp_path: Path
) -> None:
    path, truth = clips["sound"]
    events = list(pipe.stream(path, truth.query))
    assert [type(e) for e in events[:2]] == [Reasoned, Grounded]
    assert isinstance(events[-1], Finished)
    frames = [e for e in events if isinstance(e, Frame)]
    assert len(events) == len(frames) + 3
    assert sorted(f.frame_index for f in frames) == list(range(64))
    whole = results["sound"].tracks[0]
    for frame in frames:
        np.testing.assert_array_equal(frame.mask_of(1), whole.mask_at(frame.frame_index))
    with pytest.raises(KeyError, match="has no object 7"):
        frames[0].mask_of(7)
    with pytest.raises(ResultError, match="Finished"):
        events[-1].result.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
    ended = events[-1].result.to_dict() | {"tracks": []}
    whole_result = results["sound"].to_dict() | {"tracks": []}
    assert ended["keyframes"] == whole_result["keyframes"]
    assert ended["video"] == whole_result["video"]


def test_a_stream_may_be_left_early(pipe: Pipeline, clips: Clips) -> None:
    path, truth = clips["direct"]
    stream = pipe.stream(path, truth.query)
    for _ in range(5):
        next(stream)
    stream.close()
    assert pipe.reason(path, truth.query).status == "found"


def test_stages_on_their_own(pipe: Pipeline, results: dict[str, Result], clips: Clips) -> None:
    path, truth = clips["leaves"]
    reasoned = pipe.reason(path, truth.query)
    assert reasoned.thinking == results["leaves"].thinking
    grounded = pipe.ground(path, reasoned.keyframes)
    prompts = [
        KeyframePrompt(k.frame_index, np.stack([b.box_xyxy for b in boxes]))
        for k, boxes in zip(grounded.keyframes, grounded.boxes, strict=True)
    ]
    (track,) = pipe.track(path, prompts, labels={1: "mine"})
    assert track.label == "mine"
    assert track.rles == results["leaves"].tracks[0].rles


def test_boxes_of_the_caller(pipe: Pipeline, clips: Clips) -> None:
    path, truth = clips["direct"]
    assert truth.target is not None
    box = truth.box(48, truth.target)
    (track,) = pipe.track(
        path,
        [KeyframePrompt(48, np.array([box], np.float32))],
        config=PipelineConfig(tracking=TrackingConfig(backward=False)),
    )
    assert track.frame_indices.tolist() == list(range(48, 64))
    true, found = truth.mask(52, truth.target), track.mask_at(52)
    assert (true & found).sum() / (true | found).sum() > 0.6


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "at least one prompt"),
        ([KeyframePrompt(64, np.array([[1, 1, 9, 9]], np.float32))], "64"),
        ([KeyframePrompt(0, np.array([[9, 9, 1, 1]], np.float32))], "box"),
        ([KeyframePrompt(0, np.array([[1, 1, np.nan, 9]], np.float32))], "box"),
        ([KeyframePrompt(0, np.array([[500, 500, 600, 600]], np.float32))], "box"),
    ],
    ids=["none", "frame", "inverted", "nan", "outside"],
)
def test_prompts_that_make_no_sense(
    pipe: Pipeline, clips: Clips, prompts: list[KeyframePrompt], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        pipe.track(clips["direct"][0], prompts)


def test_a_config_of_one_stage_is_refused_by_every_call(pipe: Pipeline, clips: Clips) -> None:
    path, truth = clips["direct"]
    prompt = KeyframePrompt(0, np.array([[1, 1, 9, 9]], np.float32))
    calls: list[Callable[..., object]] = [
        lambda config: pipe(path, truth.query, config=config),
        lambda config: next(pipe.stream(path, truth.query, config=config)),
        lambda config: pipe.ask(path, truth.query, config=config),
        lambda config: pipe.reason(path, truth.query, config=config),
        lambda config: pipe.track(path, [prompt], config=config),
    ]
    for call in calls:
        with pytest.raises(OptionError, match=r"TrackingConfig.*PipelineConfig\(tracking=\.\.\.\)"):
            call(TrackingConfig())
        with pytest.raises(OptionError, match=r"PipelineConfig\(generation=\.\.\.\)"):
            call(GenerationConfig())
        with pytest.raises(OmniError, match=r"expected a PipelineConfig or None, got dict$"):
            call({})


def test_labels_of_ids_that_the_run_cannot_have(
    pipe: Pipeline, clips: Clips, caplog: pytest.LogCaptureFixture
) -> None:
    path, _ = clips["direct"]
    box = np.array([[60, 60, 120, 120]], np.float32)
    short = PipelineConfig(tracking=TrackingConfig(backward=False))
    named = [KeyframePrompt(62, box, object_ids=(4,))]
    with pytest.raises(PromptError, match=r"labels name \[1, 7\], but the prompts give \[4\]"):
        pipe.track("nowhere.mp4", named, labels={7: "a", 4: "b", 1: "c"}, config=short)
    (track,) = pipe.track(path, named, labels={4: "b"}, config=short)
    assert (track.object_id, track.label, caplog.text) == (4, "b", "")
    (track,) = pipe.track(path, [KeyframePrompt(62, box)], labels={1: "a", 9: "z"}, config=short)
    assert track.label == "a"
    assert "labels name [9], which this run did not have; its objects are [1]" in caplog.text


def test_ask_answers_in_words(pipe: Pipeline, clips: Clips) -> None:
    path, truth = clips["direct"]
    reply = pipe.ask(path, truth.query)
    assert reply.segments == ()
    assert reply.thinking.strip()
    assert reply.answer.strip()


def test_frames_and_images_are_sources(pipe: Pipeline, clips: Clips, tmp_path: Path) -> None:
    path, truth = clips["direct"]
    with av.open(str(path)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    result = pipe(frames, truth.query)
    assert result.video.num_frames == 64
    assert not result.video.has_audio
    assert result.bundle is not None
    image = tmp_path / "frame.png"
    with av.open(str(image), "w", format="image2") as out:
        stream = out.add_stream("png", rate=1)
        stream.height, stream.width, stream.pix_fmt = 192, 192, "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(frames[44], format="rgb24")))
        out.mux(stream.encode(None))
    assert truth.target is not None
    (track,) = pipe.track(
        image, [KeyframePrompt(0, np.array([truth.box(44, truth.target)], np.float32))]
    )
    assert len(track) == 1
    true, found = truth.mask(44, truth.target), track.mask_at(0)
    assert (true & found).sum() / (true | found).sum() > 0.6
    still = pipe(image, truth.query, config=PipelineConfig(on_parse_error="empty"))
    assert still.video.num_frames == 1


def test_no_sound_and_fewer_frames(pipe: Pipeline, clips: Clips) -> None:
    path, truth = clips["direct"]
    config = PipelineConfig(sampling=SamplingConfig(num_frames=8, audio=False))
    assert pipe.reason(path, truth.query, config=config).status in ("found", "absent")


def test_fast_pixels_give_the_same_answer(pipe: Pipeline, clips: Clips) -> None:
    """All stages: patches for the reasoner, images for the grounder and the tracker."""
    path, truth = clips["direct"]
    exact = pipe(path, truth.query)
    fast = pipe(path, truth.query, config=PipelineConfig(sampling=SamplingConfig(pixels="fast")))
    assert (fast.status, fast.answer) == (exact.status, exact.answer)
    assert [len(track) for track in fast.tracks] == [len(track) for track in exact.tracks] == [64]
    true, found = exact.tracks[0].mask_at(44), fast.tracks[0].mask_at(44)
    assert (true & found).sum() / (true | found).sum() > 0.9
    assert fast.to_dict()["tracks"] != exact.to_dict()["tracks"]  # it was not the exact path again


def test_text_that_holds_no_answer(pipe: Pipeline, clips: Clips) -> None:
    path, truth = clips["direct"]
    short = GenerationConfig(max_new_tokens=3)
    with pytest.raises(ModelOutputError, match="cut at 3 tokens"):
        pipe(path, truth.query, config=PipelineConfig(generation=short))
    config = PipelineConfig(generation=short, on_parse_error="empty")
    result = pipe(path, truth.query, config=config)
    assert (result.status, result.tracks) == ("unparsed", ())


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("x" * 10_000, "10000 characters"),
        ("the\x00circle", "U\\+0000"),
        ("\x1b[31mred", "U\\+001B"),
    ],
    ids=["empty", "blank", "long", "nul", "escape"],
)
def test_queries_that_are_none(pipe: Pipeline, clips: Clips, query: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        pipe(clips["direct"][0], query)


def test_a_file_that_is_not_there(pipe: Pipeline) -> None:
    with pytest.raises(MediaError, match="no such file"):
        pipe("nowhere.mp4", "the circle")


@pytest.mark.parametrize("name", ["nowhere", "no/such/place", "../nano"])
def test_a_model_that_is_not_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNI_SDK_CACHE", str(tmp_path))
    with pytest.raises(BundleError):
        Pipeline.from_pretrained(name, local_files_only=True)


def test_unknown_keywords_raise() -> None:
    for make in (SamplingConfig, GenerationConfig, TrackingConfig, PipelineConfig):
        constructor: Callable[..., object] = make
        with pytest.raises(TypeError, match="unexpected keyword"):
            constructor(no_such_option=1)
    with pytest.raises(ValueError, match="backend must be one of"):
        Pipeline.from_pretrained("nano", backend="caffe")


@pytest.mark.parametrize(
    "make",
    [
        lambda: SamplingConfig(num_frames=0),
        lambda: SamplingConfig(pixels="quick"),
        lambda: SamplingConfig(parity="quick"),
        lambda: SamplingConfig(pixels="fast", parity="hf"),
        lambda: GenerationConfig(max_new_tokens=0),
        lambda: GenerationConfig(temperature=float("nan")),
        lambda: GenerationConfig(top_p=0),
        lambda: GenerationConfig(stop=("",)),
        lambda: TrackingConfig(max_keyframes=0),
        lambda: TrackingConfig(second_looks=-1),
        lambda: TrackingConfig(second_looks=5),
        lambda: TrackingConfig(max_conditioning=0),
        lambda: TrackingConfig(match_iou=0),
        lambda: PipelineConfig(on_parse_error="ignore"),
    ],
)
def test_options_out_of_range(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="must"):
        make()


def test_parity_is_an_older_name_of_pixels() -> None:
    assert SamplingConfig(parity="hf") == SamplingConfig(pixels="exact") == SamplingConfig()
    fast = SamplingConfig(parity="fast")
    assert fast == SamplingConfig(pixels="fast") == SamplingConfig(pixels="fast", parity="fast")
    assert dataclasses.replace(fast, num_frames=3) == SamplingConfig(3, pixels="fast")


def test_saving(results: dict[str, Result], tmp_path: Path) -> None:
    result = results["direct"]
    folder = result.save(tmp_path / "out")
    value = json.loads((folder / "result.json").read_text())
    assert value == json.loads(json.dumps(result.to_dict()))
    assert Result.load(folder).to_dict() == value
    masks = sorted((folder / "masks").iterdir())
    assert [m.name for m in masks] == [f"{i:05d}.png" for i in range(64)]
    image = pytest.importorskip("PIL.Image")
    for index in (0, 30, 63):
        labels = np.asarray(image.open(masks[index]))
        np.testing.assert_array_equal(labels == 1, result.tracks[0].mask_at(index))
    with av.open(str(folder / "overlay.mp4")) as container:
        assert len(container.streams.audio) == 1
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == 64
    assert frames[0].shape == (192, 192, 3)


def test_saving_an_absent_answer(results: dict[str, Result], tmp_path: Path) -> None:
    folder = results["null"].save(tmp_path)
    assert (folder / "overlay.mp4").stat().st_size > 0
    assert not (folder / "masks").exists()
    assert json.loads((folder / "result.json").read_text())["tracks"] == []


def _untimed(result: Result) -> dict[str, object]:
    value = result.to_dict()
    del value["timings_ms"]
    return value
