"""Graphs of a bundle on ONNX Runtime."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from omni_sdk.bundle.manifest import GraphSpec, TensorSpec
from omni_sdk.engines.graph_check import check_graph
from omni_sdk.engines.inputs import check_inputs
from omni_sdk.engines.onnx_binding import FixedBuffers, OnnxLinks
from omni_sdk.engines.onnx_graph import ORT_ERRORS, OnnxGraph, memory_advice, ort
from omni_sdk.engines.onnx_options import (
    CUDA,
    Providers,
    device_of,
    graph_providers,
    provider_list,
    without_capture,
)
from omni_sdk.errors import BundleError, EngineError, OptionError
from omni_sdk.utils.files import cache_folder

if TYPE_CHECKING:
    from omni_sdk.bundle.bundle import Bundle

logger = logging.getLogger(__name__)

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


def available_providers() -> list[str]:
    """Return the execution providers that this onnxruntime was built with, by its own names."""
    return list(ort.get_available_providers())


class OnnxEngine(OnnxGraph):
    """One graph in an onnxruntime session, as an engine.

    Args:
        session: an open session.
        name: the graph's name, for messages.
        spec: its entry in the manifest.
        captured: the graph has fixed shapes and runs as a CUDA graph.
    """

    def __init__(self, session: Any, name: str, spec: GraphSpec, *, captured: bool = False) -> None:
        super().__init__(session, name, spec)
        self._fixed = FixedBuffers(self) if captured else None

    def linked(self, links: Mapping[str, str], first: Mapping[str, NDArray[Any]]) -> OnnxLinks:
        """Start a row of calls; see `omni_sdk.engines.linked.start_linked`."""
        return OnnxLinks(self, links, first)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once; see `omni_sdk.engines.base.Engine.run`."""
        if self._fixed is not None:
            return self._fixed.run(inputs)
        check_inputs(self._name, self._inputs, inputs)
        with self.failures(inputs):
            outputs = self._session.run(self._outputs, dict(inputs))
        return dict(zip(self._outputs, outputs, strict=True))


class OnnxLoader:
    """Opens a bundle's graphs in onnxruntime.

    Args:
        device: "cpu", "cuda", "cuda:1", or "auto" (CUDA where onnxruntime offers it, else the CPU).
        providers: onnxruntime's execution providers by their own names, or (name, options) pairs, most
            wanted first, in place of what `device` implies; "CPUExecutionProvider" is added last. Options
            are filled in per graph, see `omni_sdk.engines.onnx_options`: name "TensorrtExecutionProvider"
            alone for engines with our shape ranges and a cache, ("CUDAExecutionProvider",
            {"enable_cuda_graph": "1"}) for CUDA graphs where shapes allow.
        threads: threads of one operator; None: onnxruntime decides.

    Raises:
        ValueError: `device` or `threads` makes no sense.
        EngineError: a provider that this onnxruntime does not have.
    """

    backend = "onnx"

    def __init__(
        self,
        device: str = "auto",
        providers: Sequence[Any] | None = None,
        threads: int | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise OptionError(f"threads must be at least 1 or None, got {threads!r}")
        kind, _, index = device.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (
            index and (kind != "cuda" or not index.isdigit())
        ):
            raise OptionError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}")
        available = available_providers()
        # Only a device that nobody named may be replaced by the CPU.
        self._may_fall_back = providers is None and kind == "auto"
        if providers is None:
            use_cuda = kind == "cuda" or (kind == "auto" and CUDA in available)
            providers = [(CUDA, {"device_id": index or "0"})] if use_cuda else []
        names = [p if isinstance(p, str) else p[0] for p in providers]
        if missing := [name for name in names if name not in available]:
            raise EngineError(
                f"onnxruntime has no {missing[0]} here, only {available}; for NVIDIA GPUs install "
                "'omni-sdk[onnx-gpu]' in place of 'omni-sdk[onnx]', or use device='cpu'"
            )
        self._providers = provider_list(providers, available)
        self._first = self._providers[0][0]
        self.device = device_of(self._providers)
        self._threads = threads

    @property
    def configuration(self) -> str:
        """What besides graph, device and versions decides about numbers: the providers and options."""
        return json.dumps(self._providers, default=str)

    def load(self, bundle: Bundle, graph: str) -> OnnxEngine:
        """Open a graph; see `omni_sdk.engines.base.EngineLoader.load`.

        onnxruntime gets the very bytes that were hashed and checked, except where the weights lie in
        files beside the graph: these it opens itself, by the paths that were checked.
        """
        spec = bundle.graph(graph)
        path = bundle.path(spec.file)
        content = bundle.read(spec.file)
        sizes = {name: bundle.manifest.files[name].size for name in spec.data}
        check_graph(content, graph, spec.file, sizes)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # A pipeline runs eight graphs in turn, each session with threads of its own: threads that spin
        # after their graph take the cores from the next one (a demo clip: 3.1 -> 1.7 s of CPU time).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
            options.inter_op_num_threads = 1
        model = str(path) if spec.data else content
        providers, captured = graph_providers(self._providers, bundle, graph, engine_directory())
        try:
            session = _open(model, options, providers)
        except ORT_ERRORS as e:
            if not captured:
                raise _refusal(graph, path, e) from e
            logger.warning("%s: not captured as a CUDA graph: %s", graph, e)
            captured = False
            try:
                session = _open(model, options, without_capture(providers))
            except ORT_ERRORS as again:
                raise _refusal(graph, path, again) from again
        _check_signature(session.get_inputs(), spec.inputs, graph, "inputs")
        _check_signature(session.get_outputs(), spec.outputs, graph, "outputs")
        # onnxruntime falls back silently, e.g. where the CUDA libraries do not load.
        if session.get_providers()[0] != self._first:
            message = f"{graph}: {self._first} could not start, onnxruntime chose " + str(
                session.get_providers()
            )
            if not self._may_fall_back:
                raise EngineError(f"{message}; {_driver_advice(self.device)}, or use device='cpu'")
            logger.warning("%s", message)
            self.device = "cpu"
            captured = False
        return OnnxEngine(session, graph, spec, captured=captured)


def engine_directory() -> Path:
    """Return the directory of engines that TensorRT's execution provider builds."""
    return cache_folder("ort-tensorrt")


def _open(model: str | bytes, options: Any, providers: Providers) -> Any:
    return ort.InferenceSession(
        model,
        options,
        providers=[p for p, _ in providers],
        provider_options=[o for _, o in providers],
    )


def _refusal(graph: str, path: Path, error: Exception) -> EngineError:
    text = f"{graph}: onnxruntime refuses {path}: {error}"
    return EngineError(text + memory_advice(str(error)))


def _driver_advice(device: str) -> str:
    """Return what is known of the driver, and what onnxruntime needs of it."""
    from omni_sdk.utils.devices import nvidia_device

    driver = nvidia_device(device).get("driver_version")
    found = f"driver {driver} is installed" if driver else "no NVIDIA driver answers nvidia-smi"
    return (
        f"{found}; the driver may be older than the CUDA that this onnxruntime was built for, or CUDA's "
        "and cuDNN's libraries may be missing (pip install 'onnxruntime-gpu[cuda,cudnn]')"
    )


def _check_signature(
    values: Sequence[Any], specs: tuple[TensorSpec, ...], graph: str, what: str
) -> None:
    found = {v.name: (_DTYPES.get(v.type, v.type), len(v.shape)) for v in values}
    expected = {t.name: (t.dtype, len(t.axes)) for t in specs}
    if found != expected:
        name = sorted(set(found.items()) ^ set(expected.items()))[0][0]
        raise BundleError(
            f"{graph}: the file's {what} are not those of the manifest ({name}: the file has "
            f"{found.get(name)}, the manifest {expected.get(name)})"
        )
    for value in values:
        spec = next(t for t in specs if t.name == value.name)
        for size, axis in zip(value.shape, spec.axes, strict=True):
            if isinstance(size, int) and size != axis:
                raise BundleError(
                    f"{graph}: {value.name} has shape {value.shape}, the manifest says {spec.axes}"
                )
