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

import numpy as np
import torch
from datasets import Dataset
from omni_training.data.samples import SampleGuard, dataset_rows
from omni_training.grpo.config import GrpoSettings, ModelSettings, RunConfig
from omni_training.grpo.tiny import VOCABULARY, TinySamples, tiny_tokenizer
from omni_training.grpo.trainer import OmniGRPOTrainer
from omni_training.grpo.trl_config import grpo_config, media_tokens
from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker

from omni_sdk.grs.request import ThinkerRequest, VisionInput


def odd_tokens(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A reward that depends on the rollout alone."""
    return [float(sum(token % 2 for token in ids)) for ids in completion_ids]


class MixedMedia(TinySamples):
    """Every third sample has an image in place of its video, every third one has both; sounds as ever."""

    def request(self, sample_id: str) -> ThinkerRequest:
        plain = super().request(sample_id)
        number = int(sample_id)
        if number % 3 == 0:
            return plain
        (video,) = plain.vision
        rng = np.random.default_rng(1000 + number)
        grid = (1, 4, 8 - 4 * (number % 2))
        pixels = rng.standard_normal((int(np.prod(grid)), video.pixel_values.shape[1]))
        image = VisionInput("image", pixels.astype(np.float32), grid)
        ids = plain.input_ids.tolist()
        bracket = [VOCABULARY["<|vision_bos|>"], *[VOCABULARY["<|IMAGE|>"]] * (np.prod(grid) // 4)]
        bracket += [VOCABULARY["<|vision_eos|>"]]
        start = ids.index(VOCABULARY["<|vision_bos|>"])
        end = ids.index(VOCABULARY["<|vision_eos|>"]) + 1
        both = number % 3 == 2
        row = [*ids[:start], *bracket, *(ids[start:end] if both else []), *ids[end:]]
        input_ids = torch.tensor([row])
        positions, _ = self._thinker.model.get_rope_index(
            input_ids,
            torch.tensor([grid]),
            torch.tensor([video.grid_thw]) if both else None,
            torch.ones_like(input_ids),
            False,
            torch.tensor([m.shape[1] for m in plain.mel]) if plain.mel else None,
            torch.tensor([1.0]) if both else None,
        )
        vision = (image, video) if both else (image,)
        return ThinkerRequest(input_ids[0].numpy(), positions[:, 0].numpy(), vision, plain.mel)


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
    if mode == "kill":
        trainer = make(checkpoint, output_dir, save_strategy="steps", save_steps=2, max_steps=4)
        Killed(trainer, 4)
        trainer.train()
        return
    two = {"per_device_train_batch_size": 4, "max_steps": 3, "save_strategy": "steps"}
    reports = []
    for resumed in (False, True):
        hook = {"rollout_func": fixed_rollouts}
        trainer = make(checkpoint, output_dir, **two, save_steps=2, trainer=hook)
        trainer.train(resume_from_checkpoint=str(output_dir / "checkpoint-2") if resumed else None)
        reports.append({"losses": losses(trainer), "weights": weights(trainer).tolist()})
    if trainer.accelerator.is_main_process:
        report.write_text(json.dumps(reports))


if __name__ == "__main__":
    main()
