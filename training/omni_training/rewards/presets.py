"""The reward of one completion: all parts of one preset, by name, and their weights.

R = a_F format + a_K R_K + a_A R_A + a_G R_G  (Omni-R1 eq. 1, and the format reward that the code adds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from omni_sdk.dus.keyframes import choose_keyframes
from omni_sdk.errors import ModelOutputError
from omni_sdk.grs.parser import parse_answer
from omni_sdk.media.clock import Clock
from omni_sdk.metrics.spans import coverage_iou
from omni_sdk.stages import Segment

from omni_training.rewards import image_tasks, keyframes, reference_terms
from omni_training.rewards.format import format_reward, tags_match
from omni_training.rewards.jobs import DusScores, GroundingPoint
from omni_training.rewards.reference_text import extract_answer
from omni_training.rewards.scores import TextScores
from omni_training.rewards.truth import ClipTruth


@dataclass(frozen=True, slots=True)
class RewardPreset:
    """How a completion is paid.

    Attributes:
        name: "paper" or "reference".
        alpha_format: weight of the format reward.
        alpha_k: weight of R_K.
        alpha_a: weight of R_A.
        alpha_g: weight of R_G; 0 spares the propagation.
        alpha_k_ratio: reference only: weight of saliency, which the code keeps apart from alpha_k.
        lambda_diversity: paper only, likewise the next three: weights inside R_K.
        lambda_num: weight of the number of moments.
        lambda_saliency: weight of the area shown.
        lambda_span: weight of the IoU with the true spans, for data that has them.
        target_keyframes: moments that are wanted, and that are grounded at most, where the truth does not
            say how many there are.
        length_bonus: reference only: +1 for 320..750 tokens (len_control).
    """

    name: str = "paper"
    alpha_format: float = 1.0
    alpha_k: float = 1.0
    alpha_a: float = 1.0
    alpha_g: float = 1.0
    alpha_k_ratio: float = 0.0
    lambda_diversity: float = 1 / 3
    lambda_num: float = 1 / 3
    lambda_saliency: float = 1 / 3
    lambda_span: float = 0.0
    target_keyframes: int = 4
    length_bonus: bool = False

    def __post_init__(self) -> None:
        if self.name not in ("paper", "reference"):
            raise ValueError(f"preset name must be 'paper' or 'reference', got {self.name!r}")
        if self.target_keyframes < 1:
            raise ValueError(f"target_keyframes must be >= 1, got {self.target_keyframes}")
        if self.name == "paper" and (self.length_bonus or self.alpha_k_ratio):
            raise ValueError("length_bonus and alpha_k_ratio belong to the reference preset only")

    @property
    def needs_dus(self) -> bool:
        """Whether boxes or masks are paid, so that the detail system must run."""
        return self.alpha_a != 0 or self.alpha_g != 0

    @property
    def column_weights(self) -> tuple[float, float, float, float]:
        """Weights of the columns format, r_k, r_a and r_g; the reference's r_k holds its own alphas."""
        r_k = 1.0 if self.name == "reference" else self.alpha_k
        return self.alpha_format, r_k, self.alpha_a, self.alpha_g


PRESETS = {
    "paper": RewardPreset(),
    # The launch script of May 2025: SAM 2 off, and with it R_A and saliency (bug [9]).
    "reference-2025-05": RewardPreset(
        "reference", alpha_g=0.0, alpha_k_ratio=1.0, length_bonus=True
    ),
    # omni_r1_run_training.sh and configs/improved_grpo_config.yaml.
    "reference": RewardPreset("reference", alpha_g=2.0, alpha_k_ratio=0.0, length_bonus=True),
}


@dataclass(frozen=True, slots=True)
class Rewards:
    """The four columns that GRPO sums with `RewardPreset.column_weights`, and every part by name."""

    format: float
    r_k: float
    r_a: float
    r_g: float
    parts: dict[str, float]

    def total(self, preset: RewardPreset) -> float:
        """Return R."""
        columns = (self.format, self.r_k, self.r_a, self.r_g)
        return sum(w * c for w, c in zip(preset.column_weights, columns, strict=True))


def score_text(text: str, truth: ClipTruth, clock: Clock, preset: RewardPreset) -> TextScores:
    """Score what needs no model.

    Args:
        text: the completion without special tokens; untrusted.
        truth: true objects on the frames that the reasoner saw.
        clock: the reasoner's clock of those frames.
        preset: how to pay.
    """
    if truth.num_frames != clock.num_frames:
        raise ValueError(f"truth has {truth.num_frames} frames, the clock {clock.num_frames}")
    if preset.name == "reference" and truth.answer != "moments":
        raise ValueError(
            "the reference preset knows answers of moments only; its image tasks are "
            "rewards.reference_tasks, which no run uses"
        )
    if preset.name == "reference":
        return _reference_text(text, truth, clock)
    if truth.answer == "phrase":
        return image_tasks.phrase_scores(text, truth, clock.duration_seconds)
    if truth.answer == "box":
        return image_tasks.box_scores(text, truth)
    return _paper_text(text, truth, clock, preset)


def combine(
    text: TextScores, dus: DusScores | None, truth: ClipTruth, preset: RewardPreset
) -> Rewards:
    """Add what the detail system found; None where it was not asked."""
    parts = dict(text.parts)
    if preset.name == "reference":
        return _reference_rewards(text, dus, preset, parts)
    # An unreadable answer earns nothing even where nothing is right: only a legal "absent" does.
    silent = float(truth.absent and text.status == "absent")
    r_a = dus.box if dus else silent
    if text.r_a is not None:
        r_a = text.r_a
    r_g = dus.mask if dus and dus.mask is not None else silent
    parts |= {"r_a": r_a, "r_g": r_g}
    return Rewards(text.format, text.r_k, r_a, r_g, parts)


def _paper_text(text: str, truth: ClipTruth, clock: Clock, preset: RewardPreset) -> TextScores:
    paid = format_reward(text, clock.duration_seconds)
    try:
        segments = parse_answer(text, clock.duration_seconds).segments
    except ModelOutputError:
        parts = dict.fromkeys(("num", "saliency", "diversity", "span", "r_k"), 0.0)
        return TextScores(parts | {"format": paid}, paid, 0.0, (), "unparsed")
    wanted = truth.num_moments or preset.target_keyframes
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
        "num": preset.lambda_num,
        "saliency": preset.lambda_saliency,
        "diversity": preset.lambda_diversity,
        "span": preset.lambda_span,
    }
    r_k = sum(weight * parts[name] for name, weight in weights.items())
    points = _points(segments, clock, wanted)
    status = "found" if segments else "absent"
    return TextScores(parts | {"r_k": r_k}, paid, r_k, points, status)


def _points(segments: Sequence[Segment], clock: Clock, wanted: int) -> tuple[GroundingPoint, ...]:
    """Return what inference would ground: the same choice, capped."""
    chosen = choose_keyframes(segments, clock, wanted)[: 2 * wanted]
    return tuple(
        GroundingPoint(
            int(np.flatnonzero(clock.frame_indices == k.frame_index)[0]),
            k.frame_index,
            k.description,
        )
        for k in chosen
    )


def _span_reward(segments: Sequence[Segment], truth: ClipTruth) -> float:
    if truth.spans_seconds is None:
        return 0.0
    found = np.array([(s.start_seconds, s.end_seconds) for s in segments]).reshape(-1, 2)
    return coverage_iou(found, truth.spans_seconds)


def _reference_text(text: str, truth: ClipTruth, clock: Clock) -> TextScores:
    paid = float(tags_match(text))
    moments = reference_terms.moments_reward(extract_answer(text), truth)
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


def _reference_rewards(
    text: TextScores, dus: DusScores | None, preset: RewardPreset, parts: dict[str, float]
) -> Rewards:
    """Sum the published terms; bug [9] drops saliency, boxes and mismatch together."""
    dropped = dus is None or dus.num_boxes == 0 or preset.alpha_g <= 1e-6
    box = 0.0 if dropped or dus is None else dus.box
    mask = 0.0 if dropped or dus is None or dus.mask is None else dus.mask
    mismatch = 0.0 if dropped or dus is None else dus.mismatch
    parts |= {"r_a": box, "r_g": mask, "mismatch": mismatch}
    parts["saliency"] = 0.0 if dropped else parts["saliency"]
    r_k = (
        parts["cumulated"]
        + preset.alpha_k * (parts["frame"] + parts["overlap"])
        + preset.alpha_k_ratio * parts["saliency"]
        + mismatch
    )
    parts["r_k"] = r_k
    return Rewards(text.format, r_k, box, mask, parts)


def with_weights(preset: RewardPreset, **weights: float) -> RewardPreset:
    """Return a preset with other weights, e.g. for an ablation; unknown names raise TypeError."""
    return replace(preset, **weights)  # type: ignore[arg-type]
