"""Run configurations: YAML -> checked dataclasses.

A key that nothing reads is an error, with the nearest known key. The paper's settings are the defaults of
`GrpoSettings`; `omni_training.grpo.trl_config` makes TRL's configuration of them.

Source: omni_r1_run_training.sh and omni-r1.md sections 1.5 and 1.6.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omni_sdk.errors import OmniError
from omni_sdk.utils import schema

from omni_training.rewards.preset import RewardPreset
from omni_training.rewards.presets import PRESETS

T = TypeVar("T")


class ConfigError(OmniError, ValueError):
    """A run configuration is malformed; the message names the key."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Which thinker is trained, and what of it.

    Attributes:
        path: directory of a thinker checkpoint (`thinker.save_pretrained`), or a hub id.
        revision: of a hub id.
        architecture: "qwen2.5-omni-7b" or "qwen2.5-omni-3b", for planning while `path` is not here.
        dtype: of the weights: "bfloat16" or "float32".
        attention: transformers' name of the attention kernels.
        freeze_towers: train the language model only.
        lora_rank: rank of adapters on the language model; 0 trains it whole.
        lora_alpha: scale of the adapters.
        lora_dropout: in [0, 1); 0 keeps policy and reference equal at step 0.
    """

    path: str
    revision: str | None = None
    architecture: str = ""
    dtype: str = "bfloat16"
    attention: str = "sdpa"
    freeze_towers: bool = True
    lora_rank: int = 0
    lora_alpha: int = 32
    lora_dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class GrpoSettings:
    """GRPO as published; a prompt's group is always whole within a step.

    Attributes:
        num_generations: rollouts of a prompt, G.
        prompts_per_device: prompts of one micro-batch on one device.
        gradient_accumulation_steps: micro-batches of one optimiser step.
        steps_per_generation: micro-batches made from one round of rollouts; None: as many as are
            accumulated.
        beta: weight of the KL term (k3 estimator).
        use_bias_correction_kl: multiply the KL term by the importance ratio (DeepSeek-V3.2; not published).
        learning_rate: peak.
        lr_scheduler_type: transformers' name.
        warmup_steps: steps, or a share of all below 1.
        weight_decay: of AdamW.
        max_grad_norm: clipping.
        temperature: of sampling.
        top_p: nucleus of sampling.
        max_prompt_tokens: longer prompts are skipped and counted, never cut.
        max_completion_tokens: upper bound of a rollout.
        loss_type: TRL's name.
        scale_rewards: TRL's name of the advantage's scale.
        num_iterations: updates per rollout.
        epochs: passes over the data.
        max_steps: optimiser steps; -1: as the epochs say.
        save_steps: optimiser steps between checkpoints.
        save_total_limit: checkpoints kept.
        logging_steps: optimiser steps between log lines.
        gradient_checkpointing: recompute activations.
        log_completions: keep tables of rollouts beside the checkpoints.
        seed: of everything.
        rollouts: "transformers", or "vllm" (in the training processes; needs frozen towers and a GPU).
    """

    num_generations: int = 8
    prompts_per_device: int = 1
    gradient_accumulation_steps: int = 1
    steps_per_generation: int | None = None
    beta: float = 0.04
    use_bias_correction_kl: bool = False
    learning_rate: float = 1e-6
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 0.0
    weight_decay: float = 0.01
    max_grad_norm: float = 5.0
    temperature: float = 1.0
    top_p: float = 0.95
    max_prompt_tokens: int = 32768
    max_completion_tokens: int = 2048
    loss_type: str = "grpo"
    scale_rewards: str = "group"
    num_iterations: int = 1
    epochs: float = 1.0
    max_steps: int = -1
    save_steps: int = 200
    save_total_limit: int | None = 3
    logging_steps: int = 1
    gradient_checkpointing: bool = True
    log_completions: bool = True
    seed: int = 42
    rollouts: str = "transformers"

    def __post_init__(self) -> None:
        if self.rollouts not in ("transformers", "vllm"):
            raise ConfigError(
                f"grpo.rollouts: expected 'transformers' or 'vllm', got {self.rollouts!r}"
            )


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """Rewards: a preset, and what of it is changed.

    Attributes:
        preset: a name of `rewards.presets.PRESETS`.
        change: weights of that preset with other values.
    """

    preset: str = "paper"
    change: dict[str, bool | int | float] = field(default_factory=dict)

    def build(self) -> RewardPreset:
        """Return the preset; ConfigError on an unknown name or field."""
        if self.preset not in PRESETS:
            raise ConfigError(
                f"rewards.preset: unknown {self.preset!r}; expected one of {', '.join(PRESETS)}"
            )
        preset = PRESETS[self.preset]
        try:
            schema.check_keys(type(preset), self.change, "rewards.change")
        except schema.SchemaError as e:
            raise ConfigError(str(e)) from e
        try:
            return dataclasses.replace(preset, **self.change)
        except (TypeError, ValueError) as e:
            raise ConfigError(f"rewards.change: {e}") from e


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Where boxes and masks are scored.

    Attributes:
        backend: "local" (in each training process) or "ray".
        factory: "module:function" that makes a `workers.scorer.ClipScorer`; empty: the preset must pay
            neither boxes nor masks.
        options: the factory's keyword arguments.
        num_workers: Ray actors of each training process (a group's rollouts are in one process).
        address: of a running Ray cluster ("auto" finds it); None: each process starts its own.
        num_gpus: of each actor.
        timeout_seconds: of one job, from when a worker gets it.
        max_failed_share: run on while at most this share of the jobs has failed.
    """

    backend: str = "local"
    factory: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    num_workers: int = 1
    address: str | None = None
    num_gpus: float = 0.0
    timeout_seconds: float = 600.0
    max_failed_share: float = 0.25

    def __post_init__(self) -> None:
        if self.backend not in ("local", "ray"):
            raise ConfigError(f"workers.backend: expected 'local' or 'ray', got {self.backend!r}")


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Where the samples come from.

    Attributes:
        factory: "module:function" that returns (sample ids, `samples.SampleStore`).
        options: its keyword arguments.
        num_samples: expected samples, for planning before anything is read.
        frames: sampled frames of a typical clip, for planning.
        tokens_per_frame_pair: language-model tokens of two frames, for planning (120 at 224 x 420).
        audio_seconds: of a typical clip, for planning (25 tokens per second).
        max_failed_share: run on while at most this share of the samples is unreadable.
    """

    factory: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    num_samples: int = 4200
    frames: int = 24
    tokens_per_frame_pair: int = 120
    audio_seconds: float = 0.0
    max_failed_share: float = 0.05


@dataclass(frozen=True, slots=True)
class Resources:
    """What a run may use.

    Attributes:
        devices: GPUs.
        memory_gb: of each, in GB of 1e9 bytes.
        strategy: "ddp", "zero3" or "fsdp2": what is sharded over the devices.
        offload_optimizer: optimiser state lives in the host's memory (zero3).
        launcher: file of `accelerate launch --config_file`, relative to the configuration.
    """

    devices: int = 1
    memory_gb: float = 80.0
    strategy: str = "ddp"
    offload_optimizer: bool = False
    launcher: str | None = None

    def __post_init__(self) -> None:
        if self.strategy not in ("ddp", "zero3", "fsdp2"):
            raise ConfigError(
                f"resources.strategy: expected ddp, zero3 or fsdp2, got {self.strategy!r}"
            )
        if self.devices < 1:
            raise ConfigError(f"resources.devices: expected at least 1, got {self.devices}")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """One training run."""

    model: ModelSettings
    grpo: GrpoSettings = field(default_factory=GrpoSettings)
    rewards: RewardSettings = field(default_factory=RewardSettings)
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    data: DataSettings = field(default_factory=DataSettings)
    resources: Resources = field(default_factory=Resources)
    output_dir: str = "runs/grpo"


def load_config(path: str | Path) -> RunConfig:
    """Read a YAML configuration.

    Raises:
        ConfigError: unreadable, not a mapping, an unknown key, a missing key or a value of another type.
    """
    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise ConfigError(f"{path}: cannot be read: {e}") from e
    config = build_config(RunConfig, value)
    config.rewards.build()
    return config


def build_config(kind: type[T], value: object) -> T:
    """Make a dataclass of what YAML or JSON held.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a missing key or a value of another type.
    """
    try:
        return schema.from_dict(kind, value)
    except schema.SchemaError as e:
        raise ConfigError(str(e)) from e
