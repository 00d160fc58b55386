"""A tiny clip and one measured report that the tests share."""

import pytest

from omni_sdk.bench.measure import Case, measure
from omni_sdk.bench.report import SettingsReport
from omni_sdk.demo.clip import write_clip
from omni_sdk.demo.scene import make_scene
from omni_sdk.pipeline import Pipeline


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    truth = write_clip(make_scene(5400000, "sound"), path, size=(96, 96), fps=1.0)
    return path, truth.query


@pytest.fixture(scope="session")
def pipeline():
    return Pipeline.from_pretrained("nano", device="cpu")


@pytest.fixture(scope="session")
def report(clip, pipeline):
    path, query = clip
    said = []
    report = measure(
        pipeline,
        [Case(str(path), query)],
        SettingsReport(warm_up=1, runs=2, audio=True, num_frames=None),
        progress=said.append,
    )
    assert len(said) == 3
    return report
