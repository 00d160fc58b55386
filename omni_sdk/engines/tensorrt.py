"""TensorRT plans as engines. Status: not run on a GPU; see `omni_sdk.engines.tensorrt_api`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omni_sdk.engines import tensorrt_api
from omni_sdk.engines.cuda import BufferPool, Device
from omni_sdk.engines.inputs import check_inputs
from omni_sdk.engines.plans import BuildFlags, PlanCache, plan_key
from omni_sdk.engines.profiles import Profile, ShapeLimits, graph_profiles
from omni_sdk.errors import BundleError, EngineError
from omni_sdk.manifest import GraphSpec
from omni_sdk.parity_gate import cache_directory

if TYPE_CHECKING:
    from omni_sdk.bundle import Bundle

logger = logging.getLogger(__name__)


def plan_directory() -> Path:
    """Return the directory of plans: "plans" in the cache directory."""
    return cache_directory() / "plans"


class TensorRTLoader:
    """Opens a bundle's graphs from plans in the local cache.

    Args:
        device: "auto", "cuda" or "cuda:N".
        limits: the shapes that the plans were built for.
        flags: that they were built with.
        cache: of plans; None: the user's.
        library: TensorRT; None: the machine's.
        driver: CUDA's driver; None: the machine's.

    Raises:
        ValueError: `device` is no GPU.
        BackendUnavailableError: TensorRT or the driver is missing.
        EngineError: the device or the cache directory is unusable.
    """

    backend = "tensorrt"

    def __init__(
        self,
        device: str = "auto",
        *,
        limits: ShapeLimits | None = None,
        flags: BuildFlags | None = None,
        cache: PlanCache | None = None,
        library: Any = None,
        driver: Any = None,
    ) -> None:
        kind, _, index = device.partition(":")
        if kind not in ("auto", "cuda") or (index and not index.isdigit()):
            raise ValueError(
                f"device must be 'auto', 'cuda' or 'cuda:N' for TensorRT, got {device!r}"
            )
        self._trt = tensorrt_api.load_library() if library is None else library
        self._device = Device(int(index or 0), driver)
        self.device = f"cuda:{index or 0}"
        self._limits = limits or ShapeLimits()
        self._flags = flags or BuildFlags()
        self._cache = cache or PlanCache(plan_directory())

    def load(self, bundle: Bundle, graph: str) -> TensorRTEngine:
        """Open a graph's plan.

        Raises:
            EngineError: there is no plan for this graph on this machine; says what was expected, what
                was found and which command builds it.
            BundleError: no such graph.
        """
        profiles = graph_profiles(bundle, graph, self._limits)
        key = plan_key(
            bundle,
            graph,
            profiles,
            self._flags,
            tensorrt=str(self._trt.__version__),
            compute_capability=self._device.compute_capability,
        )
        plan = self._cache.find(key)
        if plan is None:
            raise EngineError(
                f"{self._cache.explain(key)}; run: omni-export tensorrt {bundle.directory} "
                f"--graph {graph}"
            )
        engine = tensorrt_api.deserialize(self._trt, plan, graph)
        return TensorRTEngine(self._trt, engine, self._device, graph, bundle.graph(graph), profiles)


class TensorRTEngine:
    """One graph's plan with an execution context per profile.

    Args:
        trt: the library.
        engine: deserialised.
        device: where it runs.
        name: of the graph, for messages.
        spec: its entry in the manifest.
        profiles: that the plan was built with, in order.

    Raises:
        BundleError: the plan's tensors are not those of the manifest.
        EngineError: no context could be made, mostly for want of memory.
    """

    def __init__(
        self,
        trt: Any,
        engine: Any,
        device: Device,
        name: str,
        spec: GraphSpec,
        profiles: Sequence[Profile],
    ) -> None:
        expected = {t.name: "input" for t in spec.inputs} | {t.name: "output" for t in spec.outputs}
        if (found := tensorrt_api.tensor_modes(trt, engine)) != expected:
            raise BundleError(f"{name}: the plan's tensors are {found}, expected {expected}")
        self._engine = engine
        self._device = device
        self._name = name
        self._inputs = {t.name: t for t in spec.inputs}
        self._outputs = spec.outputs
        self._profiles = tuple(profiles)
        self._contexts = [self._context(i) for i in range(len(self._profiles))]
        self._buffers = BufferPool(device)
        # A context and the buffers serve one call at a time.
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once; see `omni_sdk.engines.base.Engine.run`."""
        check_inputs(self._name, self._inputs, inputs)
        shapes = {name: value.shape for name, value in inputs.items()}
        context = self._contexts[self._profile_of(shapes)]
        with self._lock:
            self._device.activate()
            held = []  # copies are asynchronous: what they read must live until `wait`
            for name, value in inputs.items():
                array = np.ascontiguousarray(value)
                held.append(array)
                buffer = self._buffers.get(name, array.nbytes)
                self._device.upload(array, buffer)
                if not context.set_input_shape(name, array.shape):
                    raise EngineError(f"{self._name}: TensorRT refuses {name} of {array.shape}")
                context.set_tensor_address(name, buffer.address)
            outputs = {}
            for spec in self._outputs:
                shape = tuple(int(n) for n in context.get_tensor_shape(spec.name))
                value = outputs[spec.name] = np.empty(shape, spec.dtype)
                context.set_tensor_address(
                    spec.name, self._buffers.get(spec.name, value.nbytes).address
                )
            if not context.execute_async_v3(self._device.stream):
                raise EngineError(f"{self._name}: TensorRT failed on {shapes} (its log is above)")
            for name, value in outputs.items():
                self._device.download(self._buffers.get(name, value.nbytes), value)
            self._device.wait()
        return outputs

    def _context(self, profile: int) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise EngineError(
                f"{self._name}: no execution context, mostly for want of device memory "
                f"({self._device.free_bytes()} bytes are free)"
            )
        if not context.set_optimization_profile_async(profile, self._device.stream):
            raise EngineError(f"{self._name}: TensorRT refuses profile {profile}")
        self._device.wait()
        return context

    def _profile_of(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        for index, profile in enumerate(self._profiles):
            if profile.holds(shapes):
                return index
        raise EngineError(
            f"{self._name}: no profile holds {dict(shapes)}; profiles: "
            f"{[(p.name, {k: (v[0], v[2]) for k, v in p.shapes.items()}) for p in self._profiles]}; "
            "build again with larger limits (omni-export tensorrt --max-...)"
        )
