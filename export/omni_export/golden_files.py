"""Golden outputs of a graph in a bundle under construction: what the gate on the target compares with."""

from __future__ import annotations

from dataclasses import replace

from omni_sdk.bundle.bundle import Bundle
from omni_sdk.bundle.manifest import GraphSpec
from omni_sdk.engines.base import Engine
from omni_sdk.graphs.golden import Arrays, golden_inputs, golden_outputs, write_golden


def add_golden(bundle: Bundle, graph: str, engine: Engine) -> tuple[GraphSpec, Arrays]:
    """Run a graph's golden inputs and write "golden/GRAPH.npz" into the bundle's directory.

    Args:
        bundle: with the graph's entry and the settings that its inputs follow from.
        graph: its name.
        engine: that runs it here, on the CPU.

    Returns:
        The graph's entry with the file's name (to be listed among the manifest's files), and the outputs.
    """
    file = f"golden/{graph}.npz"
    outputs = golden_outputs(engine.run, golden_inputs(bundle, graph))
    write_golden(bundle.directory / file, outputs)
    return replace(bundle.graph(graph), golden=file), outputs
