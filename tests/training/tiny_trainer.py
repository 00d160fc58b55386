"""Makes trainers for the tests; also run as a program by the tests that need processes of their own."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
from datasets import Dataset
from omni_training.recipe import GrpoSettings, ModelSettings, RunConfig, grpo_config, media_tokens
from omni_training.samples import SampleGuard, dataset_rows
from omni_training.tiny import TinySamples, tiny_tokenizer
from omni_training.trainer import OmniGRPOTrainer
from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker


def odd_tokens(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A reward that depends on the rollout alone."""
    return [float(sum(token % 2 for token in ids)) for ids in completion_ids]


def make(
    checkpoint: Path,
    output_dir: Path,
    *,
    trainer: dict[str, Any] | None = None,
    samples: Callable[[Any], Any] = TinySamples,
    guard: dict[str, Any] | None = None,
    num_samples: int = 12,
    reward_funcs: Sequence[Any] = (odd_tokens,),
    **args: Any,
) -> OmniGRPOTrainer:
    model = Thinker.from_pretrained(checkpoint, dtype=torch.float32)
    tokenizer = tiny_tokenizer()
    run = RunConfig(ModelSettings(str(checkpoint), dtype="float32"), GrpoSettings())
    defaults: dict[str, Any] = {
        "output_dir": str(output_dir),
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "max_completion_length": 6,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "top_p": 1.0,
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "log_completions": False,
        "disable_tqdm": True,
        "reward_weights": None,
    }
    config = grpo_config(
        run, media_tokens(tokenizer, model.config), use_cpu=True, **(defaults | args)
    )
    return OmniGRPOTrainer(
        model,
        samples=SampleGuard(samples(model), **(guard or {})),
        args=config,
        reward_funcs=list(reward_funcs),
        train_dataset=Dataset.from_list(dataset_rows([str(i) for i in range(num_samples)])),
        processing_class=tokenizer,
        **(trainer or {}),
    )


def losses(trainer: OmniGRPOTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weights(trainer: OmniGRPOTrainer) -> torch.Tensor:
    model = trainer.accelerator.unwrap_model(trainer.model)
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def fixed_rollouts(prompts: list[Any], trainer: OmniGRPOTrainer) -> dict[str, Any]:
    """A rollout hook that depends on the prompt and the place in its group only, not on the process."""
    requests = trainer.rollout_requests
    ids = [r.input_ids.tolist() for r in requests]
    completions = [
        [29 + (sum(prompt) * 7 + (row % 4) * 5 + step * (row % 4 + 3)) % 21 for step in range(5)]
        for row, prompt in enumerate(ids)
    ]
    return {"prompt_ids": ids, "completion_ids": completions, "logprobs": None}


class Killed:
    """Kills the process while it writes its checkpoint of a step."""

    def __init__(self, trainer: OmniGRPOTrainer, step: int) -> None:
        self._save = trainer._save_optimizer_and_scheduler
        self._trainer, self._step = trainer, step
        trainer._save_optimizer_and_scheduler = self

    def __call__(self, output_dir: str) -> None:
        if self._trainer.state.global_step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)
        self._save(output_dir)


def main() -> None:
    mode, checkpoint, output_dir, report = sys.argv[1], *map(Path, sys.argv[2:5])
    if mode == "two-processes":
        trainer = make(
            checkpoint,
            output_dir,
            per_device_train_batch_size=4,
            max_steps=3,
            trainer={"rollout_func": fixed_rollouts},
        )
    else:
        trainer = make(checkpoint, output_dir, save_strategy="steps", save_steps=2, max_steps=4)
        Killed(trainer, 4)
    trainer.train()
    if trainer.accelerator.is_main_process:
        value = {"losses": losses(trainer), "weights": weights(trainer).tolist()}
        report.write_text(json.dumps(value))


if __name__ == "__main__":
    main()
