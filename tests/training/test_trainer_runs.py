"""Runs that must agree: accumulated, split, two processes, killed and resumed; and runs that must stop.

Tolerances: the same numbers summed in another order. Losses are means of at most 8 rollouts in float32,
weights move by about 1e-3 a step (AdamW), so 1e-5 is far below any effect of a wrong row or scale.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from omni_training.grpo.checkpoints import TrainingDivergedError
from omni_training.grpo.tiny import TinySamples
from safetensors.torch import load_file
from trl import GRPOTrainer

from omni_sdk.errors import DatasetError, MediaError

TOLERANCE = 1e-5


def program(
    tiny: ModuleType, mode: str, checkpoint: Path, folder: Path, report: Path, **env: str
) -> subprocess.Popen[str]:
    """Start tiny_trainer.py as a process of its own."""
    command = [sys.executable, str(tiny.__file__), mode, str(checkpoint), str(folder), str(report)]
    return subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("bug", [None, "wrong scale"])
def test_accumulated_steps_equal_whole_ones(
    make_trainer: Callable[..., Any], tiny: ModuleType, bug: str | None
) -> None:
    """8 rollouts at once, and 2 x 4 of the same rollouts."""
    whole = make_trainer()
    whole.train()
    split = make_trainer(per_device_train_batch_size=4, gradient_accumulation_steps=2)
    if bug:
        compute = split._compute_loss
        split._compute_loss = lambda model, inputs: compute(model, inputs) * 2
    split.train()
    gap = float((tiny.weights(whole) - tiny.weights(split)).abs().max())
    if bug is None:
        np.testing.assert_allclose(tiny.losses(split), tiny.losses(whole), atol=TOLERANCE)
        assert gap < TOLERANCE
    else:
        assert not np.allclose(tiny.losses(split), tiny.losses(whole), atol=TOLERANCE)


@pytest.mark.parametrize("bug", [None, "old and new media swapped"])
def test_steps_of_one_round_have_the_whole_rounds_loss(
    make_trainer: Callable[..., Any], bug: str | None
) -> None:
    """Two steps from one shuffled round against one step with all of it, at a rate of 0.

    The policy is moved off its reference first, so that every row's media count in the KL term.
    """

    def history(**options: Any) -> list[dict[str, float]]:
        trainer = make_trainer(learning_rate=0.0, beta=0.5, num_generations=4, **options)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in trainer.model.parameters():
                if parameter.requires_grad:
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter += 0.1 * parameter.abs().mean() * noise
        if bug and "steps_per_generation" in options:
            generate = trainer._generate_and_score_completions

            def swapped(rows: Any) -> Any:
                output = generate(rows)
                output["media"] = output["media"][::-1]
                return output

            trainer._generate_and_score_completions = swapped
        trainer.train()
        return [e for e in trainer.state.log_history if "loss" in e]

    whole = history(max_steps=2)
    caught = contextlib.suppress(ValueError, RuntimeError) if bug else contextlib.nullcontext()
    split: list[dict[str, float]] = []
    with caught:
        split = history(per_device_train_batch_size=4, steps_per_generation=2, max_steps=4)
    means = [
        np.mean([e["loss"] for e in split[i : i + 2]], axis=0) for i in range(0, len(split), 2)
    ]
    expected = [e["loss"] for e in whole]
    assert min(map(abs, expected)) > 1e-2
    if bug is None:
        np.testing.assert_allclose(means, expected, atol=TOLERANCE)
    else:
        assert not means or not np.allclose(means, expected, atol=1e-3)


@pytest.mark.parametrize("bug", [None, "media left behind"])
def test_media_stay_with_their_rows_over_several_steps(
    make_trainer: Callable[..., Any], bug: str | None
) -> None:
    """Two optimiser steps from one shuffled, split round of rollouts: at the first, policy = old policy."""
    trainer = make_trainer(per_device_train_batch_size=4, steps_per_generation=2, max_steps=4)
    gaps: list[float] = []
    compute = trainer._compute_loss

    def checked(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if bug:
            inputs["media"] = inputs["media"][::-1]
        if trainer._step % 2 == 0:
            trainer._media = inputs["media"]
            ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
            mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
            keep = inputs["completion_ids"].shape[1]
            with torch.no_grad():
                now, _, _ = trainer._get_per_token_logps_and_entropies(model, ids, mask, keep)
            different = (now - inputs["old_per_token_logps"])[inputs["completion_mask"].bool()]
            gaps.append(float(different.abs().max()))
        return compute(model, inputs)

    trainer._compute_loss = checked
    if bug:
        # Reversed rows may hold another number of features than the placeholders: that is seen as well.
        with contextlib.suppress(ValueError, RuntimeError):
            trainer.train()
        assert not gaps or max(gaps) > 1e-2
        return
    trainer.train()
    assert len(gaps) == 2
    assert max(gaps) < 1e-4


def test_two_processes_equal_one(
    tiny: ModuleType, tiny_checkpoint: Path, make_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    """gloo, 4 rollouts each, against 8 in one process; rollouts come from the hook, alike in both.

    The two also save together, and go on together from what they saved.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = [
        program(
            tiny,
            "two-processes",
            tiny_checkpoint,
            tmp_path / "two",
            tmp_path / "two.json",
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
        )
        for rank in range(2)
    ]
    one = make_trainer(max_steps=3, trainer={"rollout_func": tiny.fixed_rollouts})
    one.train()
    logs = [p.communicate(timeout=300)[0] for p in ranks]
    assert [p.returncode for p in ranks] == [0, 0], logs
    plain, resumed = json.loads((tmp_path / "two.json").read_text())
    for two in (plain, resumed):
        np.testing.assert_allclose(two["losses"], tiny.losses(one), atol=TOLERANCE)
        np.testing.assert_allclose(two["weights"], tiny.weights(one).numpy(), atol=TOLERANCE)
    assert not (tmp_path / "two" / ".incomplete").exists()
    files = {p.name for p in (tmp_path / "two" / "checkpoint-2").iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt", "trainer_state.json"} <= files


def test_a_killed_run_resumes_to_the_same_losses(
    tiny: ModuleType, tiny_checkpoint: Path, make_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    """Killed while checkpoint-4 is half written; resumed from checkpoint-2."""
    folder = tmp_path / "killed"
    killed = program(tiny, "kill", tiny_checkpoint, folder, tmp_path / "never.json")
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    plain = make_trainer(**options)
    plain.train()
    log = killed.communicate(timeout=300)[0]
    assert killed.returncode == -signal.SIGKILL, log
    assert list((folder / ".incomplete" / "checkpoint-4").iterdir()), "the kill came too early"
    assert [p.name for p in folder.glob("checkpoint-*")] == ["checkpoint-2"]
    resumed = make_trainer(output_dir=folder, **options)
    resumed.train(resume_from_checkpoint=True)
    np.testing.assert_allclose(tiny.losses(resumed), tiny.losses(plain), atol=TOLERANCE)
    assert float((tiny.weights(resumed) - tiny.weights(plain)).abs().max()) < TOLERANCE
    assert sorted(p.name for p in folder.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    assert not (folder / ".incomplete").exists()


@pytest.mark.parametrize("bug", [None, "transformers' own loading"])
def test_a_checkpoint_gives_back_its_weights(
    make_trainer: Callable[..., Any], tiny: ModuleType, tmp_path: Path, bug: str | None
) -> None:
    first = make_trainer(save_strategy="steps", save_steps=2, max_steps=2)
    first.train()
    second = make_trainer()
    load = type(second)._load_from_checkpoint if bug is None else GRPOTrainer._load_from_checkpoint
    load(second, str(tmp_path / "out" / "checkpoint-2"))
    assert torch.equal(tiny.weights(first), tiny.weights(second)) is (bug is None)


class Holes(TinySamples):
    """Sample 1 cannot be read."""

    def request(self, sample_id: str) -> Any:
        if sample_id == "1":
            raise MediaError("clip1.mp4: no video stream")
        return super().request(sample_id)


def test_an_unreadable_sample_is_skipped_and_counted(
    make_trainer: Callable[..., Any], tiny: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    """Its rollouts move nothing: the weights are those of a run in which its reward is a constant."""
    trainer = make_trainer(
        samples=Holes,
        num_samples=2,
        max_steps=1,
        lr_scheduler_type="constant",
        guard={"max_failed_share": 0.5},
    )
    seen: dict[str, Any] = {}
    compute = trainer._compute_loss

    def look(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        seen.update(inputs)
        return compute(model, inputs)

    trainer._compute_loss = look
    trainer.train()
    assert trainer.samples.failed == {"1": "clip1.mp4: no video stream"}
    assert trainer.state.log_history[0]["samples/skipped"] == 1.0
    assert "clip1.mp4" in caplog.text
    skipped = torch.tensor([m.position_ids.shape[1] == 1 for m in seen["media"]])
    assert skipped.sum() == 4
    assert not seen["completion_mask"][skipped].any()
    assert not seen["advantages"][skipped].any()
    assert seen["advantages"][~skipped].abs().max() > 0
    assert all(math.isfinite(loss) for loss in tiny.losses(trainer))


def test_too_many_unreadable_samples_stop_the_run(make_trainer: Callable[..., Any]) -> None:
    class Nothing(TinySamples):
        def request(self, sample_id: str) -> Any:
            raise MediaError(f"{sample_id}.mp4 is missing")

    trainer = make_trainer(samples=Nothing, guard={"min_seen": 4}, max_steps=5)
    with pytest.raises(DatasetError, match="4 of 4 samples cannot be read"):
        trainer.train()


def test_a_short_run_is_judged_at_its_end(make_trainer: Callable[..., Any]) -> None:
    """Two samples are too few to judge on the way; half of them failed."""
    trainer = make_trainer(samples=Holes, num_samples=2, max_steps=1)
    with pytest.raises(DatasetError, match="1 of 2 samples cannot be read"):
        trainer.train()


def test_a_long_prompt_is_skipped_not_cut(make_trainer: Callable[..., Any]) -> None:
    trainer = make_trainer(guard={"max_prompt_tokens": 20, "max_failed_share": 1.0}, max_steps=1)
    trainer.train()
    assert trainer.samples.failed
    assert all("max_prompt_tokens=20" in reason for reason in trainer.samples.failed.values())


def test_a_loss_that_is_not_finite_stops_and_saves_the_batch(
    make_trainer: Callable[..., Any], tmp_path: Path
) -> None:
    trainer = make_trainer()
    compute = trainer.compute_loss

    def corrupt(model: Any, inputs: dict[str, Any], **kwargs: Any) -> torch.Tensor:
        trainer.model.lm_head.weight.data[5] = math.nan
        return compute(model, inputs, **kwargs)

    trainer.compute_loss = corrupt
    with pytest.raises(TrainingDivergedError, match="bad-batch-0"):
        trainer.train()
    (folder,) = (tmp_path / "out").glob("bad-batch-*")
    saved = load_file(folder / "batch.safetensors")
    assert {"prompt_ids", "completion_ids", "advantages", "media.0.video"} <= set(saved)
    record = json.loads((folder / "batch.json").read_text())
    assert record["step"] == 0
    assert len(record["samples"]) == 8
    lengths = saved["prompt_mask"].sum(1).tolist()
    store = TinySamples(trainer.accelerator.unwrap_model(trainer.model))
    assert lengths == [len(store.request(name).input_ids) for name in record["samples"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"save_strategy": "steps", "save_steps": 1, "steps_per_generation": 2}, "multiple"),
        ({"pad_to_multiple_of": 8}, "pad_to_multiple_of"),
        ({"generation_kwargs": {}}, "suppress"),
    ],
)
def test_options_that_break_the_algorithm_are_refused(
    make_trainer: Callable[..., Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(**options)


def test_adapters_leave_the_rest_alone(make_trainer: Callable[..., Any]) -> None:
    """LoRA: the reference is the model without adapters, the towers hold none, and a step moves them only."""
    from omni_training.grpo.config import ModelSettings
    from omni_training.grpo.trl_config import lora_config

    lora = lora_config(ModelSettings("x", lora_rank=4))
    trainer = make_trainer(trainer={"peft_config": lora}, max_steps=2)
    named = dict(trainer.model.named_parameters())
    trained = {name for name, p in named.items() if p.requires_grad}
    assert trained
    assert all("lora_" in name and "language_model" in name for name in trained)
    before = {name: p.detach().clone() for name, p in named.items()}
    trainer.train()
    moved = {name for name, p in named.items() if not torch.equal(p, before[name])}
    assert moved
    assert moved <= trained
    assert trainer.state.log_history[0]["kl"] == pytest.approx(0.0, abs=1e-6)
