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
    return sorted(set(found))


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
