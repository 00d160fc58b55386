"""The tracker on torch, for a SAM 2 checkpoint that was not exported (extra `torch`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import Sam2VideoModel

from omni_sdk.bundle.manifest import DusSpec, GraphSpec
from omni_sdk.dus.sam2.graphs import (
    IMAGE_ENCODER,
    MASK_DECODER,
    MEMORY_ATTENTION,
    MEMORY_ENCODER,
    Sam2Graphs,
    graph_specs,
)
from omni_sdk.dus.sam2.tracker import Sam2Tracker
from omni_sdk.errors import EngineError
from omni_sdk.hf.sam2_checkpoint import dus_spec, load_model
from omni_sdk.hf.sam2_modules import ImageEncoder, MaskDecoder, MemoryAttention, MemoryEncoder

MODULES: dict[str, Callable[[Sam2VideoModel], nn.Module]] = {
    IMAGE_ENCODER: ImageEncoder,
    MASK_DECODER: MaskDecoder,
    MEMORY_ATTENTION: MemoryAttention,
    MEMORY_ENCODER: MemoryEncoder,
}


class TorchEngine:
    """`omni_sdk.engines.base.Engine` over a torch module."""

    def __init__(self, module: nn.Module, spec: GraphSpec, device: str) -> None:
        self._module = module.to(device).eval()
        self._spec = spec
        self._device = device

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the module once; EngineError if it fails."""
        tensors = [
            torch.from_numpy(np.ascontiguousarray(inputs[t.name])).to(self._device)
            for t in self._spec.inputs
        ]
        try:
            with torch.inference_mode():
                result = self._module(*tensors)
        except RuntimeError as e:
            raise EngineError(f"{self._spec.file}: {e}") from e
        values = result if isinstance(result, tuple) else (result,)
        return {t.name: v.cpu().numpy() for t, v in zip(self._spec.outputs, values, strict=True)}


class HfTracker(Sam2Tracker):
    """`omni_sdk.stages.Tracker` over a transformers `Sam2VideoModel`: the same rules, torch inside."""

    @classmethod
    def from_model(cls, model: Sam2VideoModel, spec: DusSpec, *, device: str = "cpu") -> HfTracker:
        """Wrap a loaded float32 model."""
        engines = torch_engines(model, spec, device=device)
        return cls(Sam2Graphs(engines, spec, no_memory_embedding(model)))

    @classmethod
    def from_checkpoint(
        cls, directory: str | os.PathLike[str], *, device: str = "cpu"
    ) -> HfTracker:
        """Load a checkpoint directory (config.json, safetensors) in transformers' layout.

        Raises:
            BundleError: see `omni_sdk.hf.sam2_checkpoint.load_model`.
        """
        model = load_model(directory)
        return cls.from_model(model, dus_spec(model, directory), device=device)


def torch_engines(
    model: Sam2VideoModel, spec: DusSpec, *, device: str = "cpu"
) -> dict[str, TorchEngine]:
    """Return the four graphs as torch engines by name."""
    specs = graph_specs(spec)
    return {
        name: TorchEngine(module(model), specs[name], device) for name, module in MODULES.items()
    }


def no_memory_embedding(model: Sam2VideoModel) -> NDArray[np.float32]:
    """Return the (C,) float32 vector added to features that attend to nothing."""
    return np.ascontiguousarray(
        model.no_memory_embedding.detach().float().cpu().numpy().reshape(-1)
    )
