"""The presets by name: a new one is a class in a file of its own, and a row here."""

from __future__ import annotations

from omni_training.rewards.paper import PaperReward
from omni_training.rewards.preset import RewardPreset, Scoring
from omni_training.rewards.reference import ReferenceReward

PRESETS: dict[str, RewardPreset] = {
    "paper": PaperReward(),
    # The launch script of May 2025: SAM 2 off, and with it R_A and saliency (bug [9]).
    "reference-2025-05": ReferenceReward(alpha_g=0.0, alpha_k_ratio=1.0),
    # omni_r1_run_training.sh and configs/improved_grpo_config.yaml.
    "reference": ReferenceReward(),
}


def scoring(name: str) -> Scoring:
    """Return how boxes and masks of a job are scored.

    Raises:
        ValueError: no preset has this name.
    """
    if name not in PRESETS:
        raise ValueError(f"expected a preset of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
