"""A graph that is open in ONNX Runtime: what running it, by arrays or by bound memory, has in common."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_sdk.bundle.manifest import GraphSpec, TensorSpec
from omni_sdk.engines.inputs import check_inputs
from omni_sdk.engines.onnx_options import CUDA, TENSORRT
from omni_sdk.errors import BackendUnavailableError, EngineError

try:
    import onnxruntime as ort
    from onnxruntime.capi.onnxruntime_pybind11_state import (
        EPFail,
        Fail,
        InvalidArgument,
        InvalidGraph,
        InvalidProtobuf,
        NoSuchFile,
        NotImplemented,
        RuntimeException,
    )
except ImportError as e:
    raise BackendUnavailableError(
        "the onnx backend needs onnxruntime: pip install 'omni-sdk[onnx]' (or 'omni-sdk[onnx-gpu]' "
        f"for NVIDIA GPUs; not both): {e}"
    ) from e

__all__ = ["ORT_ERRORS", "OnnxGraph", "memory_advice", "ort"]

# onnxruntime has no common base for what it raises; shape errors come as any of these.
ORT_ERRORS = (
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplemented,
    RuntimeException,
    RuntimeError,
    ValueError,
)
_MEMORY_SIGNS = (
    "out of memory",
    "failed to allocate memory",
    "cuda_error_out_of_memory",
    "bfcarena",
)


class OnnxGraph:
    """One graph in an onnxruntime session.

    Args:
        session: an open session.
        name: the graph's name, for messages.
        spec: its entry in the manifest.
    """

    def __init__(self, session: Any, name: str, spec: GraphSpec) -> None:
        self._session = session
        self._name = name
        self._spec = spec
        self._inputs = {t.name: t for t in spec.inputs}
        self._outputs = [t.name for t in spec.outputs]

    @property
    def session(self) -> Any:
        """The onnxruntime session, for callers that bind device memory themselves."""
        return self._session

    @property
    def name(self) -> str:
        """The graph's name."""
        return self._name

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs' entries in the manifest."""
        return self._spec.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs' entries in the manifest."""
        return self._spec.outputs

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in order."""
        return self._outputs

    def output_device(self) -> tuple[str, int]:
        """Return onnxruntime's name and index of the device that the session's first provider uses."""
        provider = self._session.get_providers()[0]
        if provider not in (CUDA, TENSORRT):
            return ("cpu", 0)
        options = self._session.get_provider_options().get(provider, {})
        return ("cuda", int(options.get("device_id", 0)))

    def allocate(self, spec: TensorSpec) -> Any:
        """Return an OrtValue for a tensor of fixed shape, where the session runs."""
        shape, device = list(spec.axes), self.output_device()
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, np.dtype(spec.dtype), *device)

    @contextlib.contextmanager
    def failures(self, inputs: Mapping[str, NDArray[Any]]) -> Iterator[None]:
        """Turn what onnxruntime raises within into an EngineError that names the inputs' shapes."""
        try:
            yield
        except ORT_ERRORS as e:
            shapes = {name: value.shape for name, value in inputs.items()}
            message = f"{self._name}: onnxruntime failed on {shapes}: {e}"
            raise EngineError(message + memory_advice(str(e))) from e

    def check(self, inputs: Mapping[str, NDArray[Any]], held: Collection[str]) -> None:
        """Hold inputs against the manifest; `held` are inputs that the engine holds itself.

        Raises:
            EngineError: something does not fit.
        """
        check_inputs(self._name, {n: t for n, t in self._inputs.items() if n not in held}, inputs)


def memory_advice(text: str) -> str:
    """Return what to do where onnxruntime's message tells of missing memory."""
    if not any(sign in text.lower() for sign in _MEMORY_SIGNS):
        return ""
    return (
        "; the device has too little free memory: pass memory_budget='auto', or choose a smaller "
        "variant, fewer frames or fewer objects"
    )
