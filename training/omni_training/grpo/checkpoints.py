"""What a run does when something goes wrong: bad numbers stop it, half-written checkpoints never count."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from omni_sdk.errors import OmniError
from omni_sdk.utils.files import put_folder, write_json
from safetensors.torch import save_file

from omni_training.grpo.media import PromptMedia

STAGING = ".incomplete"


class TrainingDivergedError(OmniError, ArithmeticError):
    """The loss or the gradient is not a finite number; the message names the saved batch."""


def save_bad_batch(inputs: dict[str, Any], output_dir: str, step: int, rank: int) -> NoReturn:
    """Write the batch whose loss is not finite, and stop.

    The folder bad-batch-STEP-rankR holds batch.safetensors (every tensor, media as row.kind) and batch.json
    (what they are, and the sample of each row where the batch says so).

    Raises:
        TrainingDivergedError: always.
    """
    folder = Path(output_dir) / f"bad-batch-{step}-rank{rank}"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v for k, v in inputs.items() if isinstance(v, torch.Tensor)}
    for row, media in enumerate(inputs.get("media", [])):
        tensors |= _media_tensors(media, f"media.{row}")
    contiguous = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(contiguous, str(folder / "batch.safetensors"))
    shapes = {k: [list(v.shape), str(v.dtype)] for k, v in contiguous.items()}
    record = {"step": step, "rank": rank, "samples": inputs.get("samples"), "tensors": shapes}
    write_json(folder / "batch.json", record)
    raise TrainingDivergedError(
        f"the loss is not finite at step {step}; the batch is saved in {folder}: look for empty "
        "completions or infinite rewards, or lower the learning rate"
    )


def _media_tensors(media: PromptMedia, prefix: str) -> dict[str, torch.Tensor]:
    tensors = {f"{prefix}.position_ids": media.position_ids}
    tensors |= {f"{prefix}.{kind}": value for kind, value in media.pixels.items()}
    if media.sounds is not None:
        tensors[f"{prefix}.sounds"] = media.sounds
    return tensors | {f"{prefix}.mel.{i}": mel for i, mel in enumerate(media.mel)}


@contextmanager
def staged_checkpoint(trainer: Any, trial: Any) -> Iterator[None]:
    """Let a trainer write its checkpoint aside, and put it in place only when it is whole.

    transformers writes into checkpoint-N as it goes; killed meanwhile, it leaves a folder that resuming
    takes for the latest. Here everything goes to .incomplete/checkpoint-N (never looked at when resuming),
    is flushed to the disk, and is renamed, which is atomic; then old checkpoints are rotated out.
    """
    from transformers.trainer_utils import rotate_checkpoints

    args = trainer.args
    name = f"checkpoint-{trainer.state.global_step}"
    staging, final = Path(args.output_dir) / STAGING, Path(args.output_dir) / name
    main = trainer.accelerator.is_main_process
    if main:
        shutil.rmtree(staging, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    plain, keep = trainer._get_output_dir, args.save_total_limit
    trainer._get_output_dir = lambda trial: str(staging)
    args.save_total_limit = None
    try:
        yield
    finally:
        trainer._get_output_dir = plain
        args.save_total_limit = keep
    trainer.accelerator.wait_for_everyone()
    if main:
        # What is there already was left by an earlier run into the same folder, past the point of resuming.
        put_folder(staging / name, final)
        shutil.rmtree(staging, ignore_errors=True)
        rotate_checkpoints(
            output_dir=args.output_dir,
            save_total_limit=keep,
            best_model_checkpoint=trainer.state.best_model_checkpoint,
            use_mtime=True,
        )
    trainer.accelerator.wait_for_everyone()


class SafeCheckpoints:
    """Mixin for trainers of a thinker: bad gradients never reach weights, checkpoints are whole and load."""

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Return the gradient's norm, before the optimiser sees the gradient.

        A log line comes after the step, and only every `logging_steps`: by then the weights are not numbers
        either, and a checkpoint of them may replace a good one.

        Raises:
            TrainingDivergedError: it is NaN or infinite.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[misc]
        if norm is not None and not math.isfinite(float(norm)):
            trainer: Any = self
            raise TrainingDivergedError(
                f"the gradient's norm is {float(norm)} at step {trainer.state.global_step}: lower the "
                "learning rate or max_grad_norm; weights and checkpoints are those before this step"
            )
        return norm

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Train on, unless the checkpoint is that of the last step: Trainer would take one step too many."""
        trainer: Any = self
        if trainer.state.global_step >= trainer.state.max_steps:
            trainer.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with staged_checkpoint(self, trial):
            super()._save_checkpoint(model, trial)  # type: ignore[misc]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load a checkpoint's weights under the names that the model has.

        transformers 5.23 writes a thinker under its published names (model.layers ...) while the class has
        others (model.language_model.layers ...), and Trainer loads the file as it is with strict=False: it
        warns of every weight, loads none, and trains on from the first weights.
        """
        trainer: Any = self
        target = trainer.accelerator.unwrap_model(trainer.model if model is None else model)
        sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        if hasattr(target, "peft_config") or sharded:
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        loaded = type(target).from_pretrained(resume_from_checkpoint, dtype=target.dtype)
        target.load_state_dict(loaded.state_dict(), strict=True)
