"""One module -> one ONNX file: trace, name the axes, strip what the tracer leaves, check the operators."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from omni_sdk.bundle.manifest import GraphSpec, TensorSpec
from omni_sdk.errors import BundleError

from omni_export.constants import EXTERNAL_DATA_BYTES, store_exact_halves
from omni_export.thinker_graphs import GraphPlan

OPSET = 20


def export_graph(plan: GraphPlan, directory: Path, *, compact: bool) -> GraphSpec:
    """Trace a plan's module and write it to `directory` / (plan's name).onnx.

    Args:
        plan: what to trace.
        directory: the bundle under construction.
        compact: store weights that float16 holds exactly as float16 (see `store_exact_halves`). Ignored for a
            graph that needs external data.

    Returns:
        The graph's entry for the manifest.

    Raises:
        BundleError: the traced graph does not have the planned inputs, outputs or axes, or uses an
            operator outside the ONNX standard.
    """
    path = directory / f"{plan.name}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    size = sum(p.numel() * p.element_size() for p in plan.module.parameters())
    external = size > EXTERNAL_DATA_BYTES
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            plan.module.eval(),
            (),
            str(path),
            kwargs=plan.example,
            dynamic_shapes=_dynamic_shapes(plan),
            input_names=[t.name for t in plan.inputs],
            output_names=[t.name for t in plan.outputs],
            dynamo=True,
            opset_version=OPSET,
            external_data=external,
            verbose=False,
        )
    model = onnx.load(str(path), load_external_data=False)
    _name_axes(model.graph.input, plan.inputs, plan.name)
    _name_axes(model.graph.output, plan.outputs, plan.name)
    clean(model)
    check_operators(model, plan.name)
    if compact and not external:
        store_exact_halves(model)
    onnx.save(model, str(path))
    data = (f"{plan.name}.onnx.data",) if external else ()
    return GraphSpec(f"{plan.name}.onnx", plan.inputs, plan.outputs, data)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tracer's own deprecations, and its complaints that torchvision is absent, to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _dynamic_shapes(plan: GraphPlan) -> dict[str, Any]:
    specs = iter(plan.inputs)

    def axes() -> dict[int, Any]:
        named = enumerate(next(specs).axes)
        return {i: torch.export.Dim.AUTO for i, axis in named if isinstance(axis, str)}

    return {
        key: [axes() for _ in value] if isinstance(value, list) else axes()
        for key, value in plan.example.items()
    }


def _name_axes(values: Any, specs: tuple[TensorSpec, ...], graph: str) -> None:
    """Give dynamic axes the planned names; refuse a graph that is not as planned."""
    found, planned = [v.name for v in values], [s.name for s in specs]
    if found != planned:
        raise BundleError(f"{graph}: traced tensors {found}, planned {planned}")
    for value, spec in zip(values, specs, strict=True):
        dims = value.type.tensor_type.shape.dim
        if len(dims) != len(spec.axes):
            raise BundleError(f"{graph}: {spec.name} has rank {len(dims)}, planned {spec.axes}")
        for dim, axis in zip(dims, spec.axes, strict=True):
            fixed = dim.dim_value if dim.HasField("dim_value") else None
            if isinstance(axis, str) and fixed is not None:
                raise BundleError(f"{graph}: axis {axis!r} of {spec.name} was frozen at {fixed}")
            if isinstance(axis, int) and fixed not in (axis, None):
                raise BundleError(f"{graph}: {spec.name} has {fixed}, planned {spec.axes}")
            dim.Clear()
            if isinstance(axis, str):
                dim.dim_param = axis
            else:
                dim.dim_value = axis


def clean(model: onnx.ModelProto) -> None:
    """Drop what the tracer adds for debugging: stack traces with the exporter's paths, shapes it knew."""
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    model.graph.doc_string = model.doc_string = ""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        value.doc_string = ""


def check_operators(model: onnx.ModelProto, graph: str) -> None:
    """Refuse operators outside ai.onnx: every engine reads the same file.

    Raises:
        BundleError: a node of another domain, or a local function.
    """
    odd = {f"{n.domain}::{n.op_type}" for n in model.graph.node if n.domain not in ("", "ai.onnx")}
    odd |= {f.name for f in model.functions}
    if odd:
        raise BundleError(f"{graph}: operators outside the ONNX standard: {sorted(odd)}")
