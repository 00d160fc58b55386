"""The nano tracker as a task of the training loop: boxes on single frames, then clips through the memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Sam2VideoModel

from omni_training.nano.loop import Scores, Task
from omni_training.nano.tracker.clips import TrackingBatch, draw_batch
from omni_training.nano.tracker.config import TrackerConfig, TrackerStage
from omni_training.nano.tracker.evaluate import evaluate_boxes, evaluate_clips
from omni_training.nano.tracker.loss import TrackerLoss, batch_loss
from omni_training.nano.tracker.model import new_model, open_memory, save_model
from omni_training.nano.tracker.unroll import TrackerUnroll

CALIBRATION_FRAMES = 32
CALIBRATION_STEP = 1 << 40
"""Number of the batch that opens the memory, beyond all steps."""


class TrackerTask(Task):
    """A small SAM 2, from random weights."""

    name = "tracker"
    config: TrackerConfig
    module: Sam2VideoModel

    def __init__(self, config: TrackerConfig, device: str = "cpu") -> None:
        """Make the model on a device."""
        self.config = config
        self.module = new_model(config.sizes, config.seed).to(device).eval()  # it has no dropout
        self._unroll = TrackerUnroll(self.module)

    def optimizer(self, stage: str) -> torch.optim.AdamW:
        """Return a new optimiser with decay on matrices only."""
        parameters = self.parameters(stage)
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2]},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        decay = self.config.weight_decay
        return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), weight_decay=decay)

    def parameters(self, stage: str) -> list[nn.Parameter]:
        """Return all parameters; every stage trains what it uses."""
        return list(self.module.parameters())

    def begin(self, stage: str) -> None:
        """Open the memory when clips come."""
        if stage == "clip":
            batch = draw_batch(
                self.generator(stage, CALIBRATION_STEP),
                side=self.config.sizes.image_size,
                clips=CALIBRATION_FRAMES,
                objects=1,
                length=1,
            )
            open_memory(self.module, batch.pixels.to(self.module.device))

    def loss(self, stage: str, step: int, rng: np.random.Generator) -> tuple[Tensor, Scores]:
        """Draw a batch and return its loss and what to log."""
        settings = self.config.stages[stage]
        assert isinstance(settings, TrackerStage)
        batch, own_presence = draw_step(rng, settings, self.config.sizes.image_size)
        start, end = settings.balance
        loss = forward(
            self._unroll,
            batch.to(self.module.device),
            balance=min(max(start + (end - start) * step / settings.steps, 0.0), 1.0),
            own_presence=own_presence,
            with_score=stage != "box",
        )
        scores = {
            "mask": float(loss.mask.detach()),
            "score": 0.0 if loss.score is None else float(loss.score.detach()),
            "absent": float(1 - batch.present.float().mean()),
        }
        return loss.total, scores

    def evaluate(self, stage: str) -> Scores:
        """Return measures of boxes and, from the second stage on, of tracks."""
        clips = self.config.evaluation_clips
        values = evaluate_boxes(self.module, clips=4 * clips)
        return values if stage == "box" else values | evaluate_clips(self.module, clips=clips)

    def save(self, folder: Path) -> None:
        """Write the checkpoint in transformers' layout."""
        save_model(self.module, folder)


def draw_step(
    rng: np.random.Generator, stage: TrackerStage, side: int
) -> tuple[TrackingBatch, bool]:
    """Return a step's batch of `side` pixels, and whether its memories believe the model's own score."""
    shortest, longest = stage.frames
    length = int(rng.integers(shortest, longest + 1))
    own_presence = bool(rng.random() < stage.own_presence_share)
    # About as many frames in every step, whatever their length.
    clips = max(1, round(stage.clips * (shortest + longest) / 2 / length))
    if rng.random() < stage.single_frame_share:
        clips, length = stage.clips * length, 1
    batch = draw_batch(
        rng,
        side=side,
        clips=clips,
        objects=stage.objects,
        length=length,
        crossing_share=stage.crossing_share,
    )
    return batch, own_presence


def forward(
    unroll: TrackerUnroll,
    batch: TrackingBatch,
    *,
    balance: float,
    own_presence: bool,
    with_score: bool,
) -> TrackerLoss:
    """Return the loss of a batch; `balance` and `with_score` as in `batch_loss`."""
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
    return batch_loss(outputs, batch, balance=balance, with_score=with_score)
