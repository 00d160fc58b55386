"""Builds and runs a GRPO training from a configuration."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import tempfile
from pathlib import Path
from typing import Any

from omni_sdk.errors import DatasetError

from omni_training.recipe import ConfigError, RunConfig, grpo_config, lora_config, media_tokens
from omni_training.rewards.presets import with_weights
from omni_training.rewards.suite import RewardSuite
from omni_training.samples import SampleGuard, SampleStore, dataset_rows
from omni_training.trainer import OmniGRPOTrainer
from omni_training.workers.jobs import RewardBackend
from omni_training.workers.local import LocalBackend
from omni_training.workers.scorer import build_scorer

logger = logging.getLogger(__name__)
SMOKE_COMPLETION = 8


def run(config: RunConfig, *, resume: bool = False) -> dict[str, Any]:
    """Train as configured; returns TRL's last log line.

    Args:
        config: the run.
        resume: go on from the last whole checkpoint in `output_dir`.

    Raises:
        ConfigError: the configuration names code or a model that is not there.
        OmniError: data, workers or numbers fail (see the modules).
    """
    import torch
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    from omni_training.tokenizer import open_tokenizer

    if not config.data.factory:
        raise ConfigError("data.factory: empty; name a 'module:function' that gives the samples")
    ids, store = build_samples(config)
    backend = build_backend(config)
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        config.model.path,
        revision=config.model.revision,
        dtype=getattr(torch, config.model.dtype),
        attn_implementation=config.model.attention,
    )
    tokenizer = open_tokenizer(config.model.path, model.config, revision=config.model.revision)
    try:
        trainer = build_trainer(config, model, tokenizer, ids, store, backend)
        trainer.train(resume_from_checkpoint=resume or None)
        trainer.save_model(str(Path(config.output_dir) / "final"))
    finally:
        if backend is not None:
            backend.close()
    return dict(trainer.state.log_history[-1])


def smoke(config: RunConfig) -> dict[str, Any]:
    """Do one optimiser step of a configuration on the CPU with a random tiny thinker.

    Everything of the configuration holds but what the size forces: float32, completions of at most 8
    tokens, noise for media, transformers' rollouts, and only the parts of the reward that need no detail
    system.
    """
    import torch
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    from omni_training.tiny import TinySamples, save_tiny, tiny_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        path = save_tiny(Path(folder) / "tiny")
        small = dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, path=str(path), dtype="float32"),
            grpo=dataclasses.replace(
                config.grpo,
                max_steps=1,
                max_completion_tokens=SMOKE_COMPLETION,
                save_steps=1000,
                rollouts="transformers",
            ),
            output_dir=str(Path(folder) / "out"),
        )
        model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
            path, dtype=torch.float32, attn_implementation=config.model.attention
        )
        ids = [str(i) for i in range(4 * config.grpo.prompts_per_device)]
        trainer = build_trainer(
            small,
            model,
            tiny_tokenizer(),
            ids,
            TinySamples(model),
            None,
            text_only=True,
            use_cpu=True,
            save_strategy="no",
            log_completions=False,
            disable_tqdm=True,
        )
        trainer.train()
        (entry,) = [e for e in trainer.state.log_history if "loss" in e]
    return dict(entry)


def build_trainer(
    config: RunConfig,
    model: Any,
    tokenizer: Any,
    ids: list[str],
    store: SampleStore,
    backend: RewardBackend | None,
    *,
    text_only: bool = False,
    use_cpu: bool = False,
    **overrides: Any,
) -> OmniGRPOTrainer:
    """Put a trainer together.

    Args:
        config: the run.
        model: the thinker.
        tokenizer: its tokenizer.
        ids: training samples.
        store: what they are.
        backend: scores boxes and masks.
        text_only: pay neither boxes nor masks, whatever the configuration says.
        use_cpu: train on the CPU in float32.
        overrides: fields of GRPOConfig that win.
    """
    from datasets import Dataset

    guard = SampleGuard(
        store,
        max_failed_share=config.data.max_failed_share,
        max_prompt_tokens=config.grpo.max_prompt_tokens,
    )
    preset = config.rewards.build()
    if text_only:
        preset = with_weights(preset, alpha_a=0.0, alpha_g=0.0)
    suite = RewardSuite(preset, guard, backend)
    suppress = media_tokens(tokenizer, model.config)
    values = {"reward_weights": suite.weights} | overrides
    rollouts: dict[str, Any] = {}
    if config.grpo.rollouts == "vllm":
        from omni_training.prompts import open_model
        from omni_training.vllm_rollouts import VllmRollouts

        tokens = open_model(config.model.path).spec.tokens
        rollouts["rollout_func"] = VllmRollouts(tokens, suppress_tokens=suppress)
    return OmniGRPOTrainer(
        model,
        samples=guard,
        args=grpo_config(config, suppress, use_cpu=use_cpu, **values),
        freeze_towers=config.model.freeze_towers,
        reward_funcs=suite.functions(),
        train_dataset=Dataset.from_list(dataset_rows(ids, store)),
        processing_class=tokenizer,
        peft_config=lora_config(config.model),
        **rollouts,
    )


def build_samples(config: RunConfig) -> tuple[list[str], SampleStore]:
    """Call the configuration's data factory.

    Raises:
        ConfigError: it is not importable or gives something else.
        DatasetError: it gives no sample.
    """
    module, _, name = config.data.factory.partition(":")
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as e:
        raise ConfigError(f"data.factory: cannot import {config.data.factory!r}: {e}") from e
    ids, store = factory(**config.data.options)
    if not ids:
        raise DatasetError(f"{config.data.factory} gave no sample")
    return list(ids), store


def build_backend(config: RunConfig) -> RewardBackend | None:
    """Start the reward workers that the preset needs."""
    preset, w = config.rewards.build(), config.workers
    if not preset.needs_dus:
        return None
    if not w.factory:
        raise ConfigError(
            "workers.factory: empty, but the rewards pay boxes or masks (alpha_a, alpha_g)"
        )
    if w.backend == "ray":
        from omni_training.workers.ray_backend import RayBackend

        return RayBackend(
            w.factory,
            w.options,
            num_workers=w.num_workers,
            address=w.address,
            num_gpus=w.num_gpus,
            timeout_seconds=w.timeout_seconds,
        )
    return LocalBackend(build_scorer(w.factory, w.options))
