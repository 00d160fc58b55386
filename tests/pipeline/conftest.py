"""The shipped bundle and a few generated clips, real mp4 files with sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_sdk import Pipeline
from omni_sdk.demo.clip import SceneTruth, write_clip
from omni_sdk.demo.scene import make_scene
from omni_sdk.demo.world import FAMILIES, held_out_seed

SIZE = (192, 192)
FPS = 8.0


@pytest.fixture(scope="session")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained("nano", device="cpu")


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, SceneTruth]]:
    """One held-out clip per family."""
    folder = tmp_path_factory.mktemp("clips")
    made = {}
    for family in FAMILIES:
        path = folder / f"{family}.mp4"
        scene = make_scene(held_out_seed(family, 0), family)
        made[family] = path, write_clip(scene, path, size=SIZE, fps=FPS)
    return made
