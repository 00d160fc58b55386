"""4-bit weights fitted to data by GPTQ, as ONNX Runtime's MatMulNBits.

Source: Frantar et al., "GPTQ: Accurate post-training quantization for generative pre-trained transformers"
(2022), algorithm 1. onnxruntime's own GPTQ is not used: it finds weights on one grid and stores them on
another (scales are taken again from the result), and was further from float32 than rounding to the nearest
on the nano decoder (0.18 against 0.11 deviations of the logits).

Note [Real sizes]
    The Hessians of a 3B decoder take 39 GB: they are gathered in several passes over the calls, each for as
    many products as `HESSIAN_BYTES` hold. Rows are treated in batches whose errors reach the rest in one
    product (the paper's "lazy batch updates"), columns, which do not depend on each other, in slices.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Floats = NDArray[np.float64]
DAMPING = 0.01  # of the mean diagonal of the Hessian, as in the paper
HESSIAN_BYTES = 4 << 30
_LEVELS = 8  # values are stored as 0..15 and mean -8..7
_ROWS = 128
_COLUMNS = 4096
_PAGE = 4096


def inverse_factor(hessian: Floats) -> Floats:
    """Return the upper triangular U with U^T U = (hessian + damping)^-1, (K, K).

    Args:
        hessian: (K, K), the sum of x x^T over inputs x of K numbers; damped in place, since it can take a GB.
    """
    diagonal = np.einsum("ii->i", hessian)  # a view
    diagonal += DAMPING * diagonal.mean() or 1.0
    return np.linalg.cholesky(np.linalg.inv(hessian)).T


def gptq(
    weight: NDArray[np.float32], factor: Floats, block: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantise a matrix row by row, each row's error spread over the rows still to come.

    Args:
        weight: (K, N), K inputs; K is a multiple of `block`.
        factor: (K, K) of `inverse_factor`.
        block: rows of a column that share a scale.

    Returns:
        (K, N) uint8 in 0..15 and (K / block, N) float32 scales: weight = (value - 8) * scale.
    """
    values = np.empty(weight.shape, np.uint8)
    scales = np.empty((len(weight) // block, weight.shape[1]), np.float32)
    for first in range(0, weight.shape[1], _COLUMNS):
        columns = slice(first, first + _COLUMNS)
        rest = weight[:, columns].astype(np.float64)
        _fit_columns(rest, factor, block, values[:, columns], scales[:, columns])
    return values, scales


def _fit_columns(
    rest: Floats,
    factor: Floats,
    block: int,
    values: NDArray[np.uint8],
    scales: NDArray[np.float32],
) -> None:
    """Fill `values` and `scales` for some columns; `rest` is what is left to express, and is used up."""
    # whole blocks: a scale is taken once all earlier errors are in its rows
    batch = max(_ROWS // block, 1) * block
    for first in range(0, len(rest), batch):
        last = min(first + batch, len(rest))
        errors = np.empty_like(rest[first:last])
        for row in range(first, last):
            if row % block == 0:
                group = rest[row : row + block]
                # the largest entry, with its sign, becomes the level that has no opposite
                largest = np.take_along_axis(group, np.abs(group).argmax(0)[None], 0)[0]
                scales[row // block] = np.where(largest == 0, 1, largest / -_LEVELS)
            scale = scales[row // block].astype(np.float64)
            level = np.clip(np.rint(rest[row] / scale), -_LEVELS, _LEVELS - 1)
            values[row] = level + _LEVELS
            errors[row - first] = (rest[row] - level * scale) / factor[row, row]
            rest[row + 1 : last] -= np.outer(factor[row, row + 1 : last], errors[row - first])
        rest[last:] -= factor[first:last, last:].T @ errors


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
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        readers.setdefault(node.input[0], []).append(node)
    sizes = {name: tensors[found[0].input[1]].dims[0] for name, found in readers.items()}
    with _watched(model, list(readers)) as session:
        for names in _passes(sizes):
            hessians = _hessians(session, names, calls)
            for name in names:
                factor = inverse_factor(hessians.pop(name))
                for node in readers[name]:
                    _replace(model, node, tensors[node.input[1]], factor, block)
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)
    if nodes and all(o.domain != "com.microsoft" for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def _replace(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    tensor: onnx.TensorProto,
    factor: Floats,
    block: int,
) -> None:
    """Turn a MatMul into a MatMulNBits with fitted weights, which are added to the model."""
    values, scales = gptq(numpy_helper.to_array(tensor), factor, block)
    count, width = values.shape
    columns = values.T.reshape(width, count // block, block)
    packed = columns[..., 0::2] | (columns[..., 1::2] << 4)
    stored = f"{tensor.name}.int4", f"{tensor.name}.scales"
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


def _passes(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Split tensors of so many numbers a row into groups whose Hessians fit; one at least in each."""
    group: list[str] = []
    taken = 0
    for name, size in sizes.items():
        if group and taken + 8 * size**2 > HESSIAN_BYTES:
            yield group
            group, taken = [], 0
        group.append(name)
        taken += 8 * size**2
    if group:
        yield group


@contextlib.contextmanager
def _watched(model: onnx.ModelProto, names: Sequence[str]) -> Iterator[Any]:
    """Open a session that gives the model's named tensors."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_prepacking", "1")  # weights stay mapped files
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "watched.onnx"
        _save(model, names, path)
        yield ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _save(model: onnx.ModelProto, outputs: Sequence[str], path: Path) -> None:
    """Write a model with other outputs, large weights in a file of their own.

    Any size goes, and the model stays as it is: `onnx.save` would empty it of its weights.
    """
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    weights = path.with_name(f"{path.name}.data")
    with weights.open("wb") as file:
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.nbytes < _PAGE:
                light.graph.initializer.append(tensor)
                continue
            file.seek(-file.tell() % _PAGE, io.SEEK_CUR)
            kind = {"name": tensor.name, "data_type": tensor.data_type, "dims": tensor.dims}
            place = {"location": weights.name, "offset": file.tell(), "length": values.nbytes}
            stored = light.graph.initializer.add(**kind, data_location=onnx.TensorProto.EXTERNAL)
            for key, value in place.items():
                stored.external_data.add(key=key, value=str(value))
            file.write(values.tobytes())
    path.write_bytes(light.SerializeToString())


def _hessians(
    session: Any, names: Sequence[str], calls: Sequence[Mapping[str, NDArray[np.generic]]]
) -> dict[str, Floats]:
    """Sum x x^T over all rows x of the named tensors, for all calls."""
    sums: dict[str, Floats] = {}
    for call in calls:
        for name, value in zip(names, session.run(list(names), dict(call)), strict=True):
            rows = value.reshape(-1, value.shape[-1]).astype(np.float64)
            if name in sums:
                sums[name] += rows.T @ rows
            else:
                sums[name] = rows.T @ rows
    return sums
