"""The tracker's training: it learns, it is deterministic, it goes on, it is exported."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omni_training.cli import main
from omni_training.grpo.checkpoints import TrainingDivergedError
from omni_training.nano.tracker import report as tracker_report
from omni_training.nano.tracker import task as training
from omni_training.nano.tracker.checkpoint import FILE, fingerprint, load_progress
from omni_training.nano.tracker.config import STAGES, TrackerConfig, TrackerSizes, TrackerStage
from omni_training.nano.tracker.evaluate import (
    TrackScore,
    evaluate_clips,
    evaluate_files,
    summarise_tracks,
)
from omni_training.nano.tracker.model import new_model
from omni_training.nano.tracker.task import draw_step, forward, learning_rate, train_tracker
from omni_training.nano.tracker.unroll import TrackerUnroll

from omni_sdk.errors import BundleError
from omni_sdk.hf.sam2_checkpoint import load_model

SIZES = TrackerSizes(
    image_size=96, channels=128, widths=(8, 16, 24, 32), blocks=(1, 1, 1, 1), heads=(1, 1, 2, 2)
)
CONFIG = TrackerConfig(
    sizes=SIZES,
    box=TrackerStage(15, 6, 3, (1, 1), 3e-3, 0.1, balance=(1.0, 0.8)),
    clip=TrackerStage(4, 2, 2, (2, 4), 5e-4, 0.1, own_presence_share=0.5, single_frame_share=0.3),
    long=TrackerStage(2, 1, 2, (4, 6), 3e-4, 0.1, own_presence_share=0.5, crossing_share=0.5),
    hidden=TrackerStage(2, 1, 2, (4, 6), 3e-4, 0.1, own_presence_share=0.5, crossing_share=0.7),
    evaluate_every=1000,
    evaluation_clips=1,
)


def quiet(line: str) -> None:
    del line


def log(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "tracker.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("tracker")
    assert train_tracker(CONFIG, out, say=quiet) == out / "tracker"
    return out


def weights(out: Path) -> dict:
    return torch.load(out / FILE, weights_only=True)["model"]


def box_loss(model) -> float:
    """Of clips that were not trained on."""
    unroll = TrackerUnroll(model)
    with torch.no_grad():
        losses = [
            forward(
                unroll, draw_step(CONFIG, "box", n)[0], CONFIG.box, 0, "box", own_presence=False
            )
            for n in range(1000, 1002)
        ]
    return float(np.mean([loss.mask for loss in losses]))


def test_boxes_are_learnt(trained) -> None:
    steps = [r for r in log(trained) if "loss" in r]
    ends = [("box", 15), ("clip", 4), ("long", 2), ("hidden", 2)]
    assert [(r["stage"], r["step"]) for r in steps] == ends
    assert all(np.isfinite(list(r.values())[2:]).all() for r in steps)
    # measured: 2.5 before, 1.2 after 15 steps of the first stage
    before, after = (
        box_loss(model.eval()) for model in (new_model(SIZES, 0), load_model(trained / "tracker"))
    )
    assert after < 0.65 * before


def test_the_model_is_a_checkpoint_of_transformers(trained) -> None:
    model = load_model(trained / "tracker")
    assert model.config.image_size == 96
    for name, value in weights(trained).items():
        assert torch.equal(model.state_dict()[name], value.half().float()), name


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(trained, tmp_path) -> None:
    """Stopped within the first stage, at its end, within the second, the third and the fourth."""
    done = 0
    for stop in (3, 15, 17, 20, 22):
        assert (
            train_tracker(CONFIG, tmp_path, resume=True, say=quiet, stop_after=stop - done) is None
        )
        done = stop
    assert train_tracker(CONFIG, tmp_path, resume=True, say=quiet) == tmp_path / "tracker"
    expected, found = weights(trained), weights(tmp_path)
    assert expected.keys() == found.keys()
    assert [(r["stage"], r["step"]) for r in log(tmp_path)] == [
        (r["stage"], r["step"]) for r in log(trained)
    ]
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_finished_run_is_not_run_again(trained) -> None:
    before = (trained / "tracker.jsonl").read_text()
    assert train_tracker(CONFIG, trained, resume=True, say=quiet) == trained / "tracker"
    assert (trained / "tracker.jsonl").read_text() == before


def test_steps_that_are_done_again_are_logged_once(trained, tmp_path) -> None:
    (tmp_path / FILE).write_bytes((trained / FILE).read_bytes())
    lines = (trained / "tracker.jsonl").read_text()
    (tmp_path / "tracker.jsonl").write_text(lines + '{"stage": "hidden", "step": 3}\n')
    train_tracker(CONFIG, tmp_path, resume=True, say=quiet)
    assert (tmp_path / "tracker.jsonl").read_text() == lines


def test_another_seed_gives_other_clips() -> None:
    other = dataclasses.replace(CONFIG, seed=1)
    one, two = (draw_step(c, "clip", 0)[0].pixels for c in (CONFIG, other))
    assert one.shape != two.shape or not torch.equal(one, two)


def test_a_checkpoint_of_other_settings_is_refused(trained) -> None:
    other = dataclasses.replace(CONFIG, weight_decay=0.5)
    with pytest.raises(BundleError, match="other settings"):
        train_tracker(other, trained, resume=True, say=quiet)
    slower = dataclasses.replace(CONFIG, checkpoint_seconds=1.0, evaluate_every=3)
    assert fingerprint(slower) == fingerprint(CONFIG)


def test_a_checkpoint_that_was_cut_short_never_replaces_a_good_one(trained, tmp_path, monkeypatch):
    train_tracker(CONFIG, tmp_path, say=quiet, stop_after=1)
    good = (tmp_path / FILE).read_bytes()

    def torn(values, file) -> None:
        file.write(b"PK half of it")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError, match="disk full"):
        train_tracker(CONFIG, tmp_path, resume=True, say=quiet, stop_after=1)
    assert (tmp_path / FILE).read_bytes() == good
    progress = load_progress(tmp_path, CONFIG)
    assert progress is not None
    assert (progress.stage, progress.step) == ("box", 1)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 damaged", b"text"])
def test_a_damaged_checkpoint_is_told(tmp_path, content) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(BundleError, match="not a checkpoint"):
        train_tracker(CONFIG, tmp_path, resume=True, say=quiet)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_batch(tmp_path, monkeypatch) -> None:
    plain = training.draw_step

    def spoiled(config, name, step):
        batch, own_presence = plain(config, name, step)
        if step == 2:
            batch.pixels[0, 0, 0, 0] = float("nan")
        return batch, own_presence

    monkeypatch.setattr(training, "draw_step", spoiled)
    with pytest.raises(TrainingDivergedError, match="not finite at step 2"):
        train_tracker(CONFIG, tmp_path, say=quiet)
    (folder,) = tmp_path.glob("bad-batch-*")
    assert {"pixels", "coverage", "boxes.0"} <= json.loads((folder / "batch.json").read_text())[
        "tensors"
    ].keys()


def test_rates_warm_up_and_fall() -> None:
    stage = TrackerStage(100, 1, 1, (1, 1), 1.0, 0.1, final_rate=0.1)
    rates = [learning_rate(stage, step) for step in range(100)]
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


def test_clips_are_judged_from_arrays_and_from_files(trained) -> None:
    """Two objects or more per clip, both directions; the codec changes little."""
    model = load_model(trained / "tracker")
    arrays = evaluate_clips(model, clips=1, frames=8)
    files = evaluate_files(model, clips=1, fps=1.0)
    assert arrays.keys() == files.keys() | {"j_after_absence"} & arrays.keys()
    assert abs(arrays["j_prompted"] - files["j_prompted"]) < 0.2
    assert 0 <= evaluate_clips(model, clips=1, frames=4, last=True, error=0.1)["j_visible"] <= 1


def test_the_command_judges_a_tracker(trained, tmp_path, capsys, monkeypatch) -> None:
    assert main(["nano", "--out", str(tmp_path), "--evaluate", str(tmp_path / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    monkeypatch.setattr(tracker_report, "FAMILIES", ("direct",))
    evaluate = ["--evaluate", str(trained / "tracker"), "--clips", "1"]
    assert main(["nano", "--out", str(tmp_path), *evaluate]) == 0
    path = Path(capsys.readouterr().out.splitlines()[-1])
    assert path == tmp_path / "evaluation-tracker-frames.json"
    table = json.loads(path.read_text())["table"]
    assert table.keys() == {"boxes", "true_boxes", "wrong_boxes", "true_boxes_backward"}


def test_scaling_changes_the_steps_of_all_stages() -> None:
    config, half = TrackerConfig(), TrackerConfig().scaled(0.5)
    for name in STAGES:
        assert getattr(half, name).steps == getattr(config, name).steps // 2
    assert config.scaled(1.0) == config
    with pytest.raises(ValueError, match="above 0"):
        config.scaled(0)


def test_it_is_exported_and_tracks_alike(trained, tmp_path) -> None:
    from omni_export.bundle_writer import ExportOptions, export_bundle

    from omni_sdk import Pipeline

    options = ExportOptions(dus=str(trained / "tracker"), licenses={"dus": "apache-2.0"})
    manifest = export_bundle(tmp_path / "nano", options)
    rows = {row.subject: row for row in manifest.parity}
    assert rows["tracked clip"].value <= 0.01  # 1 - least mask IoU
    tracker = Pipeline.from_pretrained(tmp_path / "nano", device="cpu", backend="onnx").tracker
    ours = evaluate_files(tracker, clips=1, fps=1.0)
    torch_values = evaluate_files(load_model(trained / "tracker"), clips=1, fps=1.0)
    for name, value in torch_values.items():
        assert ours[name] == pytest.approx(value, abs=0.02), name
