"""What a completion's text alone is worth."""

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
