"""What a checkpoint says of its origin, so that the bundle made from it can."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from omni_sdk._version import __version__
from omni_sdk.utils.files import write_json
from safetensors.torch import load_file

RECORD = "training.json"


def write_record(checkpoint: Path, seed: int, scale: float, stages: Mapping[str, int]) -> None:
    """Write training.json beside a checkpoint's weights.

    It holds "command" that makes it again, "seed", "parameters", "weights_bytes", the steps of each of
    "stages", and the versions of omni-sdk and torch.

    Args:
        checkpoint: folder with model.safetensors.
        seed: of weights and data.
        scale: of the number of steps, 1 by default.
        stages: steps of each stage.
    """
    path = checkpoint / "model.safetensors"
    scaled = "" if scale == 1 else f" --minutes-scale {scale:g}"
    record = {
        "command": f"omni-train nano --out DIR --seed {seed}{scaled}",
        "seed": seed,
        "parameters": sum(tensor.numel() for tensor in load_file(path).values()),
        "weights_bytes": path.stat().st_size,
        "stages": dict(stages),
        "omni_sdk": __version__,
        "torch": torch.__version__,
    }
    write_json(checkpoint / RECORD, record)
