"""What the settings of both trainings have in common: stages in order, steps counted, never the clock."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

NO_EFFECT = {"no_effect": True}
"""Metadata of a setting that changes what is told or kept on the way, but not the weights."""


@dataclass(frozen=True, kw_only=True)
class Stage(ABC):
    """The length and step size of a stage.

    Attributes:
        steps: optimiser steps.
        learning_rate: after the warm-up.
        report: steps from one line of the log, with an evaluation, to the next.
    """

    steps: int
    learning_rate: float
    report: int = field(default=100, metadata=NO_EFFECT)

    @abstractmethod
    def rate(self, step: int) -> float:
        """Return the learning rate at a step."""

    def scaled(self, factor: float) -> Self:
        """Return the stage with `factor` times the steps."""
        steps, report = (max(1, round(n * factor)) for n in (self.steps, self.report))
        return dataclasses.replace(self, steps=steps, report=report)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A training; its fields that are stages are run in their order.

    Attributes:
        seed: of weights and data.
        weight_decay: of AdamW.
        clip_norm: of the gradient.
        save_seconds: wall time between two states from which a training goes on.
    """

    seed: int = 1
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    save_seconds: float = field(default=120.0, metadata=NO_EFFECT)

    @property
    def stages(self) -> dict[str, Stage]:
        """The stages by name, in order."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Stage)}

    def scaled(self, factor: float) -> Self:
        """Return the same training with `factor` times the steps in every stage.

        Raises:
            ValueError: a factor that is not above 0.
        """
        if not factor > 0:
            raise ValueError(f"the scale must be above 0, got {factor}")
        scaled: dict[str, Any] = {name: s.scaled(factor) for name, s in self.stages.items()}
        return dataclasses.replace(self, **scaled)


def fingerprint(config: Config) -> str:
    """Return a short digest of all settings that change the weights."""
    text = json.dumps(_effective(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _effective(settings: Any) -> dict[str, Any]:
    values = {
        f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if not f.metadata
    }
    return {k: _effective(v) if dataclasses.is_dataclass(v) else v for k, v in values.items()}
