"""torch's devices by name."""

from __future__ import annotations

import torch

from omni_sdk.errors import EngineError, OptionError


def torch_device(name: str) -> str:
    """Return torch's name of a device that is there; "auto": the first GPU, else the CPU.

    Raises:
        OptionError: no such kind of device.
        EngineError: this machine has none, or its torch was built without it.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as e:
        raise OptionError(
            f"device must be 'auto', 'cpu', 'cuda', 'cuda:N' or another that torch knows, got {name!r}"
        ) from e
    try:
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as e:
        raise EngineError(f"torch has no device {name!r} here: {str(e).splitlines()[0]}") from e
    return name
