"""The thinker's training at a tiny size: its stages, its schedule, its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omni_training.nano.loop import train
from omni_training.nano.thinker.config import ThinkerConfig
from omni_training.nano.thinker.task import ThinkerTask
from safetensors.torch import load_file

from omni_sdk.hf.checkpoint import load_thinker

STATE = "thinker-state.safetensors"


def test_every_stage_is_run_and_reported(trained_thinker: Path) -> None:
    lines = (trained_thinker / "thinker.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [e["stage"] for e in entries] == ["dense", "dense", "sound", "text", "sft", "polish"]
    asked = {"reason_loss", "table_loss", "ground_loss", "picture_loss", "text_loss", "box_loss"}
    assert asked | {"loss", "gradient"} == entries[-1]["running"].keys()
    last = entries[-1]["development"]
    assert {"colour", "time", "motion", "lookup", "box_iou", "box_absent"} <= last.keys()
    assert [f.name for f in trained_thinker.glob("early-*")] == ["early-40"]


def test_the_checkpoint_is_the_sdks(trained_thinker: Path, thinker_config: ThinkerConfig) -> None:
    folder = trained_thinker / "thinker"
    loaded = load_thinker(folder)
    assert loaded.spec.vision.image_pixels == (112 * 112, 112 * 112 + 1)
    assert loaded.spec.vision.video_pixels == (48 * 48, 48 * 48 + 1)
    assert loaded.model.config.text_config.hidden_size == thinker_config.sizes.hidden
    assert sum(f.stat().st_size for f in folder.iterdir()) < 1 << 20


def test_each_stage_changes_just_its_part(
    thinker_config: ThinkerConfig, trained_thinker: Path, tmp_path: Path
) -> None:
    """The box head is trained by the last stage alone."""
    before: dict[str, torch.Tensor] = {}
    parts = {"dense": ".visual.", "sound": ".audio_tower.", "text": "language_model", "sft": ""}
    for stage, part in parts.items():
        assert train(ThinkerTask(thinker_config, tmp_path), tmp_path, until=stage) is None
        state = load_file(tmp_path / STATE)
        now = {k: v for k, v in state.items() if k.startswith("model.thinker")}
        changed = {k for k in before if not torch.equal(before[k], now[k])}
        assert all(part in k or (stage == "text" and "lm_head" in k) for k in changed)
        assert changed or not before
        before = now
    after = load_file(trained_thinker / STATE)
    assert not [k for k in state if "box_head" in k and k.startswith("adam.")]
    assert "adam.box_head.linear.weight:exp_avg" in after
    weights = "model.box_head.linear.weight"
    assert not torch.equal(state[weights], after[weights])


def test_the_rate_warms_up_holds_and_falls() -> None:
    stage = ThinkerConfig().sft
    rates = [stage.rate(n) / stage.learning_rate for n in range(stage.steps)]
    held = int(stage.hold * stage.steps)
    assert rates[0] == pytest.approx(1 / stage.warmup)
    assert rates[stage.warmup : held] == pytest.approx([1.0] * (held - stage.warmup))
    assert rates[-1] == pytest.approx(stage.final)
    assert (np.diff(rates[held:]) <= 0).all()
