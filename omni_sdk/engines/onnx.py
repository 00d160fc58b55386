"""ONNX Runtime: the only module that imports it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omni_sdk.engines.graph_check import check_graph
from omni_sdk.engines.inputs import check_inputs
from omni_sdk.errors import BackendUnavailableError, BundleError, EngineError
from omni_sdk.manifest import GraphSpec, TensorSpec

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

if TYPE_CHECKING:
    from omni_sdk.bundle import Bundle

logger = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
# onnxruntime has no common base for what it raises; shape errors come as any of these.
_ORT_ERRORS = (
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


class OnnxEngine:
    """One graph in an onnxruntime session.

    Args:
        session: an open session.
        name: the graph's name, for messages.
        spec: its entry in the manifest.
    """

    def __init__(self, session: Any, name: str, spec: GraphSpec) -> None:
        self._session = session
        self._name = name
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
    def output_names(self) -> list[str]:
        """Names of the outputs, in order."""
        return self._outputs

    def output_device(self) -> tuple[str, int]:
        """Return onnxruntime's name and index of the device that the session's first provider uses."""
        provider = self._session.get_providers()[0]
        if provider not in (CUDA, "TensorrtExecutionProvider"):
            return ("cpu", 0)
        options = self._session.get_provider_options().get(provider, {})
        return ("cuda", int(options.get("device_id", 0)))

    def linked(self, links: Mapping[str, str], first: Mapping[str, NDArray[Any]]) -> _OnnxLinks:
        """Start a row of calls; see `omni_sdk.engines.linked.start_linked`."""
        return _OnnxLinks(self, links, first)

    def check(self, inputs: Mapping[str, NDArray[Any]], held: Collection[str]) -> None:
        """Hold inputs against the manifest; `held` are inputs that the engine holds itself.

        Raises:
            EngineError: something does not fit.
        """
        check_inputs(self._name, {n: t for n, t in self._inputs.items() if n not in held}, inputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once; see `omni_sdk.engines.base.Engine.run`."""
        check_inputs(self._name, self._inputs, inputs)
        try:
            outputs = self._session.run(self._outputs, dict(inputs))
        except _ORT_ERRORS as e:
            shapes = {name: value.shape for name, value in inputs.items()}
            raise EngineError(f"{self._name}: onnxruntime failed on {shapes}: {e}") from e
        return dict(zip(self._outputs, outputs, strict=True))


class _OnnxLinks:
    """Calls in a row with linked tensors held where the session runs (see `omni_sdk.engines.linked`).

    I/O binding: linked outputs are allocated by the session's provider on its device and bound as inputs of
    the next call, so that a key-value cache is not copied to the host and back on every step.
    """

    def __init__(
        self, engine: OnnxEngine, links: Mapping[str, str], first: Mapping[str, NDArray[Any]]
    ) -> None:
        self._engine = engine
        self._links = dict(links)
        self._first: dict[str, NDArray[Any]] | None = dict(first)
        self._held: dict[str, Any] = {}
        self._device = engine.output_device()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once; see `omni_sdk.engines.linked.LinkedRun.run`."""
        engine, session = self._engine, self._engine.session
        first = self._first or {}
        engine.check({**inputs, **first}, held=self._held.keys())
        binding = session.io_binding()
        try:
            for name, value in {**inputs, **first}.items():
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
            for name, value in self._held.items():
                binding.bind_ortvalue_input(name, value)
            for name in engine.output_names:
                device = self._device if name in self._links else ("cpu", 0)
                binding.bind_output(name, *device)
            session.run_with_iobinding(binding)
        except _ORT_ERRORS as e:
            shapes = {name: value.shape for name, value in inputs.items()}
            raise EngineError(f"{engine.name}: onnxruntime failed on {shapes}: {e}") from e
        found = dict(zip(engine.output_names, binding.get_outputs(), strict=True))
        self._held = {target: found.pop(source) for source, target in self._links.items()}
        self._first = None
        return {name: value.numpy() for name, value in found.items()}


class OnnxLoader:
    """Opens a bundle's graphs in onnxruntime.

    Args:
        device: "cpu", "cuda", "cuda:1", or "auto" (CUDA where onnxruntime offers it, else the CPU).
        providers: onnxruntime's execution providers by their own names, or (name, options) pairs, most
            wanted first, in place of what `device` implies; "CPUExecutionProvider" is added last.
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
            raise ValueError(f"threads must be at least 1 or None, got {threads!r}")
        kind, _, index = device.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (
            index and (kind != "cuda" or not index.isdigit())
        ):
            raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}")
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
        self._providers = [*providers] if CPU in names else [*providers, CPU]
        self._first = [*names, CPU][0]
        self.device = f"cuda:{index or 0}" if CUDA in names else "cpu"
        self._threads = threads

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
        try:
            model = str(path) if spec.data else content
            session = ort.InferenceSession(model, options, providers=self._providers)
        except _ORT_ERRORS as e:
            raise EngineError(f"{graph}: onnxruntime refuses {path}: {e}") from e
        _check_signature(session.get_inputs(), spec.inputs, graph, "inputs")
        _check_signature(session.get_outputs(), spec.outputs, graph, "outputs")
        # onnxruntime falls back silently, e.g. where the CUDA libraries do not load.
        if session.get_providers()[0] != self._first:
            message = f"{graph}: {self._first} could not start, onnxruntime chose " + str(
                session.get_providers()
            )
            if not self._may_fall_back:
                raise EngineError(f"{message}; check the driver, or use device='cpu'")
            logger.warning("%s", message)
            self.device = "cpu"
        return OnnxEngine(session, graph, spec)


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
