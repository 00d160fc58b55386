"""4-bit weights fitted to data by GPTQ, as ONNX Runtime's MatMulNBits.

Source: Frantar et al., "GPTQ: Accurate post-training quantization for generative pre-trained transformers"
(2022), algorithm 1. onnxruntime's own GPTQ is not used: it finds weights on one grid and stores them on
another (scales are taken again from the result), and was further from float32 than rounding to the nearest
on the nano decoder (0.18 against 0.11 deviations of the logits).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Floats = NDArray[np.float64]
DAMPING = 0.01  # of the mean diagonal of the Hessian, as in the paper
_LEVELS = 8  # values are stored as 0..15 and mean -8..7


def gptq(
    weight: NDArray[np.float32], hessian: Floats, block: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantise a matrix row by row, each row's error spread over the rows still to come.

    Args:
        weight: (K, N), K inputs; K is a multiple of `block`.
        hessian: (K, K), the sum of x x^T over inputs x.
        block: rows of a column that share a scale.

    Returns:
        (K, N) uint8 in 0..15 and (K / block, N) float32 scales: weight = (value - 8) * scale.
    """
    rest = weight.astype(np.float64)
    count = len(rest)
    diagonal = np.diag(hessian)
    damped = hessian + np.eye(count) * (DAMPING * diagonal.mean() or 1.0)
    inverse = np.linalg.cholesky(np.linalg.inv(damped)).T
    values = np.empty(weight.shape, np.uint8)
    scales = np.empty((count // block, weight.shape[1]), np.float32)
    for row in range(count):
        if row % block == 0:
            group = rest[row : row + block]
            # the largest entry, with its sign, becomes the level that has no opposite
            largest = np.take_along_axis(group, np.abs(group).argmax(0)[None], 0)[0]
            scales[row // block] = np.where(largest == 0, 1, largest / -_LEVELS)
        scale = scales[row // block].astype(np.float64)
        level = np.clip(np.rint(rest[row] / scale), -_LEVELS, _LEVELS - 1)
        values[row] = level + _LEVELS
        error = (rest[row] - level * scale) / inverse[row, row]
        rest[row + 1 :] -= np.outer(inverse[row, row + 1 :], error)
    return values, scales


def quantise_fitted(
    model: onnx.ModelProto, calls: Sequence[Mapping[str, NDArray[np.generic]]], block: int
) -> onnx.ModelProto:
    """Replace products with constant weights by MatMulNBits with fitted 4-bit weights.

    Args:
        model: changed in place.
        calls: inputs of the graph; every product's inputs are gathered over them.
        block: weights that share a scale; products whose inputs are no multiple stay as they are.

    Returns:
        The model.
    """
    tensors = {t.name: t for t in model.graph.initializer}
    nodes = [
        node
        for node in model.graph.node
        if node.op_type == "MatMul"
        and node.input[1] in tensors
        and len(tensors[node.input[1]].dims) == 2
        and tensors[node.input[1]].dims[0] % block == 0
    ]
    hessians = _hessians(model, sorted({node.input[0] for node in nodes}), calls)
    for node in nodes:
        name = node.input[1]
        weight = numpy_helper.to_array(tensors[name])
        values, scales = gptq(weight, hessians[node.input[0]], block)
        count, width = weight.shape
        columns = values.T.reshape(width, count // block, block)
        packed = columns[..., 0::2] | (columns[..., 1::2] << 4)
        stored = f"{name}.int4", f"{name}.scales"
        model.graph.initializer.append(numpy_helper.from_array(packed, stored[0]))
        flat = np.ascontiguousarray(scales.T).reshape(-1)
        model.graph.initializer.append(numpy_helper.from_array(flat, stored[1]))
        node.CopyFrom(
            helper.make_node(
                "MatMulNBits",
                [node.input[0], *stored],
                list(node.output),
                node.name,
                domain="com.microsoft",
                K=count,
                N=width,
                bits=4,
                block_size=block,
                accuracy_level=4,
            )
        )
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)
    if nodes and all(o.domain != "com.microsoft" for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def _hessians(
    model: onnx.ModelProto,
    names: Sequence[str],
    calls: Sequence[Mapping[str, NDArray[np.generic]]],
) -> dict[str, Floats]:
    """Sum x x^T over all rows x of the named tensors, for all calls."""
    import onnxruntime as ort

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    sums: dict[str, Floats] = {}
    for call in calls:
        for name, value in zip(names, session.run(list(names), dict(call)), strict=True):
            rows = value.reshape(-1, value.shape[-1]).astype(np.float64)
            sums[name] = sums.get(name, 0) + rows.T @ rows
    return sums
