"""The control: supervised training goes on from the same start, for the CPU time that GRPO took.

The target is the true completion of each clip (`omni_sdk.demo.texts.grs_answer`), which tells the model far
more than a reward does; the question that the control answers is whether an arm's gain is more than what any
further training on such clips would give.
"""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from omni_sdk.demo.texts import grs_answer
from omni_sdk.utils.files import write_json
from torch import Tensor, nn
from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker
from transformers import Trainer, TrainingArguments

from omni_training.data.samples import SAMPLE_ID, SampleGuard
from omni_training.data.tokenizer import open_tokenizer
from omni_training.data.video_samples import open_processor
from omni_training.data.world import world_scene
from omni_training.data.world_samples import WorldSamples, training_ids
from omni_training.experiment.arm import CpuClock, last_checkpoint, write_record
from omni_training.experiment.files import Experiment, put_model, read_json
from omni_training.experiment.settings import CONTROL, FULL
from omni_training.grpo.checkpoints import SafeCheckpoints, save_bad_batch
from omni_training.grpo.media import PromptMedia, accept_encoded, collate, encode

PROBE_STEPS = 3


class SupervisedTrainer(SafeCheckpoints, Trainer):  # type: ignore[misc]
    """Next-token loss on the completions; towers frozen, as in the arms."""

    def __init__(self, model: nn.Module, *, samples: SampleGuard, tokenizer: Any, **kwargs: Any):
        for tower in (model.model.visual, model.model.audio_tower):
            tower.requires_grad_(False)
        accept_encoded(model)
        self._samples = samples
        self._tokenizer = tokenizer
        super().__init__(model=model, data_collator=_names, **kwargs)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], **_: Any) -> Tensor:
        """Return the mean loss over the completions' tokens of a batch."""
        thinker = self.accelerator.unwrap_model(model)
        # An unreadable sample is counted by the guard and left out of the batch.
        readable = [
            (n, r) for n in inputs[SAMPLE_ID] if (r := self._samples.request(n)) is not None
        ]
        if not readable:
            return sum(p.sum() for p in model.parameters() if p.requires_grad) * 0.0
        media = encode(thinker, [PromptMedia.of(r) for _, r in readable])
        prompts = [torch.from_numpy(r.input_ids) for _, r in readable]
        answers = [self._answer(name) for name, _ in readable]
        before, after = max(map(len, prompts)), max(map(len, answers))
        ids = torch.full((len(readable), before + after), self._tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, -100)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            filled = slice(before - len(prompt), before + len(answer))
            ids[row, filled] = torch.cat([prompt, answer])
            mask[row, filled] = 1
            labels[row, before : before + len(answer)] = answer
        device = self.accelerator.device
        batch = collate(media, before, after, device=device, dtype=thinker.dtype)
        output = model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            labels=labels.to(device),
            **batch,
        )
        loss: Tensor = output.loss
        if not torch.isfinite(loss):
            saved = {"input_ids": ids, "labels": labels, "media": media}
            save_bad_batch(saved, self.args.output_dir, self.state.global_step, 0)
        return loss

    def _answer(self, sample_id: str) -> Tensor:
        text = grs_answer(world_scene(sample_id))
        ids = self._tokenizer(text, add_special_tokens=False).input_ids
        return torch.tensor([*ids, self._tokenizer.eos_token_id])


def train_control(experiment: Experiment, seed: int) -> None:
    """Train the control of a seed for the CPU time of that seed's full arm."""
    model = f"{CONTROL}/{seed}"
    folder = experiment.train(model)
    budget = float(read_json(experiment.record(f"{FULL}/{seed}"))["cpu_seconds"])
    plan = folder / "plan.json"
    if not plan.is_file():
        # The number of steps is fixed once, so that a resumed run keeps its schedule.
        per_step = seconds_per_step(experiment, seed)
        steps = max(1, round(budget / per_step))
        write_json(plan, {"budget_cpu_seconds": budget, "per_step": per_step, "steps": steps})
    settings = read_json(plan)
    trainer = build_control(experiment, seed, settings["steps"], settings["per_step"])
    trainer.add_callback(CpuClock())
    trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    put_model(trainer, experiment.checkpoint("start"), experiment.checkpoint(model))
    write_record(experiment, model, trainer, budget_cpu_seconds=budget)


def seconds_per_step(experiment: Experiment, seed: int) -> float:
    """Return the CPU seconds of one step of the control, measured after a first one."""
    trainer = build_control(experiment, seed, PROBE_STEPS + 1, 0.0, save_strategy="no")
    trainer.add_callback(CpuClock())
    trainer.train()
    clocks = [e["cpu_seconds"] for e in trainer.state.log_history if "loss" in e]
    return max(1e-3, float(clocks[-1] - clocks[0]) / (len(clocks) - 1))


def build_control(
    experiment: Experiment, seed: int, steps: int, per_step: float, **overrides: Any
) -> SupervisedTrainer:
    """Return a control's trainer.

    Args:
        experiment: the experiment.
        seed: of the control.
        steps: optimiser steps.
        per_step: CPU seconds of one, to space the checkpoints.
        **overrides: fields of TrainingArguments that win.
    """
    s = experiment.settings
    model = Thinker.from_pretrained(s.start, dtype=torch.float32, attn_implementation="sdpa")
    tokenizer = open_tokenizer(s.start, model.config)
    ids = training_ids(steps * s.control_batch, first=s.first_seed(seed), families=s.families)
    every = max(1, round(s.control_save_seconds / per_step)) if per_step else steps
    values: dict[str, Any] = {
        "output_dir": str(experiment.train(f"{CONTROL}/{seed}") / "checkpoints"),
        "per_device_train_batch_size": s.control_batch,
        "max_steps": steps,
        "learning_rate": s.control_learning_rate,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "save_steps": every,
        "save_total_limit": 2,
        "logging_steps": 1,
        "remove_unused_columns": False,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "seed": seed,
    }
    return SupervisedTrainer(
        model,
        samples=SampleGuard(WorldSamples(open_processor(s.start))),
        tokenizer=tokenizer,
        args=TrainingArguments(**(values | overrides)),
        train_dataset=Dataset.from_list([{SAMPLE_ID: name} for name in ids]),
    )


def _names(rows: list[dict[str, str]]) -> dict[str, list[str]]:
    """Collate: samples are read when the loss is computed, as in the arms."""
    return {SAMPLE_ID: [row[SAMPLE_ID] for row in rows]}
