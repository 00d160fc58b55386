"""A detail system judges answers: grounder and tracker run on each, the masks are scored as results are.

Models often answer a clip alike. Within a clip, what was asked of the detail system once (frames and
descriptions) is not asked again, whichever model said it.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from typing import Any

from omni_sdk import Pipeline
from omni_sdk.config import TrackingConfig
from omni_sdk.demo.clip import SceneTruth, scene_truth
from omni_sdk.demo.evaluate import ClipScore, score_clip
from omni_sdk.dus.keyframes import choose_keyframes, labels_of
from omni_sdk.dus.system import Boxes, DetailSystem, Found, in_time_order, with_ids
from omni_sdk.dus.tracks import MaskTrack, build_tracks
from omni_sdk.errors import ModelOutputError
from omni_sdk.grs.parser import parse_answer
from omni_sdk.media.frames import VideoInfo
from omni_sdk.results import Result
from omni_sdk.stages import Keyframe
from omni_sdk.utils.files import write_json

from omni_training.data.world import WorldClip, share_encodings, world_clock, world_scene
from omni_training.experiment.files import Experiment, read_json
from omni_training.experiment.settings import (
    CLIP_FRAME_SIDE,
    ExperimentError,
    JudgeSettings,
)
from omni_training.workers.scorer import ClipScorer, images_of

CACHE_BYTES = 256 << 20
Tracked = tuple[list[tuple[int, ...]], tuple[MaskTrack, ...]]


def open_judge(settings: JudgeSettings) -> DetailSystem:
    """Load a detail system; one CPU thread, since jobs run side by side.

    Raises:
        ExperimentError: it lacks a grounder or a tracker.
        OmniError: it cannot be loaded.
    """
    if settings.tracker is None:
        pipeline = Pipeline.from_pretrained(settings.path, threads=1)
    else:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        pipeline = Pipeline.from_pretrained(
            settings.path, backend="torch", device=device, tracker=settings.tracker
        )
    if pipeline.grounder is None or pipeline.tracker is None:
        raise ExperimentError(f"{settings.path} lacks a grounder or a tracker; a judge needs both")
    return DetailSystem(
        pipeline.grounder,
        share_encodings(pipeline.tracker, CACHE_BYTES),
        TrackingConfig(second_looks=settings.second_looks),
    )


def judge_scorer(*, path: str, tracker: str | None, max_clips: int) -> ClipScorer:
    """Make an arm's reward worker (a `workers.factory`)."""
    judge = open_judge(JudgeSettings(path, tracker))
    return ClipScorer(partial(_clip, judge), judge.grounder, judge.tracker, max_clips=max_clips)


def _clip(judge: DetailSystem, name: str) -> WorldClip:
    assert judge.tracker is not None  # `open_judge` saw to it
    return WorldClip(name, size=CLIP_FRAME_SIDE, tracker_size=judge.tracker.image_size)


def judge_shard(experiment: Experiment, judge_name: str, shard: int) -> None:
    """Score every model's answers on one shard of the clips."""
    started = time.process_time()
    judge = open_judge(experiment.settings.judges[judge_name])
    answers = {m: read_json(experiment.answers(m))["answers"] for m in experiment.settings.models()}
    scores: dict[str, dict[str, Any]] = {model: {} for model in answers}
    asked = 0
    for clip in experiment.shards[shard]:
        evaluator = ClipEvaluator(judge, clip)
        for model, texts in answers.items():
            scores[model][clip] = score_dict(evaluator.score(texts[clip]))
        asked += evaluator.asked
    write_json(
        experiment.scores(judge_name, shard),
        {
            "judge": judge_name,
            "cpu_seconds": time.process_time() - started,
            "detail_runs": asked,
            "scores": scores,
        },
    )


class ClipEvaluator:
    """Scores answers about one clip; equal questions to the detail system are asked once.

    Attributes:
        asked: runs of the detail system so far.
    """

    def __init__(self, judge: DetailSystem, clip: str) -> None:
        """Render nothing yet; `clip` is a sample's name."""
        self.asked = 0
        self._judge = judge
        self._clip = _clip(judge, clip)
        self._clock = world_clock()
        size = (CLIP_FRAME_SIDE, CLIP_FRAME_SIDE)
        self._truth: SceneTruth = scene_truth(world_scene(clip), size=size, fps=2.0)
        self._video = VideoInfo(
            clip, *size, self._clock.num_frames, 2.0, self._clock.duration_seconds, has_audio=True
        )
        self._boxes: dict[tuple[int, str], Boxes] = {}
        self._held: dict[tuple[tuple[int, str], ...], Tracked] = {}

    def score(self, text: str) -> ClipScore:
        """Score one completion as `omni_sdk.demo.evaluate` scores results."""
        return score_clip(self.result(text), self._truth)

    def result(self, text: str) -> Result:
        """Return what the pipeline would make of a completion, with the judge's second looks."""
        try:
            parsed = parse_answer(text, self._clock.duration_seconds)
        except ModelOutputError:
            return Result(self._truth.query, "", text, "unparsed", self._video)
        config = self._judge.config
        chosen = choose_keyframes(parsed.segments, self._clock, config.max_keyframes)
        found = in_time_order(
            self._judge.ground(
                self._judge.looks(chosen, self._clock), images_of(self._clip), memo=self._boxes
            )
        )
        object_ids, tracks = self._track(found) if found else ([], ())
        keyframes = with_ids(found, object_ids)
        # As in `omni_sdk.pipeline`: moments in which the grounder finds nothing are an absent target.
        status = "found" if tracks else "absent"
        return Result(
            self._truth.query,
            parsed.thinking,
            parsed.answer,
            status,
            self._video,
            keyframes,
            tracks,
        )

    def _track(self, found: list[Found[Keyframe]]) -> Tracked:
        """Return the object ids of what was found, and the tracks; equal findings are tracked once."""
        key = tuple((f.look.frame_index, f.look.description) for f in found)
        if key not in self._held:
            self.asked += 1
            with self._judge.track(found, self._clip.frames) as run:
                frames = list(run)
            labels = labels_of(with_ids(found, run.object_ids))
            size = (CLIP_FRAME_SIDE, CLIP_FRAME_SIDE)
            self._held[key] = run.object_ids, build_tracks(frames, labels, size)
        return self._held[key]


def score_dict(score: ClipScore) -> dict[str, Any]:
    """Return a score as JSON values, J&F included."""
    return asdict(score) | {"j_and_f": score.j_and_f}
