"""What a run will need, before anything is loaded: memory per GPU, steps, tokens.

Parameters are counted on a model without storage. Bytes per parameter are those of mixed-precision AdamW
(ZeRO paper, arXiv 1910.02054, section 3.1): 2 weights + 2 gradient + 4 master + 8 moments = 16 where trained,
2 where frozen (bfloat16). Activations are estimates, marked so; measure before trusting the last 10 %.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_sdk.errors import MemoryBudgetError

from omni_training.grpo.config import ConfigError, RunConfig

GB = 1e9
AUDIO_TOKENS_PER_SECOND = 25
TEXT_TOKENS = 400
"""Of the reasoner's instruction (the authors' longest template has about 380)."""
ACTIVATION_COPIES = 34
"""Bytes per token and hidden unit inside one layer, bfloat16 (Korthikanti et al., arXiv 2205.05198,
without the attention matrix, which the fused kernels do not keep)."""
LOGIT_ROWS = 1024
"""Positions whose logits the fused head holds at a time, generously."""
RUNTIME_GB = 2.5
"""CUDA context, NCCL buffers, fragmentation; an allowance."""

_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "num_heads": 16,
    "intermediate_size": 3420,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "qwen2.5-omni-7b": {
        "text_config": {
            "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
            "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064,
            "tie_word_embeddings": False,
        },
        "vision_config": _VISION | {"out_hidden_size": 3584},
        "audio_config": {"output_dim": 3584},
        "tie_word_embeddings": False,
    },
    "qwen2.5-omni-3b": {
        "text_config": {
            "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16,
            "num_key_value_heads": 2, "intermediate_size": 11008, "vocab_size": 151936,
            "tie_word_embeddings": False,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24],
            },
        },
        "vision_config": _VISION | {"out_hidden_size": 2048},
        "audio_config": {"output_dim": 2048},
        "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Sizes of the published thinkers (their config.json), for planning without them."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """A thinker's parameters and the dimensions that memory depends on."""

    towers: int
    language_model: int
    hidden: int
    layers: int
    kv_width: int
    vocabulary: int
    lora: int

    @property
    def total(self) -> int:
        """All parameters without adapters."""
        return self.towers + self.language_model


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run needs.

    Attributes:
        parts_gb: part -> GB on each GPU while rollouts are scored and trained on.
        generation_gb: part -> GB on each GPU while rollouts are written.
        budget_gb: memory of a GPU.
        steps: optimiser steps.
        prompts_per_step: over all devices.
        rollouts_per_step: likewise.
        prompt_tokens: of a typical prompt.
        tokens_per_step: read and written, at most (rollouts rarely reach their limit).
        sizes: parameters.
    """

    parts_gb: dict[str, float]
    generation_gb: dict[str, float]
    budget_gb: float
    steps: int
    prompts_per_step: int
    rollouts_per_step: int
    prompt_tokens: int
    tokens_per_step: int
    sizes: Sizes

    @property
    def peak_gb(self) -> float:
        """The larger of the two phases."""
        return max(sum(self.parts_gb.values()), sum(self.generation_gb.values()))

    @property
    def fits(self) -> bool:
        """Whether the peak is within the budget."""
        return self.peak_gb <= self.budget_gb

    def check(self) -> None:
        """Raise MemoryBudgetError unless the plan fits."""
        if not self.fits:
            raise MemoryBudgetError(
                f"the plan needs {self.peak_gb:.1f} GB per GPU and has {self.budget_gb:g}: use more devices, "
                "zero3 with offload_optimizer, adapters (lora_rank), or fewer generations or tokens"
            )

    def lines(self) -> list[str]:
        """Return the plan as text."""
        s = self.sizes
        out = [
            f"parameters: {s.language_model / 1e9:.2f} B language model + {s.towers / 1e9:.2f} B towers"
            + (f", {s.lora / 1e6:.1f} M in adapters" if s.lora else ""),
            f"steps: {self.steps}, each {self.prompts_per_step} prompts x "
            f"{self.rollouts_per_step // self.prompts_per_step} rollouts",
            f"tokens: {self.prompt_tokens} in a typical prompt, at most "
            f"{self.tokens_per_step / 1e3:.0f} k in a step, "
            f"{self.tokens_per_step * self.steps / 1e6:.0f} M in the run",
        ]
        for title, parts in (("training", self.parts_gb), ("rollouts", self.generation_gb)):
            out.append(f"GB per GPU, {title}: {sum(parts.values()):.1f}")
            out += [f"  {name:<36}{value:8.2f}" for name, value in parts.items()]
        verdict = "fits" if self.fits else "DOES NOT FIT"
        out.append(f"{verdict}: {self.peak_gb:.1f} of {self.budget_gb:g} GB per GPU")
        return out


def plan_run(run: RunConfig) -> RunPlan:
    """RunPlan a run; reads at most the checkpoint's config.json.

    Raises:
        ConfigError: neither `model.path` nor `model.architecture` says how large the model is.
    """
    sizes = measure(run)
    g, r, data = run.grpo, run.resources, run.data
    rows = g.prompts_per_device * g.num_generations
    prompt = TEXT_TOKENS + (data.frames + 1) // 2 * data.tokens_per_frame_pair
    prompt += round(data.audio_seconds * AUDIO_TOKENS_PER_SECOND)
    sequence = prompt + g.max_completion_tokens
    prompts_per_step = g.prompts_per_device * g.gradient_accumulation_steps * r.devices
    steps = g.max_steps if g.max_steps > 0 else int(data.num_samples * g.epochs // prompts_per_step)
    written = rows * (g.steps_per_generation or g.gradient_accumulation_steps)
    return RunPlan(
        parts_gb=_training(run, sizes, rows * sequence),
        generation_gb=_state(run, sizes) | _rollouts(run, sizes, written, prompt),
        budget_gb=r.memory_gb,
        steps=max(1, steps),
        prompts_per_step=prompts_per_step,
        rollouts_per_step=prompts_per_step * g.num_generations,
        prompt_tokens=prompt,
        tokens_per_step=prompts_per_step * g.num_generations * sequence,
        sizes=sizes,
    )


def measure(run: RunConfig) -> Sizes:
    """Count parameters on a model without storage."""
    import torch
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker

    from omni_training.grpo.config import lora_config

    config = _model_config(run)
    with torch.device("meta"):
        model = Thinker(config)
    text = config.text_config
    towers = sum(
        p.numel() for m in (model.model.visual, model.model.audio_tower) for p in m.parameters()
    )
    total = sum(p.numel() for p in model.parameters())
    lora = 0
    adapters = lora_config(run.model)
    if adapters is not None:
        from peft import get_peft_model

        adapted = get_peft_model(model, adapters)
        lora = sum(p.numel() for n, p in adapted.named_parameters() if "lora_" in n)
    head = text.hidden_size // text.num_attention_heads
    return Sizes(
        towers=towers,
        language_model=total - towers,
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        kv_width=text.num_key_value_heads * head,
        vocabulary=text.vocab_size,
        lora=lora,
    )


def _model_config(run: RunConfig) -> Any:
    from transformers import Qwen2_5OmniThinkerConfig

    file = Path(run.model.path) / "config.json"
    if file.is_file():
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            raise ConfigError(f"{file}: cannot be read: {e}") from e
        return Qwen2_5OmniThinkerConfig(**value.get("thinker_config", value))
    if run.model.architecture not in ARCHITECTURES:
        raise ConfigError(
            f"model.path {run.model.path!r} is not a directory with config.json; to plan without it set "
            f"model.architecture to one of {', '.join(ARCHITECTURES)}, got {run.model.architecture!r}"
        )
    return Qwen2_5OmniThinkerConfig(**ARCHITECTURES[run.model.architecture])


def _state(run: RunConfig, sizes: Sizes) -> dict[str, float]:
    """Weights, gradients, optimiser and reference on one GPU."""
    r, m = run.resources, run.model
    shards = 1 if r.strategy == "ddp" else r.devices
    width = 2 if m.dtype == "bfloat16" else 4
    trained = sizes.lora or sizes.language_model + (0 if m.freeze_towers else sizes.towers)
    frozen = sizes.total - (0 if sizes.lora else trained)
    optimizer = trained * (16 - width) if width == 2 else trained * 12
    parts = {
        "frozen weights": frozen * width / shards,
        "trained weights": trained * width / shards,
        "gradients, master, moments": optimizer / shards,
    }
    if r.offload_optimizer:
        # Gradients pass through the GPU in buckets; master weights and moments stay in host memory.
        parts["gradients, master, moments"] = trained * 2 / shards
    if run.grpo.beta and not sizes.lora:
        parts["reference"] = sizes.total * width / shards
    return {k: v / GB for k, v in parts.items()} | {"runtime (allowance)": RUNTIME_GB}


def _training(run: RunConfig, sizes: Sizes, tokens: int) -> dict[str, float]:
    per_layer = tokens * sizes.hidden * 2
    kept = per_layer * sizes.layers
    if not run.grpo.gradient_checkpointing:
        kept = tokens * sizes.hidden * ACTIVATION_COPIES * sizes.layers
    inside = tokens * sizes.hidden * ACTIVATION_COPIES
    logits = LOGIT_ROWS * sizes.vocabulary * 4 * 3
    return _state(run, sizes) | {
        "activations kept (estimate)": kept / GB,
        "activations of one layer (estimate)": inside / GB,
        "logits of one tile (estimate)": logits / GB,
    }


def _rollouts(run: RunConfig, sizes: Sizes, rows: int, prompt: int) -> dict[str, float]:
    """Rollouts of one round on one GPU; TRL writes all of a round in one call."""
    sequence = prompt + run.grpo.max_completion_tokens
    parts = {
        "key-value cache": rows * sequence * sizes.layers * 2 * sizes.kv_width * 2,
        # The thinker's forward has no logits_to_keep: the prefill makes logits of every prompt token.
        "logits of the prefill": rows * prompt * sizes.vocabulary * 2,
    }
    if run.resources.strategy == "zero3":
        # TRL gathers the whole model to generate (ds3_gather_for_generation).
        parts["gathered weights"] = sizes.total * 2
    return {name: value / GB for name, value in parts.items()}
