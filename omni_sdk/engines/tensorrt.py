"""TensorRT plans as engines. Status: not run on a GPU; see `omni_sdk.engines.tensorrt_api`."""

from __future__ import annotations

import functools
import logging
import math
import shlex
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omni_sdk.bundle.manifest import GraphSpec
from omni_sdk.engines import tensorrt_api
from omni_sdk.engines.cuda import BufferPool, Device, DeviceBuffer
from omni_sdk.engines.inputs import check_inputs
from omni_sdk.engines.plans import (
    BuildFlags,
    PlanCache,
    PlanKey,
    plan_directory,
    plan_key,
    timing_cache_path,
)
from omni_sdk.errors import BundleError, EngineError, OptionError
from omni_sdk.graphs.profiles import Profile, ShapeLimits, graph_profiles, read_profiles

if TYPE_CHECKING:
    from omni_sdk.bundle.bundle import Bundle

logger = logging.getLogger(__name__)

_SPARE = (
    0.25  # of a cache that grows by a token per call: allocated anew every fourth of its length
)


class TensorRTLoader:
    """Opens a bundle's graphs from plans in the local cache.

    Args:
        device: "auto", "cuda" or "cuda:N".
        limits: the shapes that the plans were built for; None: any, of several plans that run here the
            one built or used last.
        flags: that they were built with; None: any, likewise.
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
            raise OptionError(
                f"device must be 'auto', 'cuda' or 'cuda:N' for TensorRT, got {device!r}"
            )
        self._trt = tensorrt_api.load_library() if library is None else library
        self._device = Device(int(index or 0), driver)
        tensorrt_api.check_driver(
            self._trt, self._device.cuda_version, tensorrt_api.built_for_cuda()
        )
        self.device = f"cuda:{index or 0}"
        # What nobody asked for may be as it was built: plans of `omni-export tensorrt --max-..` are found.
        choices = {"profiles": limits, "flags": flags}
        self._free = tuple(name for name, asked in choices.items() if asked is None)
        self._limits = limits or ShapeLimits()
        self._flags = flags or BuildFlags()
        self._cache = cache or PlanCache(plan_directory())

    def build(self, bundle: Bundle, graph: str) -> None:
        """Build a graph's plan into the cache unless it is there.

        `omni-export tensorrt` builds whole bundles, checks operators first and says what it does.

        Raises:
            EngineError: TensorRT refuses the graph, or the cache the plan.
        """
        profiles = graph_profiles(bundle, graph, self._limits)
        key = self._key(bundle, graph, profiles)
        with self._cache.building(key):
            if self._cache.find(key) is None:
                timing = timing_cache_path(
                    self._cache.directory,
                    tensorrt=key.tensorrt,
                    compute_capability=key.compute_capability,
                )
                file = bundle.path(bundle.graph(graph).file)
                plan = tensorrt_api.build_plan(self._trt, file, profiles, self._flags, timing)
                self._cache.store(key, plan)

    def load(self, bundle: Bundle, graph: str) -> TensorRTEngine:
        """Open a graph's plan.

        Raises:
            EngineError: there is no plan for this graph on this machine; says what was expected, what
                was found and which command builds it.
            BundleError: no such graph.
        """
        profiles = graph_profiles(bundle, graph, self._limits)
        wanted = self._key(bundle, graph, profiles)
        key = self._cache.latest(wanted, self._free) or wanted
        plan = self._cache.find(key)
        if plan is None:
            raise EngineError(
                f"{self._cache.explain(wanted)}; run: {self._build_command(bundle, graph)}"
            )
        if key != wanted:
            profiles = read_profiles(key.profiles)
        engine = tensorrt_api.deserialize(self._trt, plan, graph, self._device.free_bytes())
        return TensorRTEngine(
            self._trt, engine, self._device, graph, bundle.graph(graph), profiles, key.digest
        )

    def _build_command(self, bundle: Bundle, graph: str) -> str:
        """Return the command that builds the plan that is missing, for this variant and device."""
        spec = bundle.graph(graph)
        words = ["omni-export", "tensorrt", str(bundle.directory), "--graph", graph]
        chosen = [name for name, v in spec.variants.items() if v.file == spec.file]
        words += [word for name in chosen[:1] for word in ("--variant", name)]
        index = self.device.partition(":")[2]
        words += [] if index == "0" else ["--device", index]
        return shlex.join(words)

    def _key(self, bundle: Bundle, graph: str, profiles: Sequence[Profile]) -> PlanKey:
        return plan_key(
            bundle,
            graph,
            profiles,
            self._flags,
            tensorrt=str(self._trt.__version__),
            compute_capability=self._device.compute_capability,
        )


@dataclass(frozen=True, slots=True)
class HeldTensor:
    """A tensor on the device: its buffer, which may be larger than it is, and its shape."""

    buffer: DeviceBuffer
    shape: tuple[int, ...]


class TensorRTEngine:
    """One graph's plan with an execution context per profile.

    Args:
        trt: the library.
        engine: deserialised.
        device: where it runs.
        name: of the graph, for messages.
        spec: its entry in the manifest.
        profiles: that the plan was built with, in order.
        fingerprint: what the plan was built from and with; empty: not known.

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
        fingerprint: str = "",
    ) -> None:
        self.fingerprint = fingerprint
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
        return self.execute(inputs, {}, {})[0]

    def linked(self, links: Mapping[str, str], first: Mapping[str, NDArray[Any]]) -> TensorRTLinks:
        """Start a row of calls; see `omni_sdk.engines.linked.start_linked`."""
        return TensorRTLinks(self, links, first)

    def new_buffers(self) -> BufferPool:
        """Return a pool on the engine's device for tensors that outlive a call and grow."""
        return BufferPool(self._device, spare=_SPARE)

    def check(self, inputs: Mapping[str, NDArray[Any]], held: Collection[str]) -> None:
        """Hold inputs against the manifest; `held` are inputs that lie on the device already.

        Raises:
            EngineError: something does not fit.
        """
        check_inputs(self._name, {n: t for n, t in self._inputs.items() if n not in held}, inputs)

    def execute(
        self,
        inputs: Mapping[str, NDArray[Any]],
        held: Mapping[str, HeldTensor],
        keep: Mapping[str, Callable[[int], DeviceBuffer]],
    ) -> tuple[dict[str, NDArray[Any]], dict[str, HeldTensor]]:
        """Run the graph once.

        Args:
            inputs: on the host.
            held: the other inputs, on the device.
            keep: outputs that stay on the device: what gives a buffer of at least so many bytes, which must
                not be one of `held`.

        Returns:
            Outputs on the host, and those that stayed.

        Raises:
            EngineError: no profile holds the shapes, no memory, or TensorRT failed.
        """
        shapes = {name: value.shape for name, value in inputs.items()}
        shapes |= {name: tensor.shape for name, tensor in held.items()}
        context = self._contexts[self._profile_of(shapes)]
        with self._lock:
            self._device.activate()
            alive = []  # copies are asynchronous: what they read must live until `wait`
            for name, value in inputs.items():
                array = np.ascontiguousarray(value)
                alive.append(array)
                buffer = self._buffers.get(name, array.nbytes)
                self._device.upload(array, buffer)
                self._bind_input(context, name, array.shape, buffer)
            for name, tensor in held.items():
                self._bind_input(context, name, tensor.shape, tensor.buffer)
            outputs: dict[str, NDArray[Any]] = {}
            kept: dict[str, HeldTensor] = {}
            for spec in self._outputs:
                shape = self._output_shape(context, spec.name)
                size = math.prod(shape) * np.dtype(spec.dtype).itemsize
                if spec.name in keep:
                    buffer = keep[spec.name](size)
                    kept[spec.name] = HeldTensor(buffer, shape)
                else:
                    buffer = self._buffers.get(spec.name, size)
                    outputs[spec.name] = np.empty(shape, spec.dtype)
                context.set_tensor_address(spec.name, buffer.address)
            if not context.execute_async_v3(self._device.stream):
                raise EngineError(f"{self._name}: TensorRT failed on {shapes} (its log is above)")
            for name, value in outputs.items():
                self._device.download(self._buffers.get(name, value.nbytes), value)
            self._device.wait()
        return outputs, kept

    def upload(self, value: NDArray[Any], buffer: DeviceBuffer) -> HeldTensor:
        """Copy an array to the device and wait until it is there."""
        array = np.ascontiguousarray(value)
        with self._lock:
            self._device.activate()
            self._device.upload(array, buffer)
            self._device.wait()
        return HeldTensor(buffer, array.shape)

    def _bind_input(
        self, context: Any, name: str, shape: tuple[int, ...], buffer: DeviceBuffer
    ) -> None:
        if not context.set_input_shape(name, shape):
            raise EngineError(f"{self._name}: TensorRT refuses {name} of {shape}")
        context.set_tensor_address(name, buffer.address)

    def _output_shape(self, context: Any, name: str) -> tuple[int, ...]:
        shape = tuple(int(n) for n in context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise EngineError(
                f"{self._name}: TensorRT cannot tell the shape of {name} ({shape}) from its inputs"
            )
        return shape

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


class TensorRTLinks:
    """Calls in a row with linked tensors held on the device (see `omni_sdk.engines.linked`).

    Each linked tensor has two buffers: a call reads one and writes the other, and the next call reads that.
    So a key-value cache is never copied to the host: a step moves a token's embedding up and logits down.

    Args:
        engine: runs the graph.
        links: from an output's name to the input that it becomes.
        first: the linked inputs of the first call.
    """

    def __init__(
        self, engine: TensorRTEngine, links: Mapping[str, str], first: Mapping[str, NDArray[Any]]
    ) -> None:
        self._engine = engine
        self._links = dict(links)
        self._first: dict[str, NDArray[Any]] = dict(first)
        self._held: dict[str, HeldTensor] = {}
        self._pools = (engine.new_buffers(), engine.new_buffers())
        self._side = 0

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once; see `omni_sdk.engines.linked.LinkedRun.run`."""
        engine = self._engine
        engine.check({**inputs, **self._first}, held=self._held.keys())
        read, write = self._pools[self._side], self._pools[1 - self._side]
        held = self._held or {
            name: engine.upload(value, read.get(name, value.nbytes))
            for name, value in self._first.items()
        }
        keep = {
            source: functools.partial(write.get, target) for source, target in self._links.items()
        }
        outputs, kept = engine.execute(inputs, held, keep)
        self._held = {target: kept[source] for source, target in self._links.items()}
        self._first = {}
        self._side = 1 - self._side
        return outputs
