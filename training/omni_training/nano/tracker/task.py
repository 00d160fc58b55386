"""Training of the nano tracker from nothing: boxes on single frames, then clips through the memory.

Every batch is a function of (seed, stage, step) and schedules count steps, so a run that was killed and
goes on from its checkpoint gives the weights of one that was not (on the same machine and threads).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Sam2VideoModel

from omni_training.grpo.checkpoints import save_bad_batch
from omni_training.nano.tracker.checkpoint import (
    Progress,
    load_progress,
    save_model,
    save_progress,
)
from omni_training.nano.tracker.clips import TrackingBatch, draw_batch
from omni_training.nano.tracker.config import STAGES, TrackerConfig, TrackerStage
from omni_training.nano.tracker.evaluate import evaluate_boxes, evaluate_clips
from omni_training.nano.tracker.loss import TrackerLoss, batch_loss
from omni_training.nano.tracker.model import new_model, open_memory
from omni_training.nano.tracker.unroll import TrackerUnroll

LOG = "tracker.jsonl"
LOG_STEPS = 25
CALIBRATION_FRAMES = 32
CALIBRATION_STEP = 1 << 40
"""Number of the batch that opens the memory, beyond all steps."""

Say = Callable[[str], None]


def train_tracker(
    config: TrackerConfig,
    out: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    say: Say = print,
    stop_after: int | None = None,
) -> Path | None:
    """Train a tracker, or go on with it.

    Args:
        config: settings.
        out: folder for the checkpoint (tracker.pt), the log (tracker.jsonl) and, at the end, the model in
            transformers' layout (out/tracker).
        resume: go on from the checkpoint in `out`, if there is one; otherwise start afresh.
        device: torch device.
        say: is told the progress, a line at a time.
        stop_after: steps after which to stop with a checkpoint; None: at the end of the training.

    Returns:
        The model's folder; None if it was stopped before the end.

    Raises:
        BundleError: the checkpoint cannot be read or was made with other settings.
        TrainingDivergedError: a loss is not finite; the batch is saved in `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    model = new_model(config.sizes, config.seed)
    progress = load_progress(out, config) if resume else None
    if progress is None:
        progress = Progress(STAGES[0], 0, model.state_dict(), {})
        (out / LOG).unlink(missing_ok=True)
    else:
        say(f"tracker: going on in stage {progress.stage} at step {progress.step}")
        _cut_log(out / LOG, progress)
    model.load_state_dict(progress.model)
    model.to(device).eval()  # it has no dropout
    run = _Run(config, out, model, say, stop_after)
    for stage in STAGES[STAGES.index(progress.stage) :]:
        started = progress.step if stage == progress.stage else 0
        state = progress.optimizer if stage == progress.stage else {}
        if not run.stage(stage, started, state):
            return None
    save_model(model, out / "tracker")
    return out / "tracker"


class _Run:
    """One call of `train_tracker`."""

    def __init__(
        self,
        config: TrackerConfig,
        out: Path,
        model: Sam2VideoModel,
        say: Say,
        stop_after: int | None,
    ) -> None:
        self._config, self._out, self._model, self._say = config, out, model, say
        self._unroll = TrackerUnroll(model)
        self._left = stop_after
        self._saved = time.monotonic()

    def stage(self, name: str, started: int, state: dict[str, Any]) -> bool:
        """Run a stage from a step on; return whether it came to its end."""
        stage: TrackerStage = getattr(self._config, name)
        if name == "clip" and not started:
            open_memory(self._model, self._calibration())
        optimizer = make_optimizer(self._model, self._config)
        if state:
            optimizer.load_state_dict(state)
        recent: list[dict[str, float]] = []
        for step in range(started, stage.steps):
            recent.append(self._step(name, stage, step, optimizer))
            done = step + 1
            if done % LOG_STEPS == 0 or done == stage.steps:
                self._log(name, done, recent)
                recent.clear()
            if done % self._config.evaluate_every == 0 or done == stage.steps:
                self._evaluate(name, done)
            stop = self._count()
            if stop or done == stage.steps or self._due():
                self._save(name, done, optimizer)
            if stop and (done < stage.steps or name != STAGES[-1]):
                return False
        return True

    def _step(
        self, name: str, stage: TrackerStage, step: int, optimizer: torch.optim.Optimizer
    ) -> dict[str, float]:
        rate = learning_rate(stage, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch, own_presence = draw_step(self._config, name, step)
        batch = batch.to(self._model.device)
        loss = forward(self._unroll, batch, stage, step, name, own_presence=own_presence)
        total = loss.total
        if not torch.isfinite(total):
            tensors = {k: v for k, v in vars(batch).items() if isinstance(v, torch.Tensor)}
            boxes = {f"boxes.{t}": value for t, value in batch.boxes.items()}
            save_bad_batch(tensors | boxes, str(self._out), step, 0)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        if torch.isfinite(norm):
            optimizer.step()
        return {
            "loss": float(total.detach()),
            "mask": float(loss.mask.detach()),
            "score": 0.0 if loss.score is None else float(loss.score.detach()),
            "gradient": float(norm),
            "absent": float(1 - batch.present.float().mean()),
        }

    def _calibration(self) -> torch.Tensor:
        sizes, rng = self._config.sizes, _generator(self._config, "clip", CALIBRATION_STEP)
        batch = draw_batch(
            rng,
            side=sizes.image_size,
            clips=CALIBRATION_FRAMES,
            objects=1,
            length=1,
        )
        return batch.pixels.to(self._model.device)

    def _count(self) -> bool:
        if self._left is None:
            return False
        self._left -= 1
        return self._left <= 0

    def _due(self) -> bool:
        return time.monotonic() - self._saved > self._config.checkpoint_seconds

    def _save(self, name: str, step: int, optimizer: torch.optim.Optimizer) -> None:
        progress = Progress(name, step, self._model.state_dict(), optimizer.state_dict())
        save_progress(self._out, self._config, progress)
        self._saved = time.monotonic()

    def _log(self, name: str, step: int, recent: list[dict[str, float]]) -> None:
        means = {k: float(np.mean([r[k] for r in recent])) for k in recent[0]}
        self._write({"stage": name, "step": step, "cpu_s": round(time.process_time(), 1)} | means)

    def _evaluate(self, name: str, step: int) -> None:
        config = self._config
        values = evaluate_boxes(self._model, clips=4 * config.evaluation_clips)
        if name != "box":
            values |= evaluate_clips(self._model, clips=config.evaluation_clips)
        self._write({"stage": name, "step": step, "evaluation": True} | values)

    def _write(self, record: dict[str, Any]) -> None:
        with (self._out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self._say(
            "tracker: "
            + " ".join(
                f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in record.items()
            )
        )


def draw_step(config: TrackerConfig, name: str, step: int) -> tuple[TrackingBatch, bool]:
    """Return a step's batch, and whether its memories believe the model's own score."""
    stage: TrackerStage = getattr(config, name)
    rng = _generator(config, name, step)
    shortest, longest = stage.frames
    length = int(rng.integers(shortest, longest + 1))
    own_presence = bool(rng.random() < stage.own_presence_share)
    # About as many frames in every step, whatever their length.
    clips = max(1, round(stage.clips * (shortest + longest) / 2 / length))
    if rng.random() < stage.single_frame_share:
        clips, length = stage.clips * length, 1
    batch = draw_batch(
        rng,
        side=config.sizes.image_size,
        clips=clips,
        objects=stage.objects,
        length=length,
        crossing_share=stage.crossing_share,
    )
    return batch, own_presence


def forward(
    unroll: TrackerUnroll,
    batch: TrackingBatch,
    stage: TrackerStage,
    step: int,
    name: str,
    *,
    own_presence: bool,
) -> TrackerLoss:
    """Return the loss of a batch."""
    features = unroll.encode(batch.pixels)
    if batch.coverage.shape[1] == 1:
        outputs = [unroll.prompt(features.take(batch.clip_of), batch.boxes[0]).output]
    else:
        outputs = unroll.run(
            features,
            batch.clip_of,
            batch.boxes,
            present=None if own_presence else batch.present,
            max_pointers=batch.max_pointers,
        )
    start, end = stage.balance
    balance = start + (end - start) * step / stage.steps
    balance = min(max(balance, 0.0), 1.0)
    return batch_loss(outputs, batch, balance=balance, with_score=name != "box")


def learning_rate(stage: TrackerStage, step: int) -> float:
    """Return the rate at a step: linear warm-up, then half a cosine down to `final_rate`."""
    share = step / stage.steps
    warm = min(1.0, (step + 1) / max(1.0, stage.warmup * stage.steps))
    cosine = 0.5 * (1 + math.cos(math.pi * share))
    return stage.learning_rate * warm * (stage.final_rate + (1 - stage.final_rate) * cosine)


def make_optimizer(model: nn.Module, config: TrackerConfig) -> torch.optim.AdamW:
    """Return AdamW with decay on matrices only."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98))


def _cut_log(path: Path, progress: Progress) -> None:
    """Forget what was logged after a checkpoint: those steps are done again."""
    if not path.exists():
        return
    here = (STAGES.index(progress.stage), progress.step)
    kept = [
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if (record := json.loads(line)) and (STAGES.index(record["stage"]), record["step"]) <= here
    ]
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _generator(config: TrackerConfig, name: str, step: int) -> np.random.Generator:
    return np.random.default_rng((config.seed, STAGES.index(name), step))
