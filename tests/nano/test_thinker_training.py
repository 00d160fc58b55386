"""The whole training at a tiny size: deterministic, resumable, and its checkpoint is one of the SDK's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omni_training.grpo.checkpoints import TrainingDivergedError
from omni_training.nano.thinker.config import STAGES, ThinkerConfig
from omni_training.nano.thinker.task import FINAL, LOG, STATE, NanoStateError, schedule, train
from safetensors.torch import load_file

from omni_sdk.hf.checkpoint import load_thinker


@pytest.fixture(scope="module")
def trained(tiny_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny training."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, tiny_config) == folder / FINAL
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / FINAL / "model.safetensors")


def test_every_stage_is_run_and_reported(trained: Path) -> None:
    entries = [json.loads(line) for line in (trained / LOG).read_text().splitlines()]
    assert [e["stage"] for e in entries] == ["dense", "dense", "sound", "text", "sft", "polish"]
    asked = {"reason_loss", "table_loss", "ground_loss", "picture_loss", "text_loss"}
    assert asked | {"box_loss"} == entries[-1]["running"].keys()
    last = entries[-1]["development"]
    assert {"colour", "time", "motion", "lookup", "box_iou", "box_absent"} <= last.keys()
    assert [f.name for f in trained.glob("early-*")] == ["early-40"]


def test_the_checkpoint_is_the_sdks(trained: Path, tiny_config: Any) -> None:
    loaded = load_thinker(trained / FINAL)
    assert loaded.spec.vision.image_pixels == (112 * 112, 112 * 112 + 1)
    assert loaded.spec.vision.video_pixels == (48 * 48, 48 * 48 + 1)
    assert loaded.model.config.text_config.hidden_size == tiny_config.sizes.hidden
    assert sum(f.stat().st_size for f in (trained / FINAL).iterdir()) < 1 << 20


def test_killed_and_resumed_equals_uninterrupted(
    trained: Path, tiny_config: Any, tmp_path: Path
) -> None:
    """Stops in the middle of the first stage and of the last two."""
    for steps in (3, 7, 5):
        assert train(tmp_path, tiny_config, max_steps=steps) is None
    assert train(tmp_path, tiny_config) is not None
    again, whole = weights(tmp_path), weights(trained)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_another_seed_gives_another_model(tiny_config: Any, trained: Path, tmp_path: Path) -> None:
    train(tmp_path, dataclasses.replace(tiny_config, seed=4), until="dense")
    other = load_file(tmp_path / STATE)
    name = "model.thinker.model.visual.merger.mlp.0.weight"
    assert not torch.equal(other[name], load_file(trained / STATE)[name])


def test_each_stage_changes_just_its_part(tiny_config: Any, tmp_path: Path) -> None:
    before: dict[str, torch.Tensor] = {}
    parts = {"dense": ".visual.", "sound": ".audio_tower.", "text": "language_model"}
    for stage, part in parts.items():
        train(tmp_path, tiny_config, until=stage)
        now = {
            k: v for k, v in load_file(tmp_path / STATE).items() if k.startswith("model.thinker")
        }
        changed = {k for k in before if not torch.equal(before[k], now[k])}
        assert all(part in k or (stage == "text" and "lm_head" in k) for k in changed)
        assert changed or not before
        before = now


def test_only_polish_trains_the_box_head(tiny_config: Any, trained: Path, tmp_path: Path) -> None:
    train(tmp_path, tiny_config, until="sft")
    before, after = load_file(tmp_path / STATE), load_file(trained / STATE)
    assert [k for k in before if "box_head" in k and k.startswith("adam.")] == []
    assert "adam.box_head.linear.weight:exp_avg" in after
    assert not torch.equal(
        before["model.box_head.linear.weight"], after["model.box_head.linear.weight"]
    )


def test_a_folder_of_another_training_is_refused(trained: Path, tiny_config: Any) -> None:
    with pytest.raises(NanoStateError, match="other settings"):
        train(trained, dataclasses.replace(tiny_config, seed=9))


def test_a_loss_that_is_no_number_stops_the_run(
    tiny_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omni_training.nano.thinker.learner import Learner

    plain = Learner.step

    def broken(self: Any, stage: str, number: int, rng: Any) -> Any:
        loss, scores = plain(self, stage, number, rng)
        return (loss * float("nan") if number == 2 else loss), scores

    monkeypatch.setattr(Learner, "step", broken)
    with pytest.raises(TrainingDivergedError, match="step 2 of stage dense"):
        train(tmp_path, tiny_config)


def test_the_schedule_warms_up_holds_and_falls() -> None:
    plan = ThinkerConfig().sft
    rates = [schedule(plan, n) for n in range(plan.steps)]
    assert rates[0] == pytest.approx(1 / plan.warmup)
    assert rates[plan.warmup : int(plan.hold * plan.steps)] == [1.0] * (
        int(plan.hold * plan.steps) - plan.warmup
    )
    assert rates[-1] == pytest.approx(plan.final)
    assert (np.diff(rates[int(plan.hold * plan.steps) :]) <= 0).all()


def test_scaling_changes_the_steps_of_every_stage() -> None:
    config = ThinkerConfig().scaled(0.5)
    for stage in STAGES:
        assert getattr(config, stage).steps == getattr(ThinkerConfig(), stage).steps // 2
    assert ThinkerConfig().scaled(1.0) == ThinkerConfig()
    with pytest.raises(ValueError, match="above 0"):
        ThinkerConfig().scaled(0)
