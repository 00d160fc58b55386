"""The state of a half-finished training on disk: whole or not at all, and only for its own settings."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from omni_sdk.errors import OmniError
from omni_sdk.utils.files import write_bytes
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

MODEL, MOMENTS = "model.", "adam."
"""What the names of weights and of the optimiser's values (NAME:KIND) begin with."""


class NanoStateError(OmniError, ValueError):
    """A folder holds the state of another training, or one that cannot be read."""


@dataclass(frozen=True)
class Position:
    """Where a training stands.

    Attributes:
        stage: that is under way.
        step: steps done in it.
        cpu_seconds: that all steps so far have taken.
    """

    stage: str
    step: int
    cpu_seconds: float


def save_state(
    path: Path, settings: str, position: Position, module: nn.Module, optimizer: torch.optim.AdamW
) -> None:
    """Write a state in place of the last one; a kill at any time leaves one of the two.

    Args:
        path: a safetensors file.
        settings: fingerprint of the training's.
        position: where it stands.
        module: its weights.
        optimizer: its moments, of parameters of the module.
    """
    names = _names(module, optimizer)
    tensors = {f"{MODEL}{name}": value for name, value in module.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"{MOMENTS}{names[index]}:{kind}": value for kind, value in values.items()}
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    where = json.dumps({"settings": settings} | dataclasses.asdict(position))
    write_bytes(path, save(copies, metadata={"where": where}))


def load_state(path: Path, settings: str) -> tuple[Position, dict[str, Tensor]] | None:
    """Read a state; None if there is none.

    Raises:
        NanoStateError: it cannot be read, or belongs to other settings.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            where = json.loads(file.metadata()["where"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        found = where.pop("settings")
        position = Position(**where)
    except Exception as e:  # safetensors raises many kinds for a damaged file
        raise NanoStateError(f"{path}: not the state of a training ({e}); remove it") from e
    if found != settings:
        raise NanoStateError(
            f"{path}: of a training with other settings (fingerprint {found}, these have {settings}); "
            "choose another folder, or the same seed, scale and version as before"
        )
    return position, tensors


def restore(tensors: dict[str, Tensor], module: nn.Module, optimizer: torch.optim.AdamW) -> None:
    """Put a state's weights and moments into a module and its new optimiser, on any device."""
    module.load_state_dict(
        {name[len(MODEL) :]: v for name, v in tensors.items() if name.startswith(MODEL)}
    )
    indices = {name: index for index, name in enumerate(_names(module, optimizer))}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(MOMENTS):
            name, _, kind = key[len(MOMENTS) :].rpartition(":")
            state.setdefault(indices[name], {})[kind] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _names(module: nn.Module, optimizer: torch.optim.AdamW) -> list[str]:
    """Return the names of an optimiser's parameters in its own order."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    return [names[p] for group in optimizer.param_groups for p in group["params"]]
