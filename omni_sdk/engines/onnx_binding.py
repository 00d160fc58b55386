"""Sessions of ONNX Runtime with tensors held where they run, by its I/O binding."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_sdk.engines.onnx_graph import OnnxGraph


class OnnxLinks:
    """Calls in a row with linked tensors held where the session runs (see `omni_sdk.engines.linked`).

    Linked outputs are allocated by the session's provider on its device and bound as inputs of the next call,
    so that a key-value cache is not copied to the host and back on every step.
    """

    def __init__(
        self, graph: OnnxGraph, links: Mapping[str, str], first: Mapping[str, NDArray[Any]]
    ) -> None:
        self._graph = graph
        self._links = dict(links)
        self._first: dict[str, NDArray[Any]] | None = dict(first)
        self._held: dict[str, Any] = {}
        self._device = graph.output_device()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once; see `omni_sdk.engines.linked.LinkedRun.run`."""
        graph = self._graph
        first = self._first or {}
        graph.check({**inputs, **first}, held=self._held.keys())
        with graph.failures(inputs):
            binding = graph.session.io_binding()
            for name, value in {**inputs, **first}.items():
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
            for name, value in self._held.items():
                binding.bind_ortvalue_input(name, value)
            for name in graph.output_names:
                device = self._device if name in self._links else ("cpu", 0)
                binding.bind_output(name, *device)
            graph.session.run_with_iobinding(binding)
        found = dict(zip(graph.output_names, binding.get_outputs(), strict=True))
        self._held = {target: found.pop(source) for source, target in self._links.items()}
        self._first = None
        return {name: value.numpy() for name, value in found.items()}


class FixedBuffers:
    """A graph of fixed shapes with inputs and outputs at fixed places, as a captured CUDA graph needs.

    The first call captures the graph, later ones replay it: one launch in the place of one for each kernel.
    Calls take turns.

    Args:
        graph: without a dynamic axis.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        self._graph = graph
        self._inputs = {spec.name: graph.allocate(spec) for spec in graph.inputs}
        self._outputs = {spec.name: graph.allocate(spec) for spec in graph.outputs}
        self._binding = graph.session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once; see `omni_sdk.engines.base.Engine.run`."""
        self._graph.check(inputs, held=())
        with self._lock, self._graph.failures(inputs):
            for name, value in inputs.items():
                self._inputs[name].update_inplace(np.ascontiguousarray(value))
            self._graph.session.run_with_iobinding(self._binding)
            # Copies: the next call writes to the same places.
            return {name: np.array(value.numpy()) for name, value in self._outputs.items()}
