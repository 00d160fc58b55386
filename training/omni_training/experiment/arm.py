"""One arm with one seed: GRPO from the start with that arm's reward. Killed, it goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from omni_sdk.utils.files import write_json
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from omni_training.experiment.files import Experiment, put_model


class CpuClock(TrainerCallback):  # type: ignore[misc]
    """Writes the CPU seconds of a run so far into every log entry, over kills and resumes.

    They are of the whole process: rollouts, rewards, updates and checkpoints.
    """

    def __init__(self) -> None:
        self._started = time.process_time()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Go on from the last entry of a resumed run."""
        self._started = time.process_time() - cpu_seconds(state.log_history)

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add the figure."""
        state.log_history[-1]["cpu_seconds"] = time.process_time() - self._started


def cpu_seconds(history: list[dict[str, Any]]) -> float:
    """Return the CPU seconds of a run from its log."""
    return max((float(e["cpu_seconds"]) for e in history if "cpu_seconds" in e), default=0.0)


def train_arm(experiment: Experiment, arm: str, seed: int) -> None:
    """Train, or finish training, and put model and record in place."""
    model = f"{arm}/{seed}"
    trainer, backend = build_arm(experiment, arm, seed)
    try:
        trainer.train(resume_from_checkpoint=last_checkpoint(experiment.train(model)))
        put_model(trainer, experiment.checkpoint("start"), experiment.checkpoint(model))
    finally:
        if backend is not None:
            backend.close()
    write_record(experiment, model, trainer)


def build_arm(experiment: Experiment, arm: str, seed: int, **overrides: Any) -> tuple[Any, Any]:
    """Return an arm's trainer, ready to start or resume, and its reward backend (None: text only).

    Args:
        experiment: the experiment.
        arm: of `settings.ARMS`.
        seed: of the arm.
        **overrides: fields of GRPOConfig that win.
    """
    import torch
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    from omni_training.data.tokenizer import open_tokenizer
    from omni_training.grpo import run as grpo

    checkpoints = experiment.train(f"{arm}/{seed}") / "checkpoints"
    config = experiment.settings.run_config(arm, seed, str(checkpoints))
    ids, store = grpo.build_samples(config)
    backend = grpo.build_backend(config)
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        config.model.path, dtype=torch.float32, attn_implementation="sdpa"
    )
    tokenizer = open_tokenizer(config.model.path, model.config)
    options = {"use_cpu": not torch.cuda.is_available(), "disable_tqdm": True} | overrides
    trainer = grpo.build_trainer(config, model, tokenizer, ids, store, backend, **options)
    trainer.add_callback(CpuClock())
    return trainer, backend


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest whole checkpoint of a run's folder."""
    checkpoints = folder / "checkpoints"
    found: str | None = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    return found


def write_record(experiment: Experiment, model: str, trainer: Any, **more: Any) -> None:
    """Keep what a run logged, what it cost and what it skipped."""
    history = trainer.state.log_history
    keep = [
        {k: v for k, v in entry.items() if isinstance(v, (int, float))}
        for entry in history
        if "loss" in entry
    ]
    record = {
        "model": model,
        "steps": trainer.state.global_step,
        "cpu_seconds": cpu_seconds(history),
        "log": keep,
    }
    write_json(experiment.record(model), record | more)
