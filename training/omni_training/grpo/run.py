"""Builds and runs a GRPO training from a configuration."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omni_sdk.errors import DatasetError
from omni_sdk.utils.files import put_folder

from omni_training.data.samples import SampleGuard, SampleStore, dataset_rows
from omni_training.factories import find_factory
from omni_training.grpo.checkpoints import STAGING
from omni_training.grpo.config import ConfigError, RunConfig, grpo_config, lora_config, media_tokens
from omni_training.grpo.suite import RewardSuite
from omni_training.grpo.trainer import OmniGRPOTrainer
from omni_training.rewards.jobs import RewardBackend
from omni_training.rewards.preset import needs_dus
from omni_training.workers.local import LocalBackend
from omni_training.workers.scorer import build_scorer

logger = logging.getLogger(__name__)
SMOKE_COMPLETION = 8
MIN_SEEN = 20
"""Samples after which the share of unreadable ones is checked (fewer where the run has fewer)."""


def run(config: RunConfig, *, resume: bool = False) -> dict[str, Any]:
    """Train as configured; the model goes to `output_dir`/final when the run is complete.

    Args:
        config: the run.
        resume: go on from the last whole checkpoint in `output_dir`.

    Returns:
        TRL's last log line, and "skipped_samples" -> why, of this process.

    Raises:
        ConfigError: the configuration names code, options or a model that are not there, or this is not a
            run of as many processes as it says.
        OmniError: data, workers or numbers fail (see the modules).
    """
    import torch
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    from omni_training.data.tokenizer import open_tokenizer

    if not config.data.factory:
        raise ConfigError("data.factory: empty; name a 'module:function' that gives the samples")
    check_processes(config)
    check_options(config)
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
        save_final(trainer, Path(config.output_dir))
    finally:
        if backend is not None:
            backend.close()
    last: dict[str, Any] = trainer.state.log_history[-1]
    return last | {"skipped_samples": dict(trainer.samples.failed)}


def save_final(trainer: OmniGRPOTrainer, output_dir: Path) -> None:
    """Write the trained model to `output_dir`/final; one that stands there goes only when it is whole."""
    aside = output_dir / STAGING / "final"
    main = trainer.accelerator.is_main_process
    if main:
        shutil.rmtree(aside, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(aside))
    trainer.accelerator.wait_for_everyone()
    if main:
        put_folder(aside, output_dir / "final")
        shutil.rmtree(aside.parent, ignore_errors=True)


def check_processes(config: RunConfig) -> None:
    """Raise ConfigError unless this is a run of `resources.devices` processes.

    A step of one process in place of eight is another algorithm, and looks like the right one.
    """
    count, wanted = int(os.environ.get("WORLD_SIZE", "1")), config.resources.devices
    if count != wanted:
        launcher = config.resources.launcher or "LAUNCHER.yaml"
        raise ConfigError(
            f"resources.devices is {wanted} and this run has {count} process(es), so that a step would have "
            f"{count} / {wanted} of its prompts: start it by `accelerate launch --config_file {launcher} "
            f"--num_processes {wanted} -m omni_training.cli grpo ...`, or set resources.devices"
        )


def check_options(config: RunConfig) -> None:
    """Raise ConfigError for an option that its factory does not take, before anything is read."""
    for section, settings in (("data", config.data), ("workers", config.workers)):
        if settings.factory:
            factory = _import(settings.factory, f"{section}.factory")
            try:
                inspect.signature(factory).bind(**settings.options)
            except TypeError as e:
                raise ConfigError(f"{section}.options: {settings.factory}: {e}") from e


def _import(name: str, where: str) -> Callable[..., Any]:
    try:
        return find_factory(name)
    except ValueError as e:
        raise ConfigError(f"{where}: {e}") from e


def smoke(config: RunConfig) -> dict[str, Any]:
    """Do one optimiser step of a configuration on the CPU with a random tiny thinker.

    Everything of the configuration holds but what the size forces: float32, completions of at most 8
    tokens, noise for media, transformers' rollouts, and only the parts of the reward that need no detail
    system.
    """
    import torch
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    from omni_training.grpo.tiny import TinySamples, save_tiny, tiny_tokenizer

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
        min_seen=min(MIN_SEEN, len(ids)),
        max_prompt_tokens=config.grpo.max_prompt_tokens,
    )
    preset = config.rewards.build()
    if text_only:
        preset = dataclasses.replace(preset, alpha_a=0.0, alpha_g=0.0)
    suite = RewardSuite(preset, guard, backend, max_failed_share=config.workers.max_failed_share)
    suppress = media_tokens(tokenizer, model.config)
    values = {"reward_weights": suite.weights} | overrides
    rollouts: dict[str, Any] = {}
    if config.grpo.rollouts == "vllm":
        from omni_training.data.prompts import open_model
        from omni_training.grpo.vllm_rollouts import VllmRollouts

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
    ids, store = _import(config.data.factory, "data.factory")(**config.data.options)
    if not ids:
        raise DatasetError(f"{config.data.factory} gave no sample")
    return list(ids), store


def build_backend(config: RunConfig) -> RewardBackend | None:
    """Start the reward workers that the preset needs."""
    preset, w = config.rewards.build(), config.workers
    if not needs_dus(preset):
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
