"""Runs that were stopped and go on: the same prompts, losses and weights as a run that was not.

Tolerance as in test_trainer_runs: 1e-5, the same float32 numbers again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from trl import GRPOTrainer

TOLERANCE = 1e-5


def watched(trainer: Any) -> list[list[str]]:
    """Return the list that will hold the samples of each round of rollouts."""
    seen: list[list[str]] = []
    generate = trainer._generate_and_score_completions

    def watch(rows: list[dict[str, Any]]) -> Any:
        seen.append(list(dict.fromkeys(row["sample_id"] for row in rows)))
        return generate(rows)

    trainer._generate_and_score_completions = watch
    return seen


def stop_after(folder: Path, step: int) -> None:
    """Leave one checkpoint, as if the run had been killed after it."""
    for path in folder.glob("checkpoint-*"):
        if path.name != f"checkpoint-{step}":
            shutil.rmtree(path)


@pytest.mark.parametrize("bug", [None, "TRL's own sampler"])
def test_a_run_resumed_in_its_second_pass_takes_the_same_prompts(
    make_trainer: Callable[..., Any], tiny: ModuleType, tmp_path: Path, bug: str | None
) -> None:
    """Four samples, two a step: step 3 is in the middle of the second pass, step 5 in the third."""
    options: dict[str, Any] = {
        "num_samples": 4, "max_steps": 5, "save_strategy": "steps", "save_steps": 1,
        "trainer": {"rollout_func": tiny.fixed_rollouts},
    }  # fmt: skip

    def make() -> Any:
        trainer = make_trainer(**options)
        if bug:
            trainer._get_train_sampler = lambda data=None: GRPOTrainer._get_train_sampler(trainer)
        return trainer

    plain = make()
    order = watched(plain)
    plain.train()
    assert order[0:2] != order[2:4], "each pass draws anew"
    stop_after(tmp_path / "out", 3)
    resumed = make()
    rest = watched(resumed)
    resumed.train(resume_from_checkpoint=True)
    if bug:
        assert rest != order[3:]
        return
    assert rest == order[3:]
    np.testing.assert_allclose(tiny.losses(resumed), tiny.losses(plain), atol=TOLERANCE)
    assert float((tiny.weights(resumed) - tiny.weights(plain)).abs().max()) < TOLERANCE


@pytest.mark.parametrize("bug", [None, "transformers' own loop"])
def test_a_complete_run_is_not_trained_further(
    make_trainer: Callable[..., Any], tiny: ModuleType, bug: str | None
) -> None:
    """Killed after its last checkpoint, before anything was made of it."""
    options = {
        "max_steps": 2, "save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant",
    }  # fmt: skip
    plain = make_trainer(**options)
    plain.train()
    resumed = make_trainer(**options)
    if bug:
        resumed._run_epoch = lambda **kwargs: GRPOTrainer._run_epoch(resumed, **kwargs)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == (2 if bug is None else 3)
    assert torch.equal(tiny.weights(resumed), tiny.weights(plain)) is (bug is None)


def test_adapters_resume_to_the_same_losses(
    make_trainer: Callable[..., Any], tiny: ModuleType, tmp_path: Path
) -> None:
    """LoRA: checkpoints hold adapters only; the reference stays the model without them."""
    from omni_training.grpo.config import ModelSettings
    from omni_training.grpo.trl_config import lora_config

    def make() -> Any:
        lora = lora_config(ModelSettings("x", lora_rank=4))
        trainer = {"peft_config": lora, "rollout_func": tiny.fixed_rollouts}
        return make_trainer(
            trainer=trainer, max_steps=4, save_strategy="steps", save_steps=2, learning_rate=1e-2
        )

    plain = make()
    plain.train()
    stop_after(tmp_path / "out", 2)
    resumed = make()
    resumed.train(resume_from_checkpoint=True)
    np.testing.assert_allclose(tiny.losses(resumed), tiny.losses(plain), atol=TOLERANCE)
    assert float((tiny.weights(resumed) - tiny.weights(plain)).abs().max()) < TOLERANCE
    kl = [e["kl"] for e in resumed.state.log_history if "kl" in e]
    assert kl[0] == pytest.approx(0.0, abs=1e-6)
    assert kl[-1] > 1e-3, "the reference must not follow the policy"


def test_a_checkpoint_that_fails_while_writing_leaves_the_last_one(
    make_trainer: Callable[..., Any], tiny: ModuleType, tmp_path: Path
) -> None:
    """A full disk while checkpoint-4 is written: an error, and checkpoint-2 as it was."""
    trainer = make_trainer(save_strategy="steps", save_steps=2, max_steps=4)
    save = trainer._save_optimizer_and_scheduler

    def full(folder: str) -> None:
        if trainer.state.global_step == 4:
            raise OSError(28, "No space left on device")
        save(folder)

    trainer._save_optimizer_and_scheduler = full
    with pytest.raises(OSError, match="No space"):
        trainer.train()
    assert [p.name for p in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-2"]
    again = make_trainer(save_strategy="steps", save_steps=2, max_steps=4)
    again.train(resume_from_checkpoint=True)
    names = sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir())
    assert names == ["checkpoint-2", "checkpoint-4"]


@pytest.mark.parametrize("bug", [None, "log lines only"])
def test_a_bad_gradient_stops_before_it_reaches_the_weights(
    make_trainer: Callable[..., Any], tiny: ModuleType, tmp_path: Path, bug: str | None
) -> None:
    """The loss is finite, its gradient is not; the step that would save comes before the next log line."""
    from omni_training.grpo.checkpoints import TrainingDivergedError

    trainer = make_trainer(
        max_steps=4, save_strategy="steps", save_steps=1, logging_steps=4, max_grad_norm=0.0
    )
    compute = trainer._compute_loss

    def corrupt(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss = compute(model, inputs)
        if trainer.state.global_step == 1:
            bias = next(p for n, p in model.named_parameters() if n.endswith("k_proj.bias"))
            zero = (bias - bias.detach()).abs().sum()
            loss = loss + torch.sqrt(zero)  # 0, with an infinite slope times 0
        return loss

    trainer._compute_loss = corrupt
    if bug:
        trainer._get_grad_norm = lambda *a, **k: GRPOTrainer._get_grad_norm(trainer, *a, **k)
    # Without the check, weights that are no numbers are saved, and the next rollout dies of them.
    with pytest.raises(TrainingDivergedError if bug is None else RuntimeError, match=r"step|nan"):
        trainer.train()
    saved = sorted(p.name for p in (tmp_path / "out").glob("checkpoint-*"))
    assert saved == (["checkpoint-1"] if bug is None else ["checkpoint-1", "checkpoint-2"])
    assert bool(torch.isfinite(tiny.weights(trainer)).all()) is (bug is None)
