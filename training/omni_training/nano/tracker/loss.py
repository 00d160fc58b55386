"""What the tracker is trained on: masks, their predicted IoU and the score of being there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from omni_training.nano.tracker.clips import TrackingBatch
from omni_training.nano.tracker.unroll import FrameOutput

PLAIN_WEIGHT = 5.0
"""Of the plain cross entropy, which is a mean over cells of which most are easy."""

PROMPTED_WEIGHT = 2.0
"""Of a prompted frame, on whose mask all others rest."""


@dataclass(frozen=True)
class TrackerLoss:
    """The parts of a loss, each a scalar tensor; `score` is None where nothing was learnt of it."""

    mask: Tensor
    iou: Tensor
    score: Tensor | None

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        parts = self.mask + self.iou
        return parts if self.score is None else parts + self.score


def batch_loss(
    outputs: Sequence[FrameOutput], batch: TrackingBatch, *, balance: float, with_score: bool
) -> TrackerLoss:
    """Compare L frames with the truth.

    Args:
        outputs: in the order of time.
        batch: what they were made from.
        balance: see `TrackerStage.balance`.
        with_score: whether the score is trained; on prompted frames alone it learns to say "present".
    """
    masks, ious, weights = [], [], []
    for t, output in enumerate(outputs):
        mask, true_iou = mask_losses(output.masks, batch.coverage[:, t], balance)
        # Candidate 0 answers boxes. The others compete for the rest, and for boxes where 0 is unstable.
        first, others = (1.0, 0.5) if output.prompted else (0.25, 1.0)
        masks.append(first * mask[:, 0] + others * mask[:, 1:].mean(1))
        ious.append((output.ious - true_iou).abs().mean(1))
        weights.append(batch.present[:, t] * (PROMPTED_WEIGHT if output.prompted else 1.0))
    weight = torch.stack(weights, 1)
    total = weight.sum().clamp(min=1)
    score = None
    if with_score:
        logits = torch.stack([output.scores for output in outputs], 1)
        errors = F.binary_cross_entropy_with_logits(
            logits, batch.present.to(logits.dtype), reduction="none"
        )
        score = (errors * batch.judged).sum() / batch.judged.sum().clamp(min=1)
    return TrackerLoss(
        mask=(torch.stack(masks, 1) * weight).sum() / total,
        iou=(torch.stack(ious, 1) * weight).sum() / total,
        score=score,
    )


def mask_losses(logits: Tensor, coverage: Tensor, balance: float) -> tuple[Tensor, Tensor]:
    """Compare candidates with the truth.

    Args:
        logits: (N, K, h, w).
        coverage: (N, h, w) in [0, 1], the share of each cell that shows the object.
        balance: 0: cross entropy over all cells alike; 1: object and background weigh the same.

    Returns:
        (N, K) cross entropy plus dice, and (N, K) the IoU of the cells, without gradient.
    """
    truth = coverage[:, None].expand_as(logits)
    errors = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    loss = (1 - balance) * PLAIN_WEIGHT * errors.mean((2, 3))
    if balance:
        inside = (errors * truth).sum((2, 3)) / truth.sum((2, 3)).clamp(min=1)
        outside = (errors * (1 - truth)).sum((2, 3)) / (1 - truth).sum((2, 3)).clamp(min=1)
        loss = loss + balance * 0.5 * (inside + outside)
    found = logits.sigmoid()
    shared = (found * truth).sum((2, 3))
    dice = 1 - (2 * shared + 1) / (found.sum((2, 3)) + truth.sum((2, 3)) + 1)
    with torch.no_grad():
        a, b = logits > 0, truth > 0.5
        iou = (a & b).sum((2, 3)) / (a | b).sum((2, 3)).clamp(min=1)
    return loss + dice, iou
