"""The tracker's attention over a whole image in one operator: onnxruntime's MultiHeadAttention.

On CPUs it goes through scores in tiles that stay in the cache and never writes the matrix: at 1024 px memory
attention has 4,096 x 28,736 scores. Numbers are those of the standard graph within float32 rounding. Windows
are left alone: for their few tokens separate products are faster (measured: benchmarks/README.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from omni_sdk.errors import BundleError
from onnx import helper, numpy_helper

MICROSOFT = "com.microsoft"
_HEADS_FIRST, _KEYS_LAST = [0, 2, 1, 3], [0, 2, 3, 1]


class NothingToFuseError(BundleError):
    """A graph has no attention over a whole image."""


@dataclass(frozen=True, slots=True)
class _Block:
    """softmax(query @ transpose(keys)) @ values, for some of the queries."""

    query: str
    keys: onnx.NodeProto  # the Transpose
    values: str
    softmax: onnx.NodeProto
    scores: onnx.NodeProto
    mixed: onnx.NodeProto


def fuse_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put MultiHeadAttention in the place of whole-image attention; changes the model.

    Raises:
        NothingToFuseError: there is none.
    """
    fuser = _Fuser(model.graph)
    blocks = fuser.blocks()
    count = fuser.fuse_rows(blocks) + fuser.fuse_heads(blocks)
    if not count:
        raise NothingToFuseError("no attention over a whole image was found to fuse")
    fuser.finish()
    if all(opset.domain != MICROSOFT for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return model


class _Fuser:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._writer = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._instead: dict[str, list[onnx.NodeProto]] = {}  # by the output that they write
        self._constants: set[str] = set()

    def blocks(self) -> list[_Block]:
        """Return every attention in the graph."""
        found = []
        for softmax in self._graph.node:
            scores = self._writer.get(softmax.input[0]) if softmax.op_type == "Softmax" else None
            if scores is None or scores.op_type != "MatMul":
                continue
            keys = self._writer.get(scores.input[1])
            (mixed, *others) = self._readers.get(softmax.output[0], [None])
            if keys is None or keys.op_type != "Transpose" or others:
                continue
            if mixed is None or mixed.op_type != "MatMul" or mixed.input[0] != softmax.output[0]:
                continue
            found.append(_Block(scores.input[0], keys, mixed.input[1], softmax, scores, mixed))
        return found

    def fuse_rows(self, blocks: Sequence[_Block]) -> int:
        """Fuse attention of one head, (N, rows, C), whose query blocks are joined again; return how many."""
        by_output = {block.mixed.output[0]: block for block in blocks}
        count = 0
        for joined in self._graph.node:
            if joined.op_type != "Concat" or not all(name in by_output for name in joined.input):
                continue
            rows = [by_output[name] for name in joined.input]
            first = rows[0]
            slices = [self._writer.get(row.query) for row in rows]
            same = {(row.keys.output[0], row.values) for row in rows}
            whole = {node.input[0] for node in slices if node is not None}
            if len(same) != 1 or len(whole) != 1 or not self._in_turn(slices):
                continue
            if _permutation(first.keys) != [0, 2, 1]:
                continue
            name = joined.output[0]
            query, keys = whole.pop(), first.keys.input[0]
            # Queries of the frame, once for all objects, meet keys of each.
            nodes = [
                helper.make_node("Shape", [keys], [f"{name}.objects"], start=0, end=1),
                helper.make_node(
                    "Concat",
                    [f"{name}.objects", self._constant([1, 1], "one_one")],
                    [f"{name}.sizes"],
                    axis=0,
                ),
                helper.make_node("Expand", [query, f"{name}.sizes"], [f"{name}.query"]),
                _attention([f"{name}.query", keys, first.values], name, 1),
            ]
            self._instead[name] = nodes
            count += 1
        return count

    def fuse_heads(self, blocks: Sequence[_Block]) -> int:
        """Fuse attention of several heads over one window that is the image; return how many."""
        count = 0
        for block in blocks:
            query, values = self._writer.get(block.query), self._writer.get(block.values)
            after = self._readers.get(block.mixed.output[0], [])
            sources = [(query, _HEADS_FIRST), (block.keys, _KEYS_LAST), (values, _HEADS_FIRST)]
            if len(after) != 1 or _permutation(after[0]) != _HEADS_FIRST:
                continue
            if any(node is None or _permutation(node) != order for node, order in sources):
                continue
            assert query is not None
            assert values is not None
            heads = self._heads(query.input[0])
            if heads is None:
                continue
            name = after[0].output[0]
            flat = self._constant([0, 0, -1], "rows_flat")
            shape = self._constant([0, 0, heads, -1], f"rows_{heads}")
            parts = [f"{name}.{part}" for part in ("q", "k", "v")]
            nodes = [
                helper.make_node("Reshape", [node.input[0], flat], [part])
                for node, part in zip((query, block.keys, values), parts, strict=True)
            ]
            nodes.append(_attention(parts, f"{name}.flat", heads))
            nodes.append(helper.make_node("Reshape", [f"{name}.flat", shape], [name]))
            self._instead[name] = nodes
            count += 1
        return count

    def finish(self) -> None:
        """Write the new nodes, and leave out what nothing reads any more."""
        nodes = [
            new
            for node in self._graph.node
            for new in self._instead.get(node.output[0] if node.output else "", [node])
        ]
        needed = {value.name for value in self._graph.output}
        kept = []
        for node in reversed(nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                copy = onnx.NodeProto()  # deleting from the graph frees what it held
                copy.CopyFrom(node)
                kept.append(copy)
        del self._graph.node[:]
        self._graph.node.extend(reversed(kept))

    def _in_turn(self, slices: Sequence[onnx.NodeProto | None]) -> bool:
        """Say whether slices of rows follow each other from the first row."""
        end = 0
        for node in slices:
            if node is None or node.op_type != "Slice":
                return False
            values = [self._value(name) for name in node.input[1:4]]
            if any(value is None or value.size != 1 for value in values):
                return False
            start, stop, axis = (int(value.item()) for value in values if value is not None)
            if axis != 1 or start != end:
                return False
            end = stop
        return True

    def _heads(self, name: str) -> int | None:
        """Return the heads of (B, rows, heads, C), as the Reshape that wrote it says."""
        node = self._writer.get(name)
        shape = (
            self._value(node.input[1]) if node is not None and node.op_type == "Reshape" else None
        )
        return int(shape[2]) if shape is not None and shape.size == 4 and shape[2] > 0 else None

    def _value(self, name: str) -> NDArray[np.int64] | None:
        """Return a constant's value."""
        node = self._writer.get(name)
        if node is not None and node.op_type == "Constant":
            tensors = [node.attribute[0].t]
        else:
            tensors = [t for t in self._graph.initializer if t.name == name]
        return np.asarray(numpy_helper.to_array(tensors[0])) if tensors else None

    def _constant(self, values: Sequence[int], name: str) -> str:
        name = f"fused.{name}"
        if name not in self._constants:
            array = np.array(values, np.int64)
            self._graph.initializer.append(numpy_helper.from_array(array, name))
            self._constants.add(name)
        return name


def _attention(inputs: Sequence[str], output: str, heads: int) -> onnx.NodeProto:
    """Queries are scaled in their weights."""
    return helper.make_node(
        "MultiHeadAttention",
        list(inputs),
        [output],
        f"{output}.attention",
        domain=MICROSOFT,
        num_heads=heads,
        scale=1.0,
    )


def _permutation(node: onnx.NodeProto) -> list[int] | None:
    if node.op_type != "Transpose":
        return None
    return next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
