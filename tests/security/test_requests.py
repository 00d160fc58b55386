"""The same request gives the same answer, whatever runs beside it, before it, or was given up."""

from __future__ import annotations

import concurrent.futures
import itertools
from pathlib import Path

import pytest

from omni_sdk.config import PipelineConfig, SamplingConfig
from omni_sdk.errors import MediaError
from omni_sdk.events import Frame
from omni_sdk.media.limits import MediaLimits
from omni_sdk.media.source import open_source
from omni_sdk.pipeline import Pipeline

RUNS = 10  # the full count: `python tests/security/requests_helper.py --runs 1000`


@pytest.fixture(scope="session")
def helper(load_helper):
    """Return the module of requests."""
    return load_helper("requests_helper")


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    """Return the shipped models."""
    return Pipeline.from_pretrained("nano", device="cpu", limits=MediaLimits())


@pytest.fixture(scope="module")
def requests(helper, tmp_path_factory) -> list[tuple[Path, str]]:
    """Return two clips with their questions."""
    return helper.write_clips(tmp_path_factory.mktemp("clips"), 64, 1.0)


@pytest.fixture(scope="module")
def alone(helper, pipeline, requests) -> list[str]:
    """Return each request's answer when nothing else runs."""
    answers = [helper.answer(pipeline(*request)) for request in requests]
    assert answers[0] != answers[1]
    return answers


def test_the_same_request_twice(helper, pipeline, requests, alone) -> None:
    assert [helper.answer(pipeline(*request)) for request in requests] == alone


def test_another_pipeline_gives_the_same(helper, requests, alone) -> None:
    other = Pipeline.from_pretrained("nano", device="cpu")
    assert helper.answer(other(*requests[0])) == alone[0]


def test_requests_from_threads_on_one_pipeline(helper, pipeline, requests, alone) -> None:
    order = [0, 1, 1, 0]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        answers = pool.map(lambda i: helper.answer(pipeline(*requests[i])), order)
        assert list(answers) == [alone[i] for i in order]


def test_interleaved_streams(pipeline, requests) -> None:
    """Two streams advanced in turn give what each gives alone, frame by frame."""

    def masks(event) -> object:
        if not isinstance(event, Frame):
            return type(event).__name__
        return event.frame_index, [(m.object_id, m.counts) for m in event.masks]

    single = [[masks(e) for e in pipeline.stream(*request)] for request in requests]
    streams = [pipeline.stream(*request) for request in requests]
    both: list[list[object]] = [[], []]
    for events in itertools.zip_longest(*streams):
        for got, event in zip(both, events, strict=True):
            if event is not None:
                got.append(masks(event))
    assert both == single


@pytest.mark.parametrize("events", [0, 1, 4])
def test_a_good_request_after_one_that_was_given_up(
    helper, pipeline, requests, alone, events
) -> None:
    files = helper.open_files()
    helper.abandon(pipeline, *requests[1], events)
    assert helper.open_files() == files
    assert helper.answer(pipeline(*requests[0])) == alone[0]


def test_a_good_request_after_failed_ones(helper, pipeline, requests, alone, tmp_path) -> None:
    (tmp_path / "bad.mp4").write_bytes(requests[0][0].read_bytes()[:700])
    files = helper.open_files()
    for source, query in ((tmp_path / "bad.mp4", "x"), (requests[0][0], ""), ("nowhere.mp4", "x")):
        with pytest.raises(Exception, match=r".") as caught:
            pipeline(source, query)
        assert type(caught.value).__module__ == "omni_sdk.errors"
    assert helper.open_files() == files
    assert helper.answer(pipeline(*requests[0])) == alone[0]


def test_options_of_one_request_do_not_reach_another(helper, pipeline, requests, alone) -> None:
    pipeline(
        *requests[0], config=PipelineConfig(sampling=SamplingConfig(num_frames=4, audio=False))
    )
    assert helper.answer(pipeline(*requests[0])) == alone[0]


def test_a_walk_that_outlives_its_video(helper, requests) -> None:
    files = helper.open_files()
    with open_source(requests[0][0]) as video:
        walk = video.forward(0, len(video))
        next(walk)
        back = video.backward(len(video) - 1, -1)
        next(back)
    assert helper.open_files() == files
    for late in (walk, back):
        with pytest.raises(MediaError, match="is closed"):
            list(late)


def test_file_handles_and_memory_return(helper, pipeline, requests) -> None:
    rows = helper.repeat(pipeline, requests, RUNS)
    assert rows[-1][1] == rows[0][1]
    assert rows[-1][2] - rows[0][2] < 16, rows
