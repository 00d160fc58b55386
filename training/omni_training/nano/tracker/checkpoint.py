"""The state of a tracker's training on disk: whole or not at all, and only for its own settings."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omni_sdk.errors import BundleError
from torch import Tensor
from transformers import Sam2VideoModel

from omni_training.nano.tracker.config import TrackerConfig

FILE = "tracker.pt"


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    Attributes:
        stage: name of the stage in `TrackerConfig`.
        step: steps done in it.
        model: weights by name.
        optimizer: state of AdamW; empty at the start of a stage.
    """

    stage: str
    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any]


def save_progress(folder: Path, config: TrackerConfig, progress: Progress) -> None:
    """Write a checkpoint in place of the last one; a kill at any time leaves one of the two."""
    path, staging = folder / FILE, folder / f"{FILE}.incomplete"
    values = {field.name: getattr(progress, field.name) for field in dataclasses.fields(progress)}
    with staging.open("wb") as file:
        torch.save(values | {"settings": fingerprint(config)}, file)
        file.flush()
        os.fsync(file.fileno())
    staging.replace(path)


def load_progress(folder: Path, config: TrackerConfig) -> Progress | None:
    """Read the checkpoint of a folder; None if there is none.

    Raises:
        BundleError: it cannot be read, or was made with other settings.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        found = values.pop("settings")
        progress = Progress(**values)
    except Exception as e:  # torch raises many kinds for a damaged file
        raise BundleError(f"{path}: not a checkpoint of the tracker's training ({e})") from e
    if found != fingerprint(config):
        raise BundleError(
            f"{path}: made with other settings (fingerprint {found}, these have "
            f"{fingerprint(config)}); give the same ones or another folder"
        )
    return progress


def fingerprint(config: TrackerConfig) -> str:
    """Return a short digest of all settings that change the result."""
    values = dataclasses.asdict(config)
    for name in ("checkpoint_seconds", "evaluate_every", "evaluation_clips"):
        del values[name]
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save_model(model: Sam2VideoModel, folder: Path) -> None:
    """Write config.json and model.safetensors in transformers' layout, weights rounded to float16."""
    copy.deepcopy(model).half().save_pretrained(folder, safe_serialization=True)
