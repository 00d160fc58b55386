"""The nano thinker as a task of the training loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from omni_sdk.grs.processor import Processor
from omni_sdk.hf.checkpoint import read_spec
from torch import Tensor, nn

from omni_training.nano.loop import Scores, Task
from omni_training.nano.thinker.config import ThinkerConfig
from omni_training.nano.thinker.development import DevelopmentSet
from omni_training.nano.thinker.learner import Learner
from omni_training.nano.thinker.model import build_thinker, save_thinker
from omni_training.nano.thinker.vocabulary import build_tokenizer


class ThinkerTask(Task):
    """Reasoner and grounder, from random weights."""

    name = "thinker"
    config: ThinkerConfig
    module: Learner

    def __init__(self, config: ThinkerConfig, folder: Path, device: str = "cpu") -> None:
        """Make the model.

        Args:
            config: all settings.
            folder: of the training; gets the checkpoints "initial" and early-PERCENT of "sft".
            device: torch's name.
        """
        self.config, self._folder = config, folder
        self._tokenizer = build_tokenizer(config.sizes.image_pixels)
        thinker = build_thinker(config.sizes, self._tokenizer, config.seed)
        initial = folder / "initial"
        if not initial.is_dir():
            save_thinker(thinker, self._tokenizer, config.sizes, initial)
        processor = Processor.from_directory(read_spec(initial), initial)
        self.module = Learner(thinker, config, processor, self._tokenizer).to(device).train()
        self._development: DevelopmentSet | None = None

    def optimizer(self, stage: str) -> torch.optim.AdamW:
        """Return a new optimiser; the towers have a factor of their own in the last stages."""
        groups: dict[float, list[nn.Parameter]] = {}
        for _, parameter, factor in self._trained(stage):
            groups.setdefault(factor, []).append(parameter)
        return torch.optim.AdamW(
            [{"params": group, "factor": factor} for factor, group in groups.items()],
            lr=1e-3,
            betas=(0.9, 0.98),
            weight_decay=self.config.weight_decay,
            fused=True,
        )

    def parameters(self, stage: str) -> list[nn.Parameter]:
        """Return what a stage trains, in the optimiser's order."""
        return [parameter for _, parameter, _ in self._trained(stage)]

    def _trained(self, stage: str) -> list[tuple[str, nn.Parameter, float]]:
        return sorted(self.module.parameters_of(stage), key=lambda item: (item[2], item[0]))

    def loss(self, stage: str, step: int, rng: np.random.Generator) -> tuple[Tensor, Scores]:
        """Draw a batch and return its loss and what to log."""
        return self.module.step(stage, step, rng)

    def evaluate(self, stage: str) -> Scores:
        """Return the shares that are right for what a stage teaches."""
        if self._development is None:
            self._development = DevelopmentSet(self.module, self._tokenizer, self.config)
        scores: Scores = self._development.scores(stage)
        return scores

    def keep(self, stage: str, step: int) -> None:
        """Keep the early checkpoints."""
        if stage != "sft":
            return
        for share in self.config.early:
            if step == max(1, round(share * self.config.sft.steps)):
                self.save(self._folder / f"early-{round(100 * share):02d}")

    def save(self, folder: Path) -> None:
        """Write the thinker's checkpoint."""
        save_thinker(self.module.thinker, self._tokenizer, self.config.sizes, folder)
