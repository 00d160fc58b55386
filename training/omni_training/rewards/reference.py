"""The preset "reference": the published code's rewards, with its bugs (`reference_terms`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from omni_sdk.media.clock import Clock

from omni_training.rewards import reference_terms as terms
from omni_training.rewards.format import tags_match
from omni_training.rewards.jobs import DusScores, GroundingPoint
from omni_training.rewards.preset import check_frames, total
from omni_training.rewards.reference_text import extract_answer
from omni_training.rewards.scores import Rewards, TextScores
from omni_training.rewards.truth import ClipTruth


@dataclass(frozen=True, slots=True)
class ReferenceReward:
    """The published rewards; a `preset.RewardPreset`. The defaults are those of omni_r1_run_training.sh.

    Attributes:
        alpha_format: weight of the format reward.
        alpha_k: weight of the number of frames and of their overlap.
        alpha_k_ratio: weight of saliency, which the code keeps apart from alpha_k.
        alpha_a: weight of the boxes.
        alpha_g: weight of the masks; 0 drops the boxes, the mismatch and saliency as well (bug [9]).
        length_bonus: +1 for 320..750 tokens (len_control).
    """

    name: ClassVar[str] = "reference"
    alpha_format: float = 1.0
    alpha_k: float = 1.0
    alpha_k_ratio: float = 0.0
    alpha_a: float = 1.0
    alpha_g: float = 2.0
    length_bonus: bool = True

    @property
    def column_weights(self) -> tuple[float, float, float, float]:
        """Weights of the columns format, r_k, r_a and r_g; r_k holds its own alphas."""
        return self.alpha_format, 1.0, self.alpha_a, self.alpha_g

    def score_text(self, text: str, truth: ClipTruth, clock: Clock) -> TextScores:
        """Score moments; ValueError for a sample that asks for anything else."""
        check_frames(truth, clock)
        if truth.answer != "moments":
            raise ValueError("the reference preset knows answers of moments only")
        paid = float(tags_match(text))
        moments = terms.moments_reward(extract_answer(text), truth)
        points = tuple(
            GroundingPoint(sample, int(clock.frame_indices[sample]), description)
            for sample, description in moments.grounded
        )
        parts = {
            "format": paid,
            "cumulated": moments.cumulated,
            "frame": moments.frame,
            "overlap": moments.overlap,
            "saliency": moments.saliency,
        }
        return TextScores(parts, paid, 0.0, points, "found" if points else "unparsed")

    def combine(self, text: TextScores, dus: DusScores | None, truth: ClipTruth) -> Rewards:
        """Sum the published terms; bug [9] drops saliency, boxes and mismatch together."""
        dropped = dus is None or dus.num_boxes == 0 or self.alpha_g <= 1e-6
        box = 0.0 if dropped or dus is None else dus.box
        mask = 0.0 if dropped or dus is None or dus.mask is None else dus.mask
        mismatch = 0.0 if dropped or dus is None else dus.mismatch
        parts = text.parts | {"r_a": box, "r_g": mask, "mismatch": mismatch}
        parts["saliency"] = 0.0 if dropped else parts["saliency"]
        r_k = (
            parts["cumulated"]
            + self.alpha_k * (parts["frame"] + parts["overlap"])
            + self.alpha_k_ratio * parts["saliency"]
            + mismatch
        )
        return Rewards(text.format, r_k, box, mask, parts | {"r_k": r_k})

    def compare(self, group: Sequence[Rewards], num_tokens: Sequence[int]) -> list[Rewards]:
        """Pay for length; groups are those of one process, as in the published code."""
        if not self.length_bonus:
            return list(group)
        accuracy = [total(r, self) - self.alpha_format * r.format for r in group]
        bonuses = terms.length_bonus(accuracy, num_tokens)
        return [
            replace(r, r_k=r.r_k + bonus, parts=r.parts | {"length_bonus": bonus})
            for r, bonus in zip(group, bonuses, strict=True)
        ]

    def box_scores(
        self, found: Sequence[NDArray[np.float32]], truth: ClipTruth, samples: Sequence[int]
    ) -> tuple[float, float]:
        """Return (avg_iou, mismatch)."""
        # The published boxes include their last pixel; the grounder's numbers are compared as they are.
        return terms.box_terms(found, terms.true_inclusive(truth, samples))

    def mask_score(self, pairs: Iterable[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> float:
        """Return sam_iou."""
        return terms.mask_j(pairs)
