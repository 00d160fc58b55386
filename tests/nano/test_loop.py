"""The training loop with the thinker and with the tracker: deterministic, resumable, safe on the disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omni_training.grpo.checkpoints import TrainingDivergedError
from omni_training.nano.checkpoint import NanoStateError
from omni_training.nano.config import fingerprint
from omni_training.nano.loop import Task, train
from omni_training.nano.thinker.task import ThinkerTask
from omni_training.nano.tracker.task import TrackerTask
from safetensors.torch import load_file

from omni_sdk.utils import files

Make = Callable[..., Task]


@pytest.fixture(params=["thinker", "tracker"])
def name(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture
def trained(name: str, request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(f"trained_{name}")
    return folder


@pytest.fixture
def make(name: str, request: pytest.FixtureRequest) -> Make:
    """Return a maker of tasks for a folder, with changed settings."""
    config = request.getfixturevalue(f"{name}_config")

    def maker(folder: Path, **changes: Any) -> Task:
        changed = dataclasses.replace(config, **changes)
        return ThinkerTask(changed, folder) if name == "thinker" else TrackerTask(changed)

    return maker


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = folder.glob("*-state.safetensors")
    return load_file(path)


def log_of(folder: Path) -> list[tuple[str, int]]:
    (path,) = folder.glob("*.jsonl")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [(entry["stage"], entry["step"]) for entry in entries]


def stops(name: str) -> Iterator[int]:
    """In the middle of the first stage, at its end, and within others; the rest is left."""
    yield from (2, 2, 7, 5) if name == "thinker" else (3, 12, 2, 3, 2)


def test_stopped_and_resumed_equals_uninterrupted(
    name: str, trained: Path, make: Make, tmp_path: Path
) -> None:
    for steps in stops(name):
        assert train(make(tmp_path), tmp_path, max_steps=steps) is None
    said: list[str] = []
    assert train(make(tmp_path), tmp_path, say=said.append) == tmp_path / name
    assert "resumed at step" in said[0]
    again, whole = state_of(tmp_path), state_of(trained)  # weights and moments in float32
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert log_of(tmp_path) == log_of(trained)


def test_a_finished_run_is_not_run_again(trained: Path, make: Make, tmp_path: Path) -> None:
    for path in trained.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    steps: list[str] = []
    task = make(tmp_path)
    task.keep = lambda stage, step: steps.append(stage)  # type: ignore[method-assign]
    assert train(task, tmp_path) is not None
    assert not steps
    assert log_of(tmp_path) == log_of(trained)


def test_steps_that_are_done_again_are_logged_once(
    name: str, trained: Path, make: Make, tmp_path: Path
) -> None:
    """A line from after the state goes, and so does one of which a kill has left the half."""
    for path in trained.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    log = tmp_path / f"{name}.jsonl"
    last = [*make(tmp_path).config.stages][-1]
    whole = log.read_text()
    log.write_text(whole + json.dumps({"stage": last, "step": 99}) + '\n{"stage": "' + last)
    train(make(tmp_path), tmp_path)
    assert log.read_text() == whole


def test_another_seed_gives_another_model(trained: Path, make: Make, tmp_path: Path) -> None:
    train(make(tmp_path, seed=4), tmp_path, max_steps=1)
    one, two = state_of(trained), state_of(tmp_path)
    assert not all(torch.equal(one[k], two[k]) for k in two if k.startswith("model."))


def test_a_folder_of_another_training_is_refused(trained: Path, make: Make) -> None:
    with pytest.raises(NanoStateError, match="other settings"):
        train(make(trained, seed=9), trained)


def test_what_changes_no_weight_may_change(name: str, make: Make, tmp_path: Path) -> None:
    config = make(tmp_path).config
    first, stage = next(iter(config.stages.items()))
    changes = {"save_seconds": 1.0, first: dataclasses.replace(stage, report=3)}
    assert fingerprint(dataclasses.replace(config, **changes)) == fingerprint(config)
    other = {first: dataclasses.replace(stage, learning_rate=1.0)}
    assert fingerprint(dataclasses.replace(config, **other)) != fingerprint(config)


def test_a_state_that_was_cut_short_never_replaces_a_good_one(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(make(tmp_path), tmp_path, max_steps=1)
    (path,) = tmp_path.glob("*-state.safetensors")
    good = path.read_bytes()

    def torn(handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", torn)
    with pytest.raises(OSError, match="disk full"):
        train(make(tmp_path), tmp_path, max_steps=1)
    assert path.read_bytes() == good
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"text"])
def test_a_damaged_state_is_told(name: str, make: Make, tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{name}-state.safetensors").write_bytes(content)
    with pytest.raises(NanoStateError, match="not the state of a training"):
        train(make(tmp_path), tmp_path)


def test_a_loss_that_is_no_number_stops_the_run(name: str, make: Make, tmp_path: Path) -> None:
    task = make(tmp_path)
    plain, first = task.loss, next(iter(task.config.stages))

    def broken(stage: str, step: int, rng: Any) -> Any:
        loss, scores = plain(stage, step, rng)
        return (loss * float("nan") if step == 2 else loss), scores

    task.loss = broken  # type: ignore[method-assign]
    with pytest.raises(TrainingDivergedError, match=f"nan at step 2 of stage {first}"):
        train(task, tmp_path)


def test_a_gradient_that_is_no_number_changes_no_weight(make: Make, tmp_path: Path) -> None:
    task = make(tmp_path)
    before = {k: v.clone() for k, v in task.module.state_dict().items()}
    plain = task.loss

    def broken(stage: str, step: int, rng: Any) -> Any:
        loss, scores = plain(stage, step, rng)
        loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss, scores

    task.loss = broken  # type: ignore[method-assign]
    said: list[str] = []
    train(task, tmp_path, max_steps=1, say=said.append)
    assert "skipped" in said[0]
    assert all(torch.equal(v, before[k]) for k, v in task.module.state_dict().items())


def test_scaling_changes_the_steps_of_every_stage(make: Make, tmp_path: Path) -> None:
    config = type(make(tmp_path).config)()
    half = config.scaled(0.5)
    for stage in config.stages:
        assert half.stages[stage].steps == config.stages[stage].steps // 2
    assert config.scaled(1.0) == config
    with pytest.raises(ValueError, match="above 0"):
        config.scaled(0)
