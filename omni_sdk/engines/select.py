"""Choose an engine for a backend and a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omni_sdk.engines.base import EngineLoader
from omni_sdk.errors import OptionError


def open_loader(
    backend: str = "auto",
    *,
    device: str = "auto",
    providers: Sequence[Any] | None = None,
    threads: int | None = None,
) -> EngineLoader:
    """Return the loader of a backend.

    Args:
        backend: "onnx", "tensorrt" or "auto" (ONNX Runtime, which runs everywhere; TensorRT plans
            belong to one machine and are asked for by name).
        device: "auto", "cpu", "cuda" or "cuda:N".
        providers: ONNX Runtime providers; see `Pipeline.from_pretrained`.
        threads: CPU threads of one operator; None: the engine decides.

    Raises:
        BackendUnavailableError: the backend's library is not installed.
        OptionError: `providers` with TensorRT.
    """
    if backend == "tensorrt":
        if providers is not None:
            raise OptionError("providers= is for onnxruntime; backend='tensorrt' runs plans itself")
        from omni_sdk.engines.tensorrt import TensorRTLoader

        return TensorRTLoader(device=device)
    from omni_sdk.engines.onnx import OnnxLoader

    return OnnxLoader(device=device, providers=providers, threads=threads)
