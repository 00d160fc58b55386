"""A detail system judges answers: grounder and tracker run on each, the masks are scored as results are.

Models often answer a clip alike. Within a clip, what was asked of the detail system once (frames and
descriptions) is not asked again, whichever model said it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from omni_sdk import Pipeline
from omni_sdk.config import TrackingConfig
from omni_sdk.demo.clip import ClipTruth, clip_truth
from omni_sdk.demo.evaluate import ClipScore, score_clip
from omni_sdk.dus.keyframes import choose_keyframes, make_prompts, with_objects
from omni_sdk.dus.tracks import MaskTrack, build_tracks
from omni_sdk.errors import ModelOutputError
from omni_sdk.grs.parser import parse_answer
from omni_sdk.media.frames import VideoInfo
from omni_sdk.results import Result
from omni_sdk.stages import Grounder, Keyframe, Tracker
from omni_sdk.utils.files import write_json

from omni_training.data.world import WorldClip, share_encodings, world_clock, world_scene
from omni_training.experiment.files import Experiment, read_json
from omni_training.experiment.settings import (
    CLIP_FRAME_SIDE,
    ExperimentError,
    JudgeSettings,
)
from omni_training.workers.scorer import ClipScorer

CACHE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Judge:
    """A grounder and a tracker."""

    grounder: Grounder
    tracker: Tracker


def open_judge(settings: JudgeSettings) -> Judge:
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
    return Judge(pipeline.grounder, share_encodings(pipeline.tracker, CACHE_BYTES))


def judge_scorer(*, path: str, tracker: str | None, max_clips: int) -> ClipScorer:
    """Make an arm's reward worker (a `workers.factory`)."""
    judge = open_judge(JudgeSettings(path, tracker))
    side = judge.tracker.image_size
    return ClipScorer(
        lambda name: WorldClip(name, size=CLIP_FRAME_SIDE, tracker_size=side),
        judge.grounder,
        judge.tracker,
        max_clips=max_clips,
    )


def judge_shard(experiment: Experiment, judge_name: str, shard: int) -> None:
    """Score every model's answers on one shard of the clips."""
    started = time.process_time()
    judge = open_judge(experiment.settings.judges[judge_name])
    answers = {m: read_json(experiment.answers(m))["answers"] for m in experiment.settings.models()}
    scores: dict[str, dict[str, Any]] = {model: {} for model in answers}
    asked = 0
    for clip in experiment.shards[shard]:
        court = ClipCourt(judge, clip)
        for model, texts in answers.items():
            scores[model][clip] = score_dict(court.score(texts[clip]))
        asked += court.asked
    write_json(
        experiment.scores(judge_name, shard),
        {
            "judge": judge_name,
            "cpu_seconds": time.process_time() - started,
            "detail_runs": asked,
            "scores": scores,
        },
    )


class ClipCourt:
    """Judges answers about one clip; equal questions to the detail system are asked once.

    Attributes:
        asked: runs of the detail system so far.
    """

    def __init__(self, judge: Judge, clip: str) -> None:
        """Render nothing yet; `clip` is a sample's name."""
        self.asked = 0
        self._judge = judge
        side = judge.tracker.image_size
        self._clip = WorldClip(clip, size=CLIP_FRAME_SIDE, tracker_size=side)
        self._clock = world_clock()
        size = (CLIP_FRAME_SIDE, CLIP_FRAME_SIDE)
        self._truth: ClipTruth = clip_truth(world_scene(clip), size=size, fps=2.0)
        self._video = VideoInfo(
            clip, *size, self._clock.num_frames, 2.0, self._clock.duration_seconds, has_audio=True
        )
        self._held: dict[
            tuple[tuple[int, str], ...], tuple[tuple[Keyframe, ...], tuple[MaskTrack, ...]]
        ] = {}

    def score(self, text: str) -> ClipScore:
        """Score one completion as `omni_sdk.demo.evaluate` scores results."""
        return score_clip(self.result(text), self._truth)

    def result(self, text: str) -> Result:
        """Return what the pipeline would make of a completion, without second looks."""
        try:
            parsed = parse_answer(text, self._clock.duration_seconds)
        except ModelOutputError:
            return Result(self._truth.query, "", text, "unparsed", self._video)
        keyframes = choose_keyframes(parsed.segments, self._clock, TrackingConfig().max_keyframes)
        found, tracks = self._detail(keyframes)
        # As in `omni_sdk.pipeline`: moments in which the grounder finds nothing are an absent target.
        status = "found" if tracks else "absent"
        return Result(
            self._truth.query, parsed.thinking, parsed.answer, status, self._video, found, tracks
        )

    def _detail(
        self, keyframes: tuple[Keyframe, ...]
    ) -> tuple[tuple[Keyframe, ...], tuple[MaskTrack, ...]]:
        """Ground and track; the keyframes keep their own spans."""
        if not keyframes:
            return (), ()
        key = tuple((k.frame_index, k.description) for k in keyframes)
        if key not in self._held:
            self._held[key] = self._run(keyframes)
        filled, tracks = self._held[key]
        own = tuple(replace(k, objects=f.objects) for k, f in zip(keyframes, filled, strict=True))
        return own, tracks

    def _run(
        self, keyframes: tuple[Keyframe, ...]
    ) -> tuple[tuple[Keyframe, ...], tuple[MaskTrack, ...]]:
        self.asked += 1
        images = [self._clip.image(k.frame_index) for k in keyframes]
        boxes = self._judge.grounder.ground(images, [k.description for k in keyframes])
        prompts, places = make_prompts(keyframes, boxes)
        if not prompts:
            return keyframes, ()
        run = self._judge.tracker.track(self._clip.frames, prompts, TrackingConfig())
        frames = list(run)
        filled = with_objects(keyframes, boxes, places, run.object_ids)
        labels = {o.object_id: o.label for k in filled[::-1] for o in k.objects}
        return filled, build_tracks(frames, labels, (CLIP_FRAME_SIDE, CLIP_FRAME_SIDE))


def score_dict(score: ClipScore) -> dict[str, Any]:
    """Return a score as JSON values, J&F included."""
    return asdict(score) | {"j_and_f": score.j_and_f}
