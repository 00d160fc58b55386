"""The preset "paper": R_K, R_A and R_G as the paper describes them, with what it leaves open filled in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from omni_sdk.dus.keyframes import choose_keyframes, looks_at
from omni_sdk.errors import ModelOutputError
from omni_sdk.grs.parser import parse_answer
from omni_sdk.media.clock import Clock
from omni_sdk.metrics.spans import coverage_iou
from omni_sdk.stages import Segment

from omni_training.rewards import image_tasks, keyframes
from omni_training.rewards.boxes import box_reward
from omni_training.rewards.format import format_reward
from omni_training.rewards.jobs import DusScores, GroundingPoint
from omni_training.rewards.masks import mask_reward
from omni_training.rewards.preset import check_frames
from omni_training.rewards.scores import Rewards, TextScores
from omni_training.rewards.truth import ClipTruth


@dataclass(frozen=True, slots=True)
class PaperReward:
    """The paper's rewards; a `preset.RewardPreset`.

    Attributes:
        alpha_format: weight of the format reward.
        alpha_k: weight of R_K.
        alpha_a: weight of R_A.
        alpha_g: weight of R_G; 0 spares the propagation.
        lambda_diversity: weight inside R_K, likewise the next three.
        lambda_num: weight of the number of moments.
        lambda_saliency: weight of the area shown.
        lambda_span: weight of the IoU with the true spans, for data that has them.
        target_keyframes: moments that are wanted, and that are grounded at most, where the truth does not
            say how many there are.
        second_looks: frames of a moment, in [0, 4], on which it is looked for again where nothing is found in
            its middle, as `omni_sdk.config.TrackingConfig` says; R_A and R_G are then paid for what is found
            there. The paper has none.
    """

    name: ClassVar[str] = "paper"
    alpha_format: float = 1.0
    alpha_k: float = 1.0
    alpha_a: float = 1.0
    alpha_g: float = 1.0
    lambda_diversity: float = 1 / 3
    lambda_num: float = 1 / 3
    lambda_saliency: float = 1 / 3
    lambda_span: float = 0.0
    target_keyframes: int = 4
    second_looks: int = 0

    def __post_init__(self) -> None:
        if self.target_keyframes < 1:
            raise ValueError(f"target_keyframes must be >= 1, got {self.target_keyframes}")
        if not 0 <= self.second_looks <= 4:
            raise ValueError(f"second_looks must be in [0, 4], got {self.second_looks}")

    @property
    def column_weights(self) -> tuple[float, float, float, float]:
        """Weights of the columns format, r_k, r_a and r_g."""
        return self.alpha_format, self.alpha_k, self.alpha_a, self.alpha_g

    def score_text(self, text: str, truth: ClipTruth, clock: Clock) -> TextScores:
        """Score moments, a phrase or a box, as the sample asks."""
        check_frames(truth, clock)
        if truth.answer == "phrase":
            return image_tasks.phrase_scores(text, truth, clock.duration_seconds)
        if truth.answer == "box":
            return image_tasks.box_scores(text, truth)
        return self._moments(text, truth, clock)

    def combine(self, text: TextScores, dus: DusScores | None, truth: ClipTruth) -> Rewards:
        """Add R_A and R_G, each for itself."""
        # An unreadable answer earns nothing even where nothing is right: only a legal "absent" does.
        silent = float(truth.absent and text.status == "absent")
        r_a = dus.box if dus else silent
        if text.r_a is not None:
            r_a = text.r_a
        r_g = dus.mask if dus and dus.mask is not None else silent
        return Rewards(text.format, text.r_k, r_a, r_g, text.parts | {"r_a": r_a, "r_g": r_g})

    def compare(self, group: Sequence[Rewards], num_tokens: Sequence[int]) -> list[Rewards]:
        """Return the group as it is: nothing is paid for length."""
        return list(group)

    def box_scores(
        self, found: Sequence[NDArray[np.float32]], truth: ClipTruth, samples: Sequence[int]
    ) -> tuple[float, float]:
        """Return (R_A, 0)."""
        true = [truth.boxes_at(s) for s in samples]
        return box_reward(found, true, absent=truth.absent), 0.0

    def mask_score(self, pairs: Iterable[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> float:
        """Return R_G."""
        return mask_reward(pairs)

    def _moments(self, text: str, truth: ClipTruth, clock: Clock) -> TextScores:
        paid = format_reward(text, clock.duration_seconds)
        try:
            segments = parse_answer(text, clock.duration_seconds).segments
        except ModelOutputError:
            parts = dict.fromkeys(("num", "saliency", "diversity", "span", "r_k"), 0.0)
            return TextScores(parts | {"format": paid}, paid, 0.0, (), "unparsed")
        wanted = truth.num_moments or self.target_keyframes
        samples = [clock.sample_at((s.start_seconds + s.end_seconds) / 2) for s in segments]
        kept = samples[:wanted]
        parts = {
            "format": paid,
            "num": keyframes.number_reward(len(samples), wanted, truth.num_frames),
            "saliency": keyframes.saliency_reward(kept, truth.union_areas),
            "diversity": keyframes.diversity_reward(kept, truth.union_areas > 0, wanted),
            "span": _span_reward(segments, truth),
        }
        if truth.absent:
            # The only right answer is none; a moment of nothing has no area, number or place to judge.
            parts |= dict.fromkeys(("num", "saliency", "diversity", "span"), float(not segments))
        weights = {
            "num": self.lambda_num,
            "saliency": self.lambda_saliency,
            "diversity": self.lambda_diversity,
            "span": self.lambda_span,
        }
        r_k = sum(weight * parts[name] for name, weight in weights.items())
        points = _points(segments, clock, wanted, self.second_looks)
        status = "found" if segments else "absent"
        return TextScores(parts | {"r_k": r_k}, paid, r_k, points, status)


def _points(
    segments: Sequence[Segment], clock: Clock, wanted: int, second_looks: int
) -> tuple[GroundingPoint, ...]:
    """Return what inference would ground: the same choice, capped, and the same second looks."""
    sample_of = {int(frame): sample for sample, frame in enumerate(clock.frame_indices)}
    return tuple(
        GroundingPoint(
            sample_of[k.frame_index],
            k.frame_index,
            k.description,
            second_looks=tuple(
                (sample_of[look.frame_index], look.frame_index)
                for look in looks_at(k, clock, second_looks)[1:]
            ),
        )
        for k in choose_keyframes(segments, clock, wanted)[: 2 * wanted]
    )


def _span_reward(segments: Sequence[Segment], truth: ClipTruth) -> float:
    if truth.spans_seconds is None:
        return 0.0
    found = np.array([(s.start_seconds, s.end_seconds) for s in segments]).reshape(-1, 2)
    return coverage_iou(found, truth.spans_seconds)
