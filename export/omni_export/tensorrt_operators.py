"""Would TensorRT's parser take a graph? Held against its published operator list.

Source: onnx/onnx-tensorrt, docs/operators.md as of TensorRT 10.15 (opset 9 to 24), read 2026-11: operators
that our graphs may use and that it marks "Y", and its restrictions on them. Being listed is necessary, not
sufficient: empty tensors (a decoder's prompt has a cache of length 0) and boolean inputs are allowed by the
documentation, and were not run.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

SOURCE = "onnx-tensorrt docs/operators.md, TensorRT 10.15"
OPSETS = range(9, 25)
_NAMES = """
    Abs Add And ArgMax ArgMin Atan AveragePool BatchNormalization Cast CastLike Ceil Clip Concat Constant
    ConstantOfShape Conv ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal
    Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Identity If
    InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop MatMul
    Max MaxPool Mean Min Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or Pad Pow PRelu QuantizeLinear
    Range Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    Relu Reshape Resize RMSNormalization RotaryEmbedding Round ScatterElements ScatterND Selu Shape Sigmoid
    Sign Sin Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh Tile TopK
    Transpose Trilu Unsqueeze Where Xor
"""
SUPPORTED = frozenset(_NAMES.split())
_DATA_SHAPES = {"NonZero", "NonMaxSuppression", "Unique", "Compress"}
_SHAPE_INPUTS = {
    "Reshape": (1,), "Expand": (1,), "Tile": (1,), "ConstantOfShape": (0,), "Range": (0, 1, 2),
    "Slice": (1, 2, 4), "Pad": (1,), "Resize": (2, 3), "TopK": (1,), "Split": (1,), "OneHot": (1,),
}  # fmt: skip
"""Inputs whose values decide how large an output is."""
_SIZES_ONLY = {"Shape", "Size"}
_CONSTANT_AXES = {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "Squeeze", "Unsqueeze"}
_RESIZE_MODES = {"nearest", "linear"}


def objections(model: onnx.ModelProto) -> list[str]:
    """Return what TensorRT's list has against a graph; empty: nothing."""
    found = []
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version not in OPSETS:
            found.append(f"opset {opset.version}, supported are {OPSETS[0]} to {OPSETS[-1]}")
    graph = model.graph
    constants = {t.name for t in graph.initializer}
    constants |= {n.output[0] for n in graph.node if n.op_type == "Constant"}
    for node in graph.node:
        label = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        if node.domain not in ("", "ai.onnx") or node.op_type not in SUPPORTED:
            found.append(f"operator {label} is not supported")
        else:
            found += [f"{label} {node.name!r}: {why}" for why in _restrictions(node, constants)]
    return sorted({*found, *_shapes_by_values(graph)})


def _shapes_by_values(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the nodes whose output is as large as the values, not the shapes, of an input say.

    TensorRT wants such an input on the host, with ranges of its values in the profile, and cannot tell sizes
    before a run where an operator counts what it finds; the engine class gives it shapes and device buffers.
    """
    by_values = {value.name for value in graph.input}
    by_values -= {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        read = [name for name in node.input if name in by_values]
        if node.op_type in _DATA_SHAPES and read:
            yield f"{node.op_type} {node.name!r}: its size depends on values of {read[0]}"
        for index in _SHAPE_INPUTS.get(node.op_type, ()):
            if index < len(node.input) and node.input[index] in by_values:
                yield (
                    f"{node.op_type} {node.name!r}: its size depends on values of {node.input[index]}"
                )
        if read and node.op_type not in _SIZES_ONLY:
            by_values.update(node.output)


def _restrictions(node: onnx.NodeProto, constants: set[str]) -> Iterator[str]:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    outputs = [name for name in node.output if name]
    if node.op_type in _CONSTANT_AXES and len(node.input) > 1 and node.input[1] not in constants:
        yield "axes must be a constant"
    if node.op_type == "ScatterND" and attributes.get("reduction", b"none") != b"none":
        yield "a reduction is not supported"
    if node.op_type in ("LayerNormalization", "MaxPool") and len(outputs) > 1:
        yield "only the first output is supported"
    if node.op_type == "Resize":
        mode = attributes.get("mode", b"nearest").decode()
        if mode not in _RESIZE_MODES:
            yield f"mode {mode!r}, supported are {sorted(_RESIZE_MODES)}"
        if attributes.get("antialias", 0):
            yield "antialiasing is not supported"
    if node.op_type == "TopK" and not attributes.get("sorted", 1):
        yield "sorted must be 1"
