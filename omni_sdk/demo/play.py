"""Play clips of the world through a pipeline: real files in, scores out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omni_sdk.config import PipelineConfig
from omni_sdk.demo.clip import SceneTruth, write_clip
from omni_sdk.demo.evaluate import ClipScore, score_clip
from omni_sdk.demo.scene import make_scene
from omni_sdk.metrics.davis import region_similarity
from omni_sdk.pipeline import Pipeline
from omni_sdk.results import Result
from omni_sdk.stages import KeyframePrompt

SIZE = (384, 384)
FPS = 8.0
FORGIVING = PipelineConfig(on_parse_error="empty")


@dataclass(frozen=True, slots=True)
class Played:
    """One clip, what the pipeline said of it, and what that is worth.

    Attributes:
        path: the clip, an mp4 file with sound.
        truth: of the clip.
        result: of the pipeline.
        score: of the result.
        tracker_j: mean J over a target's visible frames when the tracker is given its true box on the first
            frame that shows at least half of it, mean over the targets; None where nothing answers the query.
    """

    path: Path
    truth: SceneTruth
    result: Result
    score: ClipScore
    tracker_j: float | None


def play(
    pipeline: Pipeline,
    seed: int,
    family: str,
    directory: Path,
    *,
    config: PipelineConfig = FORGIVING,
    with_true_box: bool = True,
) -> Played:
    """Write a clip, ask the pipeline its question, and score the answer.

    Args:
        pipeline: to be tried.
        seed: of the scene.
        family: of the query; one of `omni_sdk.demo.world.FAMILIES`.
        directory: where the clip is written; must exist.
        config: options; an answer that cannot be read raises or scores 0, as they say.
        with_true_box: also measure the tracker alone.
    """
    path = directory / f"{family}_{seed}.mp4"
    truth = write_clip(make_scene(seed, family), path, size=SIZE, fps=FPS)
    result = pipeline(path, truth.query, config=config)
    targets = [index for index, _ in truth.scene.answers] if with_true_box else []
    js = [_tracker_j(pipeline, path, truth, target, config) for target in targets]
    tracker_j = float(np.mean(js)) if js else None
    return Played(path, truth, result, score_clip(result, truth), tracker_j)


def _tracker_j(
    pipeline: Pipeline, path: Path, truth: SceneTruth, target: int, config: PipelineConfig
) -> float:
    masks = list(truth.masks(target))
    areas = np.array([m.sum() for m in masks])
    prompt = int(np.flatnonzero(areas >= 0.5 * areas.max())[0])
    box = np.array([truth.box(prompt, target)], np.float32)
    (track,) = pipeline.track(path, [KeyframePrompt(prompt, box)], config=config)
    visible = np.flatnonzero(areas)
    return float(np.mean([region_similarity(track.mask_at(int(t)), masks[t]) for t in visible]))
