"""Decoding beside the tracker: the same answers, and no thread left behind however a run ends."""

import dataclasses
import threading

import pytest

from omni_sdk import Pipeline
from omni_sdk.config import PipelineConfig, TrackingConfig
from omni_sdk.errors import EngineError, LimitError
from omni_sdk.events import Frame
from omni_sdk.media.file_video import FileVideo
from omni_sdk.media.frame_source import FRAMES_AHEAD, VideoFrameSource
from omni_sdk.utils.timing import Stopwatch


def _threads():
    return [t for t in threading.enumerate() if t.name == "omni-sdk prefetch"]


def _plain(result):
    value = result.to_dict()
    del value["timings_ms"]
    return value


@pytest.mark.parametrize(("family", "stride"), [("last", 1), ("sound", 4), ("null", 1)])
def test_the_same_answer(pipe: Pipeline, clips, family, stride):
    path, truth = clips[family]
    found = [
        pipe(
            path,
            truth.query,
            config=PipelineConfig(overlap=overlap, tracking=TrackingConfig(stride=stride)),
        )
        for overlap in (True, False)
    ]
    assert _plain(found[0]) == _plain(found[1])
    assert found[1].timings_ms.overlapped == 0.0
    assert not _threads()


def test_encoding_ahead(pipe: Pipeline, clips):
    """Forward and backward walks, several objects, prompts in the middle; a stride leaves it off."""
    for family, stride in (("last", 1), ("leaves", 1), ("sound", 4)):
        path, truth = clips[family]
        found = [
            pipe(
                path,
                truth.query,
                config=PipelineConfig(tracking=TrackingConfig(stride=stride, encode_ahead=ahead)),
            )
            for ahead in (True, False)
        ]
        assert _plain(found[0]) == _plain(found[1])
        assert not _threads()


@pytest.mark.parametrize("ahead", [False, True])
def test_left_early(pipe: Pipeline, clips, ahead):
    path, truth = clips["direct"]
    config = PipelineConfig(tracking=TrackingConfig(encode_ahead=ahead))
    for count in (1, 2, 3, 40):
        stream = pipe.stream(path, truth.query, config=config)
        for _ in range(count):
            next(stream)
        stream.close()
        assert not _threads()


@pytest.mark.parametrize("ahead", [False, True])
def test_an_encoder_that_fails(pipe: Pipeline, clips, monkeypatch, ahead):
    """The error is the encoder's own, wherever it ran, and no thread is left even while it is held."""
    path, truth = clips["direct"]
    graphs = pipe.tracker._graphs
    encode, calls = type(graphs).encode, []

    def failing(self, image):
        calls.append(image)
        if len(calls) == 4:
            raise EngineError("the device is gone")
        return encode(self, image)

    monkeypatch.setattr(type(graphs), "encode", failing)
    config = PipelineConfig(tracking=TrackingConfig(encode_ahead=ahead))
    with pytest.raises(EngineError, match="the device is gone"):
        pipe(path, truth.query, config=config)
    assert not _threads()


def test_a_tracker_that_fails(pipe: Pipeline, clips):
    class Failing:
        image_size = pipe.tracker.image_size

        def track(self, frames, prompts, config):
            run = pipe.tracker.track(frames, prompts, config)

            class Run:
                object_ids, timings_ms = run.object_ids, run.timings_ms

                def __iter__(self):
                    for n, frame in enumerate(run):
                        if n == 3:
                            raise EngineError("the device is gone")
                        yield frame

            return Run()

    path, truth = clips["direct"]
    broken = dataclasses.replace(pipe, tracker=Failing())
    with pytest.raises(EngineError, match="the device is gone"):
        broken(path, truth.query)
    assert not _threads()


def _kept(events, stream):
    """Append what comes until it fails."""
    for event in stream:
        events.append(event)
    return []


@pytest.mark.parametrize("at", [0, 1, 7])
def test_a_source_that_fails(pipe: Pipeline, clips, monkeypatch, at):
    """What is raised in the decoding thread reaches the caller as it is, in its place."""
    whole = FileVideo.forward

    def failing(self, *arguments, **options):
        for n, frame in enumerate(whole(self, *arguments, **options)):
            if n == at:
                raise LimitError("decoding took longer than max_wall_seconds=0")
            yield frame

    path, truth = clips["direct"]
    plain = PipelineConfig(tracking=TrackingConfig(backward=False))
    monkeypatch.setattr(FileVideo, "forward", failing)
    events = []
    with pytest.raises(LimitError, match="max_wall_seconds"):
        events.extend(_kept(events, pipe.stream(path, truth.query, config=plain)))
    assert sum(isinstance(event, Frame) for event in events) == at
    assert not _threads()


def test_what_is_held_is_bounded(pipe: Pipeline, clips):
    path, _ = clips["direct"]
    watch = Stopwatch()
    with pipe._open(path, watch) as video:
        with VideoFrameSource(video, 64, watch, overlap=True) as frames:
            walk = frames.forward(0, 64)
            assert next(walk).frame_index == 0
            (ahead,) = frames._ahead
            assert len(ahead._items) <= FRAMES_AHEAD
        assert not _threads()
        assert [f.frame_index for f in walk] == []  # ended with its context
    assert watch.timings().decode > 0
