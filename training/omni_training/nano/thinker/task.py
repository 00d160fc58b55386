"""`omni-train nano`: the stages one after another, resumable at any moment, the same for a seed.

Everything random in step n of stage s comes from a generator seeded with (seed, s, n), so a run that was
killed and resumed does the very steps that an uninterrupted run does.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omni_sdk.errors import OmniError
from omni_sdk.grs.processor import Processor
from omni_sdk.hf.checkpoint import read_spec
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from omni_training.grpo.checkpoints import TrainingDivergedError
from omni_training.nano.thinker.config import STAGES, ThinkerConfig, ThinkerStage
from omni_training.nano.thinker.development import DevelopmentSet
from omni_training.nano.thinker.learner import Learner
from omni_training.nano.thinker.model import build_thinker, save_thinker
from omni_training.nano.thinker.vocabulary import build_tokenizer

STATE = "state.safetensors"
LOG = "log.jsonl"
FINAL = "thinker"


class NanoStateError(OmniError, ValueError):
    """A folder holds the state of another training."""


def train(
    folder: Path,
    config: ThinkerConfig,
    *,
    until: str = STAGES[-1],
    device: str = "cpu",
    max_steps: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Path | None:
    """Train, or go on from the state in the folder.

    Args:
        folder: made if needed; holds the state, the log and the checkpoints.
        config: of the training; the folder's own must be equal.
        until: last stage to run.
        device: torch's name.
        max_steps: stop (with the state saved) after so many steps of this call.
        say: told one line per report.

    Returns:
        The folder of the finished thinker; None where the training was stopped before.

    Raises:
        NanoStateError: the folder holds the state of another training.
        TrainingDivergedError: a loss that is no finite number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(folder, config, device, say)
    run.resume()
    budget = math.inf if max_steps is None else max_steps
    for stage in STAGES[: STAGES.index(until) + 1]:
        if STAGES.index(stage) < STAGES.index(run.stage):
            continue
        if not run.finish_stage(stage, budget - run.done):
            return None
    if until != STAGES[-1]:
        return None
    final = folder / FINAL
    save_thinker(run.learner.thinker, run.tokenizer, config.sizes, final)
    return final


class _Run:
    """A training under way."""

    def __init__(
        self, folder: Path, config: ThinkerConfig, device: str, say: Callable[[str], None]
    ) -> None:
        self.folder, self.config, self.say = folder, config, say
        self.tokenizer: Tokenizer = build_tokenizer(config.sizes.image_pixels)
        thinker = build_thinker(config.sizes, self.tokenizer, config.seed)
        initial = folder / "initial"
        if not initial.is_dir():
            save_thinker(thinker, self.tokenizer, config.sizes, initial)
        processor = Processor.from_directory(read_spec(initial), initial)
        self.learner = Learner(thinker, config, processor, self.tokenizer).to(device).train()
        self.stage, self.number, self.done = STAGES[0], 0, 0
        self.optimizer = self._make_optimizer()
        self._development: DevelopmentSet | None = None
        self._saved = time.monotonic()
        self._seconds = 0.0

    def finish_stage(self, stage: str, budget: float) -> bool:
        """Run the rest of a stage; False where the budget of steps ended first."""
        if stage != self.stage:
            self.stage, self.number = stage, 0
            self.optimizer = self._make_optimizer()
        plan: ThinkerStage = getattr(self.config, stage)
        averages: dict[str, float] = {}
        start = time.process_time()
        while self.number < plan.steps:
            if budget <= 0:
                self._seconds += time.process_time() - start
                self.save()
                return False
            scores = self._step(plan)
            for name, value in scores.items():
                averages[name] = 0.95 * averages.get(name, value) + 0.05 * value
            budget -= 1
            if self.number % plan.report == 0 or self.number == plan.steps:
                self._seconds += time.process_time() - start
                start = time.process_time()
                self._report(averages)
            if time.monotonic() - self._saved > self.config.save_seconds:
                self._seconds += time.process_time() - start
                start = time.process_time()
                self.save()
            self._keep_early(plan)
        self.save()
        return True

    def _step(self, plan: ThinkerStage) -> dict[str, float]:
        rng = np.random.default_rng([self.config.seed, STAGES.index(self.stage), self.number])
        rate = plan.learning_rate * schedule(plan, self.number)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        loss, scores = self.learner.step(self.stage, self.number, rng)
        if not torch.isfinite(loss):
            raise TrainingDivergedError(
                f"the loss of step {self.number} of stage {self.stage} is {loss.item()}; lower its "
                "learning rate; the last saved state is untouched"
            )
        self.optimizer.zero_grad()
        loss.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
        self.optimizer.step()
        self.number += 1
        self.done += 1
        return scores

    def _make_optimizer(self) -> torch.optim.AdamW:
        groups: dict[float, list[torch.nn.Parameter]] = {}
        self._names = []
        named = sorted(self.learner.parameters_of(self.stage), key=lambda item: (item[2], item[0]))
        for name, parameter, factor in named:
            groups.setdefault(factor, []).append(parameter)
            self._names.append((name, parameter))
        return torch.optim.AdamW(
            [{"params": group, "factor": factor} for factor, group in groups.items()],
            lr=1e-3,
            betas=(0.9, 0.98),
            weight_decay=self.config.weight_decay,
            fused=True,
        )

    def save(self) -> None:
        """Write the state: weights, moments and where the training stands; whole or not at all."""
        tensors = {f"model.{k}": v for k, v in self.learner.state_dict().items()}
        for name, parameter in self._names:
            state = self.optimizer.state.get(parameter, {})
            tensors |= {f"adam.{name}:{key}": value for key, value in state.items()}
        where = {
            "stage": self.stage,
            "number": self.number,
            "seconds": self._seconds,
            "config": dataclasses.asdict(self.config),
        }
        path, staging = self.folder / STATE, self.folder / f".{STATE}.incomplete"
        contiguous = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        save_file(contiguous, staging, metadata={"where": json.dumps(where)})
        staging.replace(path)
        self._saved = time.monotonic()

    def resume(self) -> None:
        """Take up the folder's state, if there is one.

        Raises:
            NanoStateError: it belongs to another configuration.
        """
        path = self.folder / STATE
        if not path.is_file():
            return
        where = _metadata(path)
        if where["config"] != json.loads(json.dumps(dataclasses.asdict(self.config))):
            raise NanoStateError(
                f"{path} belongs to a training with other settings; choose another folder, or the same "
                "seed, scale and version as before"
            )
        tensors = load_file(path)
        model = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
        self.learner.load_state_dict(model)
        self.stage, self.number = where["stage"], where["number"]
        self._seconds = where["seconds"]
        self.optimizer = self._make_optimizer()
        for name, parameter in self._names:
            prefix = f"adam.{name}:"
            found = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            if found:
                self.optimizer.state[parameter] = {
                    k: v.to(parameter.device) for k, v in found.items()
                }
        self.say(f"resumed at step {self.number} of stage {self.stage}")

    def _report(self, averages: dict[str, float]) -> None:
        if self._development is None:
            self._development = DevelopmentSet(self.learner, self.tokenizer, self.config)
        plan: ThinkerStage = getattr(self.config, self.stage)
        entry: dict[str, Any] = {
            "stage": self.stage,
            "step": self.number,
            "steps": plan.steps,
            "cpu_seconds": round(self._seconds),
            "running": {k: round(v, 3) for k, v in averages.items()},
            "development": {
                k: round(v, 3) for k, v in self._development.scores(self.stage).items()
            },
        }
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.say(json.dumps(entry))

    def _keep_early(self, plan: ThinkerStage) -> None:
        if self.stage != "sft":
            return
        for share in self.config.early:
            if self.number == max(1, round(share * plan.steps)):
                target = self.folder / f"early-{round(100 * share):02d}"
                save_thinker(self.learner.thinker, self.tokenizer, self.config.sizes, target)


def schedule(plan: ThinkerStage, number: int) -> float:
    """Return the factor on a stage's learning rate at a step: warm-up, hold, cosine down to `final`."""
    share = number / plan.steps
    warm = min(1.0, (number + 1) / plan.warmup)
    if share < plan.hold:
        return warm
    cosine = 0.5 * (1 + math.cos(math.pi * (share - plan.hold) / (1 - plan.hold)))
    return warm * max(plan.final, cosine)


def _metadata(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        where: dict[str, Any] = json.loads(file.metadata()["where"])
    return where
