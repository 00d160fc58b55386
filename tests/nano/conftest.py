"""Both nano trainings at a tiny size: the real classes and all stages at a few thousand parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def thinker_config() -> Any:
    """Return a configuration whose training takes seconds."""
    from omni_training.nano.thinker.config import ThinkerConfig, ThinkerSizes, ThinkerStage

    return ThinkerConfig(
        seed=3,
        sizes=ThinkerSizes(
            hidden=32, layers=3, heads=2, kv_heads=1, intermediate=64, vision_hidden=32, vision_depth=1,
            vision_heads=2, vision_intermediate=48, audio_hidden=32, image_pixels=112,
        ),
        dense=ThinkerStage(steps=4, learning_rate=2e-3, warmup=2, report=2),
        sound=ThinkerStage(steps=2, learning_rate=2e-3, warmup=1, report=2),
        text=ThinkerStage(steps=2, learning_rate=2e-3, warmup=1, report=2),
        sft=ThinkerStage(steps=5, learning_rate=2e-3, warmup=1, report=5),
        polish=ThinkerStage(steps=7, learning_rate=2e-3, warmup=1, report=7),
        pairs=4, images=2, sounds=2, texts=4, texts_beside=2, drills=2, clips=2, frames=2, descriptions=3,
        early=(0.4,), development_clips=4, development_frames=3,
    )  # fmt: skip


@pytest.fixture(scope="session")
def tracker_config() -> Any:
    """Return a configuration whose training takes seconds."""
    from omni_training.nano.tracker.config import TrackerConfig, TrackerSizes, TrackerStage

    hard = {"clips": 1, "objects": 2, "frames": (4, 6), "warmup": 0.1, "own_presence_share": 0.5}
    return TrackerConfig(
        sizes=TrackerSizes(
            image_size=96, channels=128, widths=(8, 16, 24, 32), blocks=(1, 1, 1, 1), heads=(1, 1, 2, 2)
        ),
        box=TrackerStage(
            steps=15, clips=6, objects=3, frames=(1, 1), learning_rate=3e-3, warmup=0.1, balance=(1.0, 0.8)
        ),
        clip=TrackerStage(
            steps=4, clips=2, objects=2, frames=(2, 4), learning_rate=5e-4, warmup=0.1,
            own_presence_share=0.5, single_frame_share=0.3,
        ),
        long=TrackerStage(steps=2, learning_rate=3e-4, crossing_share=0.5, **hard),
        hidden=TrackerStage(steps=2, learning_rate=3e-4, crossing_share=0.7, **hard),
        evaluation_clips=1,
    )  # fmt: skip


@pytest.fixture(scope="session")
def trained_thinker(thinker_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished training."""
    from omni_training.nano.loop import train
    from omni_training.nano.thinker.task import ThinkerTask

    folder = tmp_path_factory.mktemp("trained")
    assert train(ThinkerTask(thinker_config, folder), folder) == folder / "thinker"
    return folder


@pytest.fixture(scope="session")
def trained_tracker(tracker_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished training."""
    from omni_training.nano.loop import train
    from omni_training.nano.tracker.task import TrackerTask

    folder = tmp_path_factory.mktemp("trained")
    assert train(TrackerTask(tracker_config), folder) == folder / "tracker"
    return folder
