"""A run's settings -> TRL's GRPOConfig and peft's LoraConfig.

Where TRL's own defaults would silently change the algorithm, `TRL_DIFFERS` says so, and a test holds both
columns to the truth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omni_training.grpo.config import ModelSettings, RunConfig

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
    same = (
        "num_generations gradient_accumulation_steps steps_per_generation beta use_bias_correction_kl "
        "learning_rate "
        "lr_scheduler_type warmup_steps weight_decay max_grad_norm temperature top_p loss_type scale_rewards "
        "num_iterations max_steps save_steps save_total_limit logging_steps gradient_checkpointing "
        "log_completions seed"
    )
    values |= {name: getattr(g, name) for name in same.split()}
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
