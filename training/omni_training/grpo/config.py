"""Run configurations: YAML -> checked dataclasses -> TRL's GRPOConfig.

A key that nothing reads is an error, with the nearest known key. The paper's settings are the defaults of
`GrpoSettings`; where TRL's own defaults would silently change the algorithm, `TRL_DIFFERS` says so, and a
test holds both columns to the truth.

Source: omni_r1_run_training.sh and omni-r1.md sections 1.5 and 1.6.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omni_sdk.errors import OmniError

from omni_training.rewards.preset import RewardPreset
from omni_training.rewards.presets import PRESETS

if TYPE_CHECKING:
    from peft import LoraConfig as PeftLoraConfig
    from transformers import PretrainedConfig, PreTrainedTokenizerBase
    from trl import GRPOConfig

TRL_DIFFERS: dict[str, tuple[Any, Any, str]] = {
    "loss_type": (
        "dapo",
        "grpo",
        "mean over tokens, then over rollouts; dapo pays long rollouts more",
    ),
    "beta": (0.0, 0.04, "without the KL term there is no reference model"),
    "use_bias_correction_kl": (
        True,
        False,
        "multiplies the KL term by the (differentiable) ratio: same value on policy, another gradient",
    ),
    "max_grad_norm": (1.0, 5.0, "another step size whenever the norm is between"),
    "top_p": (1.0, 0.95, "rollouts come from the nucleus"),
    "lr_scheduler_type": ("linear", "cosine", "the published schedule"),
    "weight_decay": (0.0, 0.01, "the published decay"),
    "max_completion_length": (
        512,
        2048,
        "a shorter limit cuts thoughts, and cut rollouts earn no format",
    ),
}
"""Setting -> (TRL 1.16's default, the paper's, what the difference does)."""


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
    change: dict[str, float] = field(default_factory=dict)

    def build(self) -> RewardPreset:
        """Return the preset; ConfigError on an unknown name or field."""
        if self.preset not in PRESETS:
            raise ConfigError(
                f"rewards.preset: unknown {self.preset!r}; expected one of {', '.join(PRESETS)}"
            )
        preset = PRESETS[self.preset]
        _known(self.change, preset, "rewards.change")
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
    assert isinstance(config, RunConfig)
    config.rewards.build()
    return config


def media_tokens(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> list[int]:
    """Return the ids that sampling must leave out: every special token but the ends of a turn.

    Args:
        tokenizer: the thinker's.
        config: the thinker's configuration, whose placeholder ids are added whatever the tokenizer marks.
    """
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    special |= {config.image_token_id, config.video_token_id, config.audio_token_id}
    ends = {tokenizer.eos_token_id}
    declared = config.get_text_config().eos_token_id
    ends |= set(declared) if isinstance(declared, (list, tuple)) else {declared}
    return sorted(i for i in special - ends if i is not None)


def grpo_config(
    run: RunConfig, suppress_tokens: list[int], *, use_cpu: bool = False, **overrides: Any
) -> GRPOConfig:
    """Return TRL's configuration of a run.

    Args:
        run: the settings.
        suppress_tokens: from `media_tokens`.
        use_cpu: run without a GPU, in float32.
        overrides: fields of GRPOConfig that win.
    """
    from trl import GRPOConfig

    g = run.grpo
    values: dict[str, Any] = {
        "output_dir": run.output_dir,
        "per_device_train_batch_size": g.prompts_per_device * g.num_generations,
        "max_completion_length": g.max_completion_tokens,
        "num_train_epochs": g.epochs,
        "generation_kwargs": {"suppress_tokens": suppress_tokens},
        "reward_weights": list(run.rewards.build().column_weights),
        "bf16": run.model.dtype == "bfloat16" and not use_cpu,
        "use_cpu": use_cpu,
        "report_to": [],
        # Towers without gradients, and rollouts without sound, leave parameters unused in some steps.
        "ddp_find_unused_parameters": not run.model.freeze_towers,
    }
    if g.rollouts == "vllm":
        values |= {"use_vllm": True, "vllm_mode": "colocate"}
    same = {f.name for f in dataclasses.fields(GRPOConfig)}
    values |= {k: v for k, v in dataclasses.asdict(g).items() if k in same}
    return GRPOConfig(**(values | overrides))


def lora_config(model: ModelSettings) -> PeftLoraConfig | None:
    """Return peft's configuration of adapters on every projection of the language model, or None."""
    if model.lora_rank == 0:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=model.lora_rank,
        lora_alpha=model.lora_alpha,
        lora_dropout=model.lora_dropout,
        # The towers have projections of the same names (q_proj ...), so the path is part of the pattern.
        target_modules=r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
        task_type="CAUSAL_LM",
    )


def build_config(kind: Any, value: Any, path: str = "") -> Any:
    """Make a dataclass of a mapping, with every key and type checked.

    Args:
        kind: the dataclass.
        value: what YAML or JSON held.
        path: where it stands, for messages.

    Raises:
        ConfigError: not a mapping, an unknown or missing key, or a value of another type.
    """
    if not isinstance(value, dict):
        raise ConfigError(f"{path or 'top level'}: expected a mapping, got {type(value).__name__}")
    _known(value, kind, path)
    hints = typing.get_type_hints(kind)
    built = {}
    for f in dataclasses.fields(kind):
        where = f"{path}.{f.name}" if path else f.name
        if f.name in value:
            built[f.name] = _typed(hints[f.name], value[f.name], where)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}: missing, and it has no default")
    return kind(**built)


def _known(value: dict[str, Any], kind: Any, path: str) -> None:
    names = [f.name for f in dataclasses.fields(kind)]
    for key in value:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"
            raise ConfigError(f"{path + '.' if path else ''}{key}: nothing reads this key{hint}")


def _typed(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return build_config(hint, value, path)
    options = typing.get_args(hint) if typing.get_origin(hint) is types.UnionType else (hint,)
    for option in options:
        plain = typing.get_origin(option) or option
        if dataclasses.is_dataclass(option) and isinstance(value, dict):
            return build_config(option, value, path)
        if plain is tuple and isinstance(value, (list, tuple)):
            inner = typing.get_args(option)[0]
            return tuple(_typed(inner, v, f"{path}[{i}]") for i, v in enumerate(value))
        if plain is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, plain) and not (plain is int and isinstance(value, bool)):
            return value
    wanted = " or ".join(getattr(o, "__name__", str(o)) for o in options)
    hint_text = " (YAML reads 1e-6 as text: write 1.0e-6)" if isinstance(value, str) else ""
    raise ConfigError(f"{path}: expected {wanted}, got {value!r}{hint_text}")
