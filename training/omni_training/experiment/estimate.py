"""What an experiment will cost, measured on this machine before it starts."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from omni_training.experiment.answers import answer_clips
from omni_training.experiment.arm import build_arm
from omni_training.experiment.control import seconds_per_step
from omni_training.experiment.files import Experiment
from omni_training.experiment.judge import ClipEvaluator, open_judge
from omni_training.experiment.settings import ARMS, CONTROL, FULL, ExperimentSettings

PROBE_STEPS = 3
PROBE_CLIPS = 12
PROCESS_SECONDS = 15.0
"""CPU seconds that a process spends on imports and loading."""
DISTINCT_SHARE = 0.35
"""Share of the models' answers about a clip that differ in what they ask the detail system."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """CPU seconds of the parts of an experiment.

    Attributes:
        per_step: arm -> CPU seconds of one step.
        training: of all runs.
        answering: of all models' answers.
        judging: of all judges.
        processes: of starting the jobs.
    """

    per_step: dict[str, float]
    training: float
    answering: float
    judging: float
    processes: float

    @property
    def total(self) -> float:
        """CPU seconds of the whole."""
        return self.training + self.answering + self.judging + self.processes

    def lines(self, jobs: int) -> list[str]:
        """Return the estimate as lines of text."""
        rows = [
            f"  {arm:<14}{seconds:6.2f} CPU s per step" for arm, seconds in self.per_step.items()
        ]
        parts = {
            "training": self.training,
            "answers": self.answering,
            "judging": self.judging,
            "processes": self.processes,
            "all": self.total,
        }
        rows += [f"  {name:<14}{seconds / 60:6.1f} CPU min" for name, seconds in parts.items()]
        wall = self.total / jobs / 3600
        return ["measured:", *rows, f"about {wall:.1f} h with --jobs {jobs} on idle cores"]


def estimate(settings: ExperimentSettings) -> Estimate:
    """Measure a few steps, answers and judgements, and scale them up; takes about two minutes."""
    with tempfile.TemporaryDirectory() as folder:
        probe = Experiment(Path(folder), replace(settings, steps=PROBE_STEPS))
        per_step = {arm: _arm_seconds(probe, arm) for arm in ARMS}
        per_step[CONTROL] = seconds_per_step(probe, settings.seeds[0])
    # Probe clips are spread over the families as the real ones are.
    clips = settings.clips()[:PROBE_CLIPS]
    answers, seconds = answer_clips(settings.start, clips, settings.completion_tokens)
    per_answer = seconds / len(clips)
    per_case = 0.0
    for judge_settings in settings.judges.values():
        judge = open_judge(judge_settings)
        started = time.process_time()
        for clip in clips:
            ClipEvaluator(judge, clip).score(answers[clip])
        per_case += (time.process_time() - started) / len(clips)
    seeds, models, count = len(settings.seeds), len(settings.models()), settings.num_clips
    arms = (
        sum(per_step[arm] for arm in ARMS) + per_step[FULL]
    )  # the control costs what the full arm does
    distinct = max(1.0, DISTINCT_SHARE * models)
    return Estimate(
        per_step,
        training=seeds * settings.steps * arms,
        answering=models * count * per_answer,
        judging=count * distinct * per_case,
        processes=PROCESS_SECONDS * (2 * models + len(settings.judges) * count / 60),
    )


def _arm_seconds(experiment: Experiment, arm: str) -> float:
    trainer, backend = build_arm(experiment, arm, experiment.settings.seeds[0], save_strategy="no")
    try:
        trainer.train()
    finally:
        if backend is not None:
            backend.close()
    clocks = [e["cpu_seconds"] for e in trainer.state.log_history if "loss" in e]
    return float(clocks[-1] - clocks[0]) / (len(clocks) - 1)
