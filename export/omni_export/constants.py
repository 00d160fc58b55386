"""Make ONNX files small without changing a number: share equal constants, store exact halves."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SMALL = 256
"""Constants of fewer bytes stay where they are."""

EXTERNAL_DATA_BYTES = 1_500_000_000
"""Weights of more bytes lie in a file of their own: protobuf ends at 2 GB."""


def share_constants(model: onnx.ModelProto) -> None:
    """Turn large Constant nodes into initialisers and keep one copy of equal ones.

    The TorchScript exporter writes a tensor once per use: 139 of 163 MB of memory attention at 1024 px.
    """
    graph = model.graph
    _lift_constants(graph)
    kept: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    renamed: dict[str, str] = {}
    initializers = []
    for tensor in graph.initializer:
        data = numpy_helper.to_array(tensor).tobytes()
        key = (tensor.data_type, tuple(tensor.dims), hashlib.sha256(data).digest())
        if key in kept:
            renamed[tensor.name] = kept[key]
        else:
            kept[key] = tensor.name
            initializers.append(tensor)
    _replace(graph.initializer, initializers)
    _rename(graph, renamed)


def store_exact_halves(model: onnx.ModelProto) -> None:
    """Store float32 initialisers that float16 holds exactly as float16 with a Cast before their use.

    Lossless: it halves the file of a checkpoint that was saved as float16. Engines fold the Cast when
    they load the graph.
    """
    graph = model.graph
    initializers, casts = [], []
    for tensor in graph.initializer:
        half = _exact_half(tensor)
        if half is None:
            initializers.append(tensor)
            continue
        name = f"{tensor.name}_float16"
        initializers.append(numpy_helper.from_array(half, name))
        casts.append(
            helper.make_node("Cast", [name], [tensor.name], f"cast_{name}", to=TensorProto.FLOAT)
        )
    _replace(graph.initializer, initializers)
    _replace(graph.node, [*casts, *graph.node])


def _lift_constants(graph: onnx.GraphProto) -> None:
    nodes = []
    for node in graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            array = numpy_helper.to_array(value)
            if array.nbytes >= SMALL:
                graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
                continue
        nodes.append(node)
    _replace(graph.node, nodes)


def _exact_half(tensor: TensorProto) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]] | None:
    if tensor.data_type != TensorProto.FLOAT:
        return None
    array = numpy_helper.to_array(tensor)
    if array.nbytes < SMALL:
        return None
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), array) else None


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)


def _replace(field, values) -> None:  # type: ignore[no-untyped-def]  # a protobuf repeated field
    values = list(values)
    copies = [type(v)() for v in values]
    for copy, value in zip(copies, values, strict=True):
        copy.CopyFrom(value)
    del field[:]
    field.extend(copies)
