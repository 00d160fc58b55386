"""Trains a nano model: stages one after another, the same for a seed, resumable at any moment.

Everything random in step n of stage s comes from a generator seeded with (seed, s, n) and schedules count
steps, so a run that was killed and resumed does the very steps that an uninterrupted run does (on the same
machine and threads).
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from omni_training.grpo.checkpoints import TrainingDivergedError
from omni_training.nano.checkpoint import Position, load_state, restore, save_state
from omni_training.nano.config import Config, fingerprint
from omni_training.nano.log import Say, TrainingLog

Scores = dict[str, float]


class Task(ABC):
    """What is trained, and how; the loop knows when.

    Attributes:
        name: of the finished model's folder; the state is NAME-state.safetensors, the log NAME.jsonl.
        config: all settings.
        module: every weight, on its device.
    """

    name: ClassVar[str]
    config: Config
    module: nn.Module

    @abstractmethod
    def optimizer(self, stage: str) -> torch.optim.AdamW:
        """Return a new optimiser; the "factor" of a group, if it has one, is on its learning rate."""

    @abstractmethod
    def parameters(self, stage: str) -> list[nn.Parameter]:
        """Return the parameters over which the gradient's norm is taken, in this order."""

    @abstractmethod
    def loss(self, stage: str, step: int, rng: np.random.Generator) -> tuple[Tensor, Scores]:
        """Draw a batch and return its loss and what to log; the same arguments give the same loss."""

    @abstractmethod
    def evaluate(self, stage: str) -> Scores:
        """Return what is right on clips that are never trained on."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the model's checkpoint."""

    def begin(self, stage: str) -> None:  # noqa: B027 (few tasks need it)
        """Prepare the module for a stage that has no steps yet."""

    def keep(self, stage: str, step: int) -> None:  # noqa: B027 (few tasks need it)
        """Keep what is wanted of the model after a step."""

    def generator(self, stage: str, step: int) -> np.random.Generator:
        """Return the generator of a step."""
        return np.random.default_rng([self.config.seed, [*self.config.stages].index(stage), step])


def train(
    task: Task,
    folder: Path,
    *,
    until: str | None = None,
    max_steps: int | None = None,
    say: Say = lambda line: None,
) -> Path | None:
    """Train, or go on from the state in the folder.

    Args:
        task: new, at its first weights.
        folder: made if needed; holds the state, the log and, in the end, the checkpoint in folder/NAME.
        until: last stage to run; None: all.
        max_steps: stop, with the state saved, after so many steps of this call.
        say: told one line per report.

    Returns:
        The finished model's folder; None where the training was stopped before.

    Raises:
        NanoStateError: the folder holds the state of another training, or one that cannot be read.
        TrainingDivergedError: a loss that is no finite number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(task, folder, say)
    if not run.finish(until, math.inf if max_steps is None else max_steps):
        return None
    task.save(folder / task.name)
    return folder / task.name


class _Run:
    """A training under way."""

    def __init__(self, task: Task, folder: Path, say: Say) -> None:
        self._task, self._say = task, say
        self._stages = task.config.stages
        self._path = folder / f"{task.name}-state.safetensors"
        self._settings = fingerprint(task.config)
        self._log = TrainingLog(folder / f"{task.name}.jsonl", say)
        found = load_state(self._path, self._settings)
        position = Position(next(iter(self._stages)), 0, 0.0) if found is None else found[0]
        self._enter(position.stage, position.step)
        if found is not None:
            restore(found[1], task.module, self._optimizer)
            say(f"{task.name}: resumed at step {self._step} of stage {self._stage}")
        self._log.cut([*self._stages], self._stage, self._step)
        self._saved = time.monotonic()
        self._started = time.process_time() - position.cpu_seconds

    def _enter(self, stage: str, step: int) -> None:
        self._stage, self._step = stage, step
        self._optimizer = self._task.optimizer(stage)
        self._parameters = self._task.parameters(stage)
        self._recent: defaultdict[str, list[float]] = defaultdict(list)

    def finish(self, until: str | None, budget: float) -> bool:
        """Run the stages up to `until`, at most `budget` steps; return whether the training is at its end."""
        order = [*self._stages]
        last = order[-1] if until is None else until
        for stage in order[order.index(self._stage) : order.index(last) + 1]:
            if stage != self._stage:
                self._enter(stage, 0)
                self._task.begin(stage)
            settings = self._stages[stage]
            while self._step < settings.steps:
                if budget <= 0:
                    return False
                self._take_step()
                budget -= 1
                done = self._step == settings.steps
                if done or self._step % settings.report == 0:
                    self._report()
                if done or budget <= 0 or self._is_save_due():
                    self._save()
        return last == order[-1]

    def _take_step(self) -> None:
        stage, step = self._stage, self._step
        rate = self._stages[stage].rate(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        loss, scores = self._task.loss(stage, step, self._task.generator(stage, step))
        if not torch.isfinite(loss):
            raise TrainingDivergedError(
                f"{self._task.name}: the loss is {loss.item()} at step {step} of stage {stage}; lower its "
                "learning rate. The last saved state is untouched; going on from it draws the same batch"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._parameters, self._task.config.clip_norm)
        if torch.isfinite(norm):
            self._optimizer.step()
        else:
            self._say(
                f"{self._task.name}: step {step} of stage {stage} skipped, its gradient is {norm}"
            )
        self._step += 1
        scores |= {"loss": float(loss.detach()), "gradient": float(norm)}
        for name, value in scores.items():
            self._recent[name].append(value)
        self._task.keep(stage, self._step)

    def _report(self) -> None:
        self._log.write(
            self._stage,
            self._step,
            steps=self._stages[self._stage].steps,
            cpu_seconds=self._cpu_seconds(),
            running={name: float(np.mean(values)) for name, values in self._recent.items()},
            development=self._task.evaluate(self._stage),
        )
        self._recent.clear()

    def _is_save_due(self) -> bool:
        return time.monotonic() - self._saved > self._task.config.save_seconds

    def _save(self) -> None:
        position = Position(self._stage, self._step, self._cpu_seconds())
        save_state(self._path, self._settings, position, self._task.module, self._optimizer)
        self._saved = time.monotonic()

    def _cpu_seconds(self) -> float:
        return time.process_time() - self._started
