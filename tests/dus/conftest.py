"""A tiny random SAM 2 of the real classes, exported once, and clips for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omni_export.sam2_graphs import export_tracker
from transformers import Sam2VideoModel

from omni_sdk.bundle import bundle as bundles
from omni_sdk.bundle.bundle import Bundle
from omni_sdk.bundle.manifest import SCHEMA_VERSION, Manifest
from omni_sdk.dus.sam2.tracker import Sam2Tracker
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.hf.tracker import HfTracker

SIDE = 128


@pytest.fixture(scope="session")
def checkpoint(sam2_checkpoint: Path) -> Path:
    return sam2_checkpoint


@pytest.fixture(scope="session")
def model(checkpoint: Path) -> Sam2VideoModel:
    return Sam2VideoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()


def export(checkpoint: Path, directory: Path, **options: bool) -> Bundle:
    """Export a checkpoint into a complete, verified bundle that holds a tracker only."""
    loader = OnnxLoader("cpu", threads=1)
    spec, graphs, rows = export_tracker(checkpoint, directory, loader=loader, **options)
    manifest = Manifest(
        SCHEMA_VERSION, "tiny", "0", "", "", {}, {}, graphs, dus=spec, parity=tuple(rows)
    )
    bundles.write_manifest(directory, manifest)
    return Bundle.open(directory)


@pytest.fixture(scope="session")
def export_bundle() -> Callable[..., Bundle]:
    return export


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(checkpoint, tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def onnx_tracker(bundle: Bundle) -> Sam2Tracker:
    return Sam2Tracker.open(OnnxLoader("cpu", threads=1), bundle)


@pytest.fixture(scope="session")
def torch_tracker(checkpoint: Path) -> HfTracker:
    return HfTracker.from_checkpoint(checkpoint)


@pytest.fixture(scope="session", params=["onnx", "torch"])
def tracker(request: pytest.FixtureRequest) -> Sam2Tracker:
    found: Sam2Tracker = request.getfixturevalue(f"{request.param}_tracker")
    return found


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """(T, S, S, 3) uint8 of three textured squares that move, and their (T, 3, 4) boxes."""

    def build(num_frames: int, side: int = SIDE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        coarse = rng.uniform(60, 160, (side // 8, side // 8, 3))
        ground = coarse.repeat(8, 0).repeat(8, 1)
        images = np.empty((num_frames, side, side, 3), np.uint8)
        boxes = np.empty((num_frames, 3, 4), np.float32)
        objects = [
            (0.1, 0.2, 0.012, 0.006, 0.25, (230, 60, 40)),
            (0.6, 0.5, -0.008, 0.004, 0.2, (30, 40, 200)),
            (0.3, 0.65, 0.004, -0.01, 0.18, (60, 220, 90)),
        ]
        for t in range(num_frames):
            image = ground.copy()
            for n, (x, y, vx, vy, size, colour) in enumerate(objects):
                edge = int(size * side)
                x0, y0 = (int((p + v * t) * side) % (side - edge) for p, v in ((x, vx), (y, vy)))
                stripes = 25 * np.sin(np.arange(edge) / (side / 64))
                image[y0 : y0 + edge, x0 : x0 + edge] = np.array(colour) + stripes[None, :, None]
                boxes[t, n] = x0, y0, x0 + edge, y0 + edge
            images[t] = image.clip(0, 255)
        return images, boxes

    return build
