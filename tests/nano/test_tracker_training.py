"""The tracker's training at a tiny size: it learns, and what it leaves is evaluated and exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omni_training.cli import main
from omni_training.nano.tracker import evaluate as tracker_evaluate
from omni_training.nano.tracker.config import TrackerConfig, TrackerStage
from omni_training.nano.tracker.evaluate import evaluate_clips, evaluate_files
from omni_training.nano.tracker.model import new_model
from omni_training.nano.tracker.scores import TrackScore, summarise_tracks
from omni_training.nano.tracker.task import draw_step, forward
from omni_training.nano.tracker.unroll import TrackerUnroll
from safetensors.torch import load_file

from omni_sdk.hf.sam2_checkpoint import load_model


def box_loss(model, config: TrackerConfig) -> float:
    """Of clips that were not trained_tracker on."""
    unroll = TrackerUnroll(model)
    losses = []
    with torch.no_grad():
        for seed in range(2):
            batch, _ = draw_step(np.random.default_rng(seed), config.box, config.sizes.image_size)
            loss = forward(unroll, batch, balance=1.0, own_presence=False, with_score=False)
            losses.append(float(loss.mask))
    return float(np.mean(losses))


def test_boxes_are_learnt(trained_tracker, tracker_config) -> None:
    lines = (trained_tracker / "tracker.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    ends = [("box", 15), ("clip", 4), ("long", 2), ("hidden", 2)]
    assert [(e["stage"], e["step"]) for e in entries] == ends
    assert all(np.isfinite([*e["running"].values()]).all() for e in entries)
    assert "j_visible" in entries[-1]["development"]
    # measured: 2.5 before, 1.2 after 15 steps of the first stage
    models = new_model(tracker_config.sizes, 0), load_model(trained_tracker / "tracker")
    before, after = (box_loss(model.eval(), tracker_config) for model in models)
    assert after < 0.65 * before


def test_the_model_is_a_checkpoint_of_transformers(trained_tracker) -> None:
    model = load_model(trained_tracker / "tracker")
    assert model.config.image_size == 96
    for name, value in load_file(trained_tracker / "tracker-state.safetensors").items():
        if name.startswith("model."):
            assert torch.equal(model.state_dict()[name[6:]], value.half().float()), name


def test_rates_warm_up_and_fall() -> None:
    stage = TrackerStage(
        steps=100, clips=1, objects=1, frames=(1, 1), learning_rate=1.0, warmup=0.1, final_rate=0.1
    )
    rates = [stage.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert int(np.argmax(rates)) in (9, 10)
    assert sorted(rates[10:], reverse=True) == rates[10:]
    assert 0.1 < rates[-1] < 0.11


def test_the_summary_of_tracks() -> None:
    visible = np.array([True, False, True, True, False, True])
    j = np.array([0.5, 1.0, 0.8, 0.6, 0.0, 0.4])
    score = TrackScore(j, visible, np.array([False, True, False, False, False, True]), prompt=2)
    # Seen from frame 2, the object is back on frame 0 (backward) and on frame 5 (forward).
    assert score.after_absence.tolist() == [True, False, False, False, False, True]
    values = summarise_tracks([score])
    assert values["j_visible"] == pytest.approx((0.5 + 0.8 + 0.6 + 0.4) / 4)
    assert values["j"] == pytest.approx(j.mean())
    assert values["j_prompted"] == pytest.approx(0.8)
    assert values["absent_empty"] == 0.5
    assert values["false_absent"] == 0.25
    assert values["j_after_absence"] == pytest.approx(0.45)
    assert (values["absent_frames"], values["after_frames"]) == (2, 2)


def test_clips_are_judged_from_arrays_and_from_files(trained_tracker) -> None:
    """Two objects or more per clip, both directions; the codec changes little."""
    model = load_model(trained_tracker / "tracker")
    arrays = evaluate_clips(model, clips=1, frames=8)
    files = evaluate_files(model, clips=1, fps=1.0)
    assert arrays.keys() == files.keys() | {"j_after_absence"} & arrays.keys()
    assert abs(arrays["j_prompted"] - files["j_prompted"]) < 0.2
    assert 0 <= evaluate_clips(model, clips=1, frames=4, last=True, error=0.1)["j_visible"] <= 1


def test_the_command_judges_a_tracker(trained_tracker, tmp_path, capsys, monkeypatch) -> None:
    assert main(["nano", "--out", str(tmp_path), "--evaluate", str(tmp_path / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    monkeypatch.setattr(tracker_evaluate, "FAMILIES", ("direct",))
    evaluate = ["--evaluate", str(trained_tracker / "tracker"), "--clips", "1"]
    assert main(["nano", "--out", str(tmp_path), *evaluate]) == 0
    path = Path(capsys.readouterr().out.splitlines()[-1])
    assert path == tmp_path / "evaluation-tracker-frames.json"
    table = json.loads(path.read_text())["table"]
    assert table.keys() == {"boxes", "true_boxes", "wrong_boxes", "true_boxes_backward"}


def test_it_is_exported_and_tracks_alike(trained_tracker, tmp_path) -> None:
    from omni_export.bundle_writer import ExportOptions, export_bundle

    from omni_sdk import Pipeline

    options = ExportOptions(dus=str(trained_tracker / "tracker"), licenses={"dus": "apache-2.0"})
    manifest = export_bundle(tmp_path / "nano", options)
    rows = {row.subject: row for row in manifest.parity}
    assert rows["tracked clip"].value <= 0.01  # 1 - least mask IoU
    tracker = Pipeline.from_pretrained(tmp_path / "nano", device="cpu", backend="onnx").tracker
    ours = evaluate_files(tracker, clips=1, fps=1.0)
    torch_values = evaluate_files(load_model(trained_tracker / "tracker"), clips=1, fps=1.0)
    for name, value in torch_values.items():
        assert ours[name] == pytest.approx(value, abs=0.02), name
