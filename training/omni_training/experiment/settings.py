"""What an experiment consists of: arms, seeds, clips and judges. Checked, and kept beside its results."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omni_sdk.demo.world import FAMILIES, HELD_OUT_STRIDE, held_out_seed
from omni_sdk.errors import OmniError

from omni_training.data.world import ANY
from omni_training.grpo.config import (
    ConfigError,
    DataSettings,
    GrpoSettings,
    ModelSettings,
    RewardSettings,
    RunConfig,
    WorkerSettings,
    build_config,
)
from omni_training.rewards.paper import PaperReward

START = "start"
CONTROL = "sft"
FULL = "r_k+r_a+r_g"
ARMS: dict[str, dict[str, float]] = {
    "r_k": {"alpha_a": 0.0, "alpha_g": 0.0},
    "r_k+r_a": {"alpha_g": 0.0},
    "r_k+r_g": {"alpha_a": 0.0},
    FULL: {},
}
"""Arm -> weights that differ from the preset; the format is paid in all."""
TRAINED_BY, SWAPPED = "training", "swapped"
CLIP_FRAME_SIDE = 96
"""Side in pixels of the frames that judges see, and of the masks; the stage's own resolution."""
SHARD_CLIPS = 60


class ExperimentError(OmniError, RuntimeError):
    """A job failed or the folder holds something else; the message names it."""


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """A detail system: a bundle, or checkpoints run on torch.

    Attributes:
        path: bundle (directory or embedded name), or directory of the grounder's checkpoint.
        tracker: directory of the tracker's checkpoint; None: `path` is a bundle and holds one.
        second_looks: as in `TrackingConfig`, for the scores; the pipeline's default is 2.
    """

    path: str = "nano"
    tracker: str | None = None
    second_looks: int = 0


@dataclass(frozen=True, slots=True)
class ExperimentSettings:
    """One experiment; the defaults are the one whose results are published.

    Attributes:
        start: directory of the thinker's checkpoint that every arm starts from.
        judge: the detail system that pays in training, and judges.
        second_judge: another one that only judges; None: none.
        seeds: of the arms; each also draws its own training clips.
        steps: optimiser steps of an arm.
        prompts_per_step: clips of one step.
        num_generations: rollouts of a clip.
        learning_rate: peak of the arms.
        beta: weight of the KL term.
        top_p: nucleus of the rollouts.
        max_completion_tokens: of a rollout and of an answer; 0: as the checkpoint's settings say.
        save_steps: optimiser steps between checkpoints.
        families: of the training clips, in turn; "any" draws as the world does.
        rewards: preset and changes that hold for every arm.
        control_learning_rate: peak of the supervised control.
        control_batch: clips of one of its steps.
        control_save_seconds: CPU seconds between its checkpoints.
        eval_families: of the held-out clips; empty: all.
        num_clips: held-out clips, families taking turns.
        first_clip: number of the first within each family's held-out range.
        rounds: of the bootstrap.
    """

    start: str
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    second_judge: JudgeSettings | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 100
    prompts_per_step: int = 6
    num_generations: int = 8
    learning_rate: float = 5e-4
    beta: float = 0.04
    top_p: float = 1.0
    max_completion_tokens: int = 0
    save_steps: int = 10
    families: tuple[str, ...] = (ANY,)
    rewards: RewardSettings = field(
        default_factory=lambda: RewardSettings("paper", {"target_keyframes": 1})
    )
    control_learning_rate: float = 5e-4
    control_batch: int = 24
    control_save_seconds: float = 60.0
    eval_families: tuple[str, ...] = ()
    num_clips: int = 550
    first_clip: int = 1000
    rounds: int = 2000

    def __post_init__(self) -> None:
        positive = ("steps", "prompts_per_step", "save_steps", "control_batch", "num_clips")
        for name in (*positive, "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.num_generations < 2:
            raise ConfigError(
                f"num_generations: a group has at least 2, got {self.num_generations}"
            )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds: expected distinct numbers >= 0, got {self.seeds}")
        if unknown := set(self.eval_families) - set(FAMILIES):
            raise ConfigError(f"eval_families: expected some of {FAMILIES}, got {unknown}")
        if not 0 <= self.first_clip <= HELD_OUT_STRIDE - self.num_clips:
            raise ConfigError(f"first_clip: {self.first_clip} leaves the held-out range")
        if not isinstance(self.rewards.build(), PaperReward):
            raise ConfigError("rewards.preset: the arms' weights are those of the paper's preset")

    @property
    def judges(self) -> dict[str, JudgeSettings]:
        """The judges by name, the one of training first."""
        second = {} if self.second_judge is None else {SWAPPED: self.second_judge}
        return {TRAINED_BY: self.judge} | second

    def clips(self) -> list[str]:
        """Return the held-out clips as sample names, families taking turns."""
        families = self.eval_families or FAMILIES
        turns = [(families[i % len(families)], i // len(families)) for i in range(self.num_clips)]
        return [
            f"{family}:{held_out_seed(family, self.first_clip + number)}"
            for family, number in turns
        ]

    @property
    def completion_tokens(self) -> int:
        """Most tokens of a completion; reads the start's settings where none are given."""
        if self.max_completion_tokens:
            return self.max_completion_tokens
        from omni_sdk.hf.checkpoint import read_spec

        return read_spec(Path(self.start)).prompts.max_new_tokens

    def models(self) -> list[str]:
        """Return the names of everything that is judged: the start, arms and controls by seed."""
        names = [f"{arm}/{seed}" for arm in (*ARMS, CONTROL) for seed in self.seeds]
        return [START, *names]

    def run_config(self, arm: str, seed: int, output_dir: str) -> RunConfig:
        """Return the training run of an arm."""
        changed = self.rewards.change | ARMS[arm]
        count = self.steps * self.prompts_per_step
        return RunConfig(
            ModelSettings(self.start, dtype="float32"),
            GrpoSettings(
                num_generations=self.num_generations,
                prompts_per_device=self.prompts_per_step,
                beta=self.beta,
                learning_rate=self.learning_rate,
                top_p=self.top_p,
                max_completion_tokens=self.completion_tokens,
                max_steps=self.steps,
                save_steps=self.save_steps,
                save_total_limit=2,
                gradient_checkpointing=False,
                log_completions=False,
                seed=seed,
            ),
            rewards=dataclasses.replace(self.rewards, change=changed),
            workers=WorkerSettings(
                factory="omni_training.experiment.judge:judge_scorer",
                options={
                    "path": self.judge.path,
                    "tracker": self.judge.tracker,
                    "max_clips": self.prompts_per_step,
                },
            ),
            data=DataSettings(
                factory="omni_training.data.world_samples:world_samples",
                options={
                    "model": self.start,
                    "count": count,
                    "first": self.first_seed(seed),
                    "families": self.families,
                },
            ),
            output_dir=output_dir,
        )

    def first_seed(self, seed: int) -> int:
        """Return where a seed's training clips begin: the same clips for every arm of that seed."""
        return 1_000_000 * seed


def load_settings(path: Path | None, **given: Any) -> ExperimentSettings:
    """Read an experiment's YAML and put the caller's values over it.

    Args:
        path: the file; None: the defaults.
        **given: fields that win; None values are left out.

    Raises:
        ConfigError: unreadable, an unknown key, or a value of another type or out of range.
    """
    value: dict[str, Any] = {}
    if path is not None:
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
            raise ConfigError(f"{path}: cannot be read: {e}") from e
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: expected a mapping, got {type(value).__name__}")
    value |= {name: v for name, v in given.items() if v is not None}
    return build_config(ExperimentSettings, value)


def settings_text(settings: ExperimentSettings) -> str:
    """Return an experiment as JSON text, to be kept and compared."""
    return json.dumps(dataclasses.asdict(settings), indent=1, sort_keys=True) + "\n"
