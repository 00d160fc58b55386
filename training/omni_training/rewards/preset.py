"""What every preset is: weights, and how text, boxes and masks are scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import Field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from omni_sdk.media.clock import Clock

from omni_training.rewards.jobs import DusScores
from omni_training.rewards.scores import Rewards, TextScores
from omni_training.rewards.truth import ClipTruth


class Scoring(Protocol):
    """What a worker does with boxes and masks. No weight enters: a job names the scoring only."""

    def box_scores(
        self, found: Sequence[NDArray[np.float32]], truth: ClipTruth, samples: Sequence[int]
    ) -> tuple[float, float]:
        """Return (score in [0, 1], mismatch <= 0) of the grounder's boxes.

        Args:
            found: for each keyframe (P, 4) boxes, xyxy pixels of the source frame.
            truth: true objects on the sampled frames.
            samples: the sampled frame of each keyframe.
        """

    def mask_score(self, pairs: Iterable[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> float:
        """Return the score in [0, 1] of the (H, W) (found, true) unions of every annotated frame."""


class RewardPreset(Scoring, Protocol):
    """How a completion is paid: a frozen dataclass of weights, which `rewards.change` may set.

    Attributes:
        name: the row of `presets.PRESETS` that workers score by.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    name: ClassVar[str]

    @property
    def alpha_format(self) -> float:
        """Weight of the format reward."""

    @property
    def alpha_a(self) -> float:
        """Weight of R_A."""

    @property
    def alpha_g(self) -> float:
        """Weight of R_G; 0 spares the propagation."""

    @property
    def column_weights(self) -> tuple[float, float, float, float]:
        """Weights of the columns format, r_k, r_a and r_g."""

    def score_text(self, text: str, truth: ClipTruth, clock: Clock) -> TextScores:
        """Score what needs no model.

        Args:
            text: the completion without special tokens; untrusted.
            truth: true objects on the frames that the reasoner saw.
            clock: the reasoner's clock of those frames.

        Raises:
            ValueError: truth and clock differ in frames, or the preset does not know this kind of answer.
        """

    def combine(self, text: TextScores, dus: DusScores | None, truth: ClipTruth) -> Rewards:
        """Add what the detail system found; None where it was not asked."""

    def compare(self, group: Sequence[Rewards], num_tokens: Sequence[int]) -> list[Rewards]:
        """Return the rollouts of one prompt with what is paid by comparing them.

        Args:
            group: rewards of the prompt's rollouts.
            num_tokens: tokens of each.
        """


def needs_dus(preset: RewardPreset) -> bool:
    """Return whether boxes or masks are paid, so that the detail system must run."""
    return preset.alpha_a != 0 or preset.alpha_g != 0


def total(rewards: Rewards, preset: RewardPreset) -> float:
    """Return R = a_F format + a_K R_K + a_A R_A + a_G R_G (Omni-R1 eq. 1, and the code's format reward)."""
    return sum(w * c for w, c in zip(preset.column_weights, rewards.columns, strict=True))


def check_frames(truth: ClipTruth, clock: Clock) -> None:
    """Raise ValueError unless truth and clock are of the same frames."""
    if truth.num_frames != clock.num_frames:
        raise ValueError(f"truth has {truth.num_frames} frames, the clock {clock.num_frames}")
