"""A SAM 2 video checkpoint -> the four ONNX graphs of a bundle's tracker.

Exporter: TorchScript. The dynamo exporter gives graphs of the same numbers, but took 31 s against 2 s
for the three graphs of a 1.4 M-parameter model that it could export (single core), and its one advantage,
constants written once, is had by `share_constants`. Position tables are constants: one export per image
size.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from omni_sdk.bundle.bundle import Bundle, file_spec
from omni_sdk.bundle.manifest import (
    SCHEMA_VERSION,
    DusSpec,
    GraphSpec,
    Manifest,
    ParityRow,
    TensorSpec,
)
from omni_sdk.dus.sam2.graphs import Sam2Graphs, graph_specs
from omni_sdk.engines.base import EngineLoader
from omni_sdk.errors import BundleError
from omni_sdk.hf.sam2_checkpoint import dus_spec, load_model
from omni_sdk.hf.sam2_modules import MemoryAttention
from omni_sdk.hf.tracker import MODULES, no_memory_embedding
from transformers import Sam2VideoModel

from omni_export.constants import share_constants, store_exact_halves
from omni_export.draft import add_golden
from omni_export.sam2_parity import tracker_parity

OPSET = 18
_EXAMPLE = {"N": 2, "T": 3, "P": 4, "K": 2}


def export_tracker(
    checkpoint: Path, out_dir: Path, *, loader: EngineLoader, exact_halves: bool = False
) -> tuple[DusSpec, dict[str, GraphSpec], list[ParityRow]]:
    """Export a checkpoint's tracker into a bundle directory and compare it with transformers.

    Args:
        checkpoint: directory with config.json and safetensors in transformers' layout.
        out_dir: the bundle; receives dus/*.onnx, golden/dus/*.npz and dus/no_memory_embedding.npy.
        loader: opens the exported graphs for the comparison.
        exact_halves: store weights that float16 holds exactly as float16 (lossless, half the size).

    Returns:
        The manifest's tracker settings, its graph entries and the comparisons made.

    Raises:
        BundleError: the checkpoint is not a SAM 2 video model that the tracker supports.
        ParityError: a graph or the tracked clip differs from transformers by more than its tolerance.
    """
    model = load_model(checkpoint)
    spec = dus_spec(model, checkpoint)
    graphs = write_graphs(model, spec, out_dir, exact_halves=exact_halves)
    files = {f: file_spec(out_dir / f) for f in _files(spec, graphs)}
    manifest = Manifest(SCHEMA_VERSION, "parity", "0", "", "", {}, files, graphs, dus=spec)
    bundle = Bundle(out_dir, manifest)
    rows = tracker_parity(model, Sam2Graphs.open(loader, bundle))
    graphs = {name: add_golden(bundle, name, loader.load(bundle, name))[0] for name in graphs}
    return spec, graphs, rows


def write_graphs(
    model: Sam2VideoModel, spec: DusSpec, out_dir: Path, *, exact_halves: bool = False
) -> dict[str, GraphSpec]:
    """Write the four graphs and the no-memory embedding of a float32 model; return the graph entries."""
    graphs = graph_specs(spec)
    for name, graph in list(graphs.items()):
        path = out_dir / graph.file
        module = MODULES[name](model).eval()
        write_graph(module, graph, path, exact_halves=exact_halves)
        if isinstance(module, MemoryAttention):
            graphs[name] = replace(graph, form=module.form)
    np.save(out_dir / spec.no_memory_embedding, no_memory_embedding(model), allow_pickle=False)
    return graphs


def write_graph(
    module: torch.nn.Module, graph: GraphSpec, path: Path, *, exact_halves: bool = False
) -> None:
    """Trace a module with a graph's inputs and outputs and write it, each constant once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exported = _export(module, graph)
    share_constants(exported)
    if exact_halves:
        store_exact_halves(exported)
    _check_standard(path.stem, exported)
    onnx.save(exported, path)


def _export(module: torch.nn.Module, graph: GraphSpec) -> onnx.ModelProto:
    buffer = io.BytesIO()
    axes = {
        t.name: {i: axis for i, axis in enumerate(t.axes) if isinstance(axis, str)}
        for t in (*graph.inputs, *graph.outputs)
    }
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of each size that becomes a constant
        torch.onnx.export(
            module,
            tuple(_example(t) for t in graph.inputs),
            buffer,
            input_names=[t.name for t in graph.inputs],
            output_names=[t.name for t in graph.outputs],
            dynamic_axes={name: value for name, value in axes.items() if value},
            opset_version=OPSET,
            dynamo=False,
        )
    return onnx.load_model_from_string(buffer.getvalue())


def _example(tensor: TensorSpec) -> torch.Tensor:
    shape = [_EXAMPLE[a] if isinstance(a, str) else a for a in tensor.axes]
    if tensor.dtype == "float32":
        return torch.randn(shape)
    return torch.ones(shape, dtype=getattr(torch, tensor.dtype))


def _check_standard(name: str, model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model)
    if foreign := {f"{n.domain}::{n.op_type}" for n in model.graph.node if n.domain}:
        raise BundleError(f"{name}: operators outside the standard set: {sorted(foreign)}")


def _files(spec: DusSpec, graphs: dict[str, GraphSpec]) -> list[str]:
    return [*(g.file for g in graphs.values()), spec.no_memory_embedding]
