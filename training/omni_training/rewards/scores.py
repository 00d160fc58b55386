"""What a completion is worth: by its text alone, and in all."""

from __future__ import annotations

from dataclasses import dataclass

from omni_training.rewards.jobs import GroundingPoint


@dataclass(frozen=True, slots=True)
class TextScores:
    """What a completion's text alone is worth, and what must be asked of the detail system.

    Attributes:
        parts: part name -> value, unweighted.
        format: 0 or 1.
        r_k: R_K of this preset.
        points: keyframes to be grounded; empty: nothing to ask.
        status: "found", "absent" or "unparsed".
        r_a: R_A where the text alone decides it; None: the detail system does.
    """

    parts: dict[str, float]
    format: float
    r_k: float
    points: tuple[GroundingPoint, ...]
    status: str
    r_a: float | None = None


@dataclass(frozen=True, slots=True)
class Rewards:
    """The four columns that GRPO sums with a preset's `column_weights`, and every part by name."""

    format: float
    r_k: float
    r_a: float
    r_g: float
    parts: dict[str, float]

    @property
    def columns(self) -> tuple[float, float, float, float]:
        """The columns in their order."""
        return self.format, self.r_k, self.r_a, self.r_g
