"""The decoder with ONNX Runtime's fused operators, rebuilt from the weights of an exported one.

What changes: GroupQueryAttention in place of repeated keys and values, a transposed copy of them, two
products and a softmax; RotaryEmbedding on a table of cosines and sines that three-axis positions
give once per call; residual additions fused with the normalisation after them; query, key and value in one
product, gate and up in one. Inputs and outputs are those of the exported graph.

GroupQueryAttention itself rotates by one position per token; ours has three, so it is told not to
(`do_rotary` 0). It knows lengths, not masks: left padding is right because the mask enters as a bias on the
scores. The bias has no CUDA kernel, so that a graph for CUDA goes without and takes no left padding
(`left_padding`).

Why not onnxruntime-genai's builder: it knows no Qwen2.5-Omni (a renamed Qwen2.5-VL works), starts from a
checkpoint where this starts from a bundle, gets left padding wrong by 1.7 of logits, and emits the same
operators; its graph took 0.74 (past 256) and 0.49 (past 2048) of the exported graph's time where measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from omni_sdk.errors import BundleError
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
MICROSOFT = "com.microsoft"
MASKED = -1e4  # as in the exported graph: finite, so that a row of padding stays finite
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weights of one layer; products are (inputs, outputs)."""

    input_norm: Array
    qkv: Array
    qkv_bias: Array
    out: Array
    mlp_norm: Array
    gate_up: Array
    down: Array


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """Weights and settings of a decoder.

    Attributes:
        layers: in order.
        norm: (H,) of the last normalisation.
        head: (H, V).
        inv_freq: (D/2,) inverse frequencies of the rotary embedding.
        sections: how many of them belong to time, height and width.
        epsilon: of the normalisations.
        num_kv_heads: of the cache.
        head_dim: D.
    """

    layers: tuple[_Layer, ...]
    norm: Array
    head: Array
    inv_freq: Array
    sections: tuple[int, ...]
    epsilon: float
    num_kv_heads: int
    head_dim: int

    @property
    def num_heads(self) -> int:
        """Number of query heads."""
        return int(self.layers[0].out.shape[0]) // self.head_dim


def fuse_decoder(model: onnx.ModelProto, *, left_padding: bool = True) -> onnx.ModelProto:
    """Rebuild an exported grs/decoder with fused operators.

    Args:
        model: as `omni_export.onnx_export` writes it, float32, weights inside.
        left_padding: take padded batches; needs a kernel that adds a bias to the scores (CPU).

    Returns:
        A graph for ONNX Runtime with the same inputs and outputs. Several tokens on a cache are for batches
        of one (the operator refuses others): a prompt has no cache, and a step has one token. Its cache
        inputs may be longer than what
        they hold: where input and output are one buffer, new keys and values are written in place.

    Raises:
        BundleError: the graph is not one of ours.
    """
    weights = read_weights(model)
    build = _Builder()
    past = [v.name for v in model.graph.input if v.name.startswith("past.")]
    rotation = build.rotation(weights)
    lengths = build.lengths(left_padding=left_padding)
    skip, x = "", "inputs_embeds"
    residual = "inputs_embeds"
    for i, layer in enumerate(weights.layers):
        name = f"layers.{i}"
        y, residual = build.norm(x if i else "", residual, layer.input_norm, f"{name}.input_norm")
        mixed = build.attention(y, layer, weights, rotation, lengths, past[2 * i : 2 * i + 2], name)
        skip = build.product(mixed, layer.out, f"{name}.out")
        y, residual = build.norm(skip, residual, layer.mlp_norm, f"{name}.mlp_norm")
        x = build.mlp(y, layer, name)
    last, residual = build.last(x), build.last(residual)
    y, _ = build.norm(last, residual, weights.norm, "norm")
    build.product(y, weights.head, "head", output="logits")
    graph = helper.make_graph(
        build.nodes, "decoder", model.graph.input, model.graph.output, build.initializers
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def read_weights(model: onnx.ModelProto) -> DecoderWeights:
    """Find a decoder's weights in an exported graph.

    Raises:
        BundleError: a name, number or shape is not that of a decoder of ours.
    """
    tensors = {t.name: t for t in model.graph.initializer}

    def get(name: str) -> Array:
        if name not in tensors:
            raise BundleError(f"grs/decoder: no weight {name!r}; was it exported by omni-export?")
        return np.asarray(numpy_helper.to_array(tensors[name]))

    past = next((v for v in model.graph.input if v.name == "past.0.key"), None)
    if past is None:
        raise BundleError("grs/decoder: no input 'past.0.key'; was it exported by omni-export?")
    shape = past.type.tensor_type.shape.dim
    num_kv_heads, head_dim = shape[1].dim_value, shape[3].dim_value
    num_layers = sum(v.name.startswith("past.") for v in model.graph.input) // 2
    # Not by name: the exporter keeps one of equal tensors, such as the ones of untrained normalisations.
    nodes = model.graph.node
    products = [n for n in nodes if n.op_type == "MatMul" and n.input[1] in tensors]
    matrices = [get(n.input[1]) for n in products]
    hidden = matrices[0].shape[0] if matrices else 0
    norms = [get(n) for n in _operands(nodes, "Mul", tensors) if list(tensors[n].dims) == [hidden]]
    added = {n.input[0]: n.input[1] for n in nodes if n.op_type == "Add" and n.input[1] in tensors}
    if (len(matrices), len(norms)) != (7 * num_layers + 1, 2 * num_layers + 1) or any(
        matrices[7 * i + n].shape[0] != hidden for i in range(num_layers) for n in (0, 1, 2, 4, 5)
    ):
        raise BundleError(
            f"grs/decoder: {len(matrices)} products with constant weights and {len(norms)} "
            f"normalisations, expected 7 and 2 for each of {num_layers} layers and one more of both"
        )
    layers = []
    for i in range(num_layers):
        q, k, v, out, gate, up, down = matrices[7 * i : 7 * i + 7]
        biases = [get(added.get(n.output[0], "bias")) for n in products[7 * i : 7 * i + 3]]
        layers.append(
            _Layer(
                input_norm=norms[2 * i],
                qkv=np.concatenate([q, k, v], 1),
                qkv_bias=np.concatenate(biases),
                out=out,
                mlp_norm=norms[2 * i + 1],
                gate_up=np.concatenate([gate, up], 1),
                down=down,
            )
        )
    return DecoderWeights(
        layers=tuple(layers),
        norm=norms[-1],
        head=matrices[-1],
        inv_freq=get("language_model.rotary_emb.inv_freq"),
        sections=tuple(int(n) for n in get(_splits_of_sine(model))),
        epsilon=float(get(_first_epsilon(model))),
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
    )


def _operands(
    nodes: Sequence[onnx.NodeProto], op: str, tensors: Mapping[str, TensorProto]
) -> list[str]:
    """Names of the initialisers that nodes of one kind read, in order."""
    return [name for n in nodes if n.op_type == op for name in n.input if name in tensors]


def _splits_of_sine(model: onnx.ModelProto) -> str:
    sines = {node.output[0] for node in model.graph.node if node.op_type == "Sin"}
    for node in model.graph.node:
        if node.op_type == "Split" and node.input[0] in sines and len(node.input) > 1:
            return str(node.input[1])
    raise BundleError("grs/decoder: no three-axis rotary embedding found")


def _first_epsilon(model: onnx.ModelProto) -> str:
    means = {node.output[0] for node in model.graph.node if node.op_type == "ReduceMean"}
    for node in model.graph.node:
        if node.op_type == "Add" and node.input[0] in means:
            return str(node.input[1])
    raise BundleError("grs/decoder: no normalisation found")


class _Builder:
    """Collects nodes and initialisers of the new graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []

    def constant(self, value: NDArray[np.generic], name: str) -> str:
        """Add an initialiser; return its name."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def integers(self, values: Sequence[int] | int, name: str) -> str:
        """Add an int64 initialiser once; return its name."""
        if all(t.name != name for t in self.initializers):
            self.constant(np.array(values, np.int64), name)
        return name

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        """Add a standard operator with one output; return the output's name."""
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def product(self, x: str, weight: Array, name: str, output: str | None = None) -> str:
        """Multiply by a constant (inputs, outputs) matrix."""
        return self.add("MatMul", [x, self.constant(weight, f"{name}.weight")], output or name)

    def norm(self, x: str, residual: str, weight: Array, name: str) -> tuple[str, str]:
        """RMS-normalise `x` + `residual` (only `residual` where `x` is ""); return it and the sum."""
        scale = self.constant(weight, f"{name}.weight")
        if not x:
            # Standard operators, which ONNX Runtime fuses itself.
            epsilon = self.constant(np.array(self.epsilon, np.float32), f"{name}.epsilon")
            self.add("Mul", [residual, residual], f"{name}.squares")
            axis = self.integers([-1], "minus_one")
            self.add("ReduceMean", [f"{name}.squares", axis], f"{name}.mean", keepdims=1)
            self.add("Add", [f"{name}.mean", epsilon], f"{name}.power")
            self.add("Sqrt", [f"{name}.power"], f"{name}.root")
            self.add("Div", [residual, f"{name}.root"], f"{name}.unit")
            self.add("Mul", [f"{name}.unit", scale], name)
            return name, residual
        total = f"{name}.sum"
        self.nodes.append(
            helper.make_node(
                "SkipSimplifiedLayerNormalization",
                [x, residual, scale],
                [name, "", "", total],
                name,
                domain=MICROSOFT,
                epsilon=self.epsilon,
            )
        )
        return name, total

    epsilon = 1e-6

    def rotation(self, weights: DecoderWeights) -> tuple[str, str, str]:
        """Return a row per token, and tables of cosines and sines by row: (B, S), (B * S, D / 2)."""
        self.epsilon = weights.epsilon
        self.add("Cast", ["position_ids"], "positions", to=TensorProto.FLOAT)
        self.add("Unsqueeze", ["positions", self.integers([3], "three")], "positions.column")
        inverse = self.constant(weights.inv_freq, "inv_freq")
        self.add("Mul", ["positions.column", inverse], "angles.by_axis")
        sizes = self.integers(weights.sections, "sections")
        parts = [f"angles.{axis}" for axis in range(3)]
        self.nodes.append(
            helper.make_node("Split", ["angles.by_axis", sizes], parts, "split", axis=3)
        )
        chosen = [
            self.add("Gather", [part, self.integers(axis, f"axis.{axis}")], f"{part}.own", axis=0)
            for axis, part in enumerate(parts)
        ]
        self.add("Concat", chosen, "angles", axis=-1)
        flat = self.integers([-1, weights.head_dim // 2], "flat")
        self.add("Reshape", ["angles", flat], "angles.flat")
        self.add("Cos", ["angles.flat"], "cosines")
        self.add("Sin", ["angles.flat"], "sines")
        self.add("Shape", ["position_ids"], "tokens.shape", start=1)
        self.add("ReduceProd", ["tokens.shape"], "tokens.count", keepdims=0)
        zero, one = self.integers(0, "axis.0"), self.integers(1, "axis.1")
        self.add("Range", [zero, "tokens.count", one], "tokens.range")
        self.add("Reshape", ["tokens.range", "tokens.shape"], "tokens")
        return "tokens", "cosines", "sines"

    def lengths(self, *, left_padding: bool) -> tuple[str, str, str]:
        """Return GroupQueryAttention's last position by row, total length and bias ("": none)."""
        zero, one = self.integers([0], "zero"), self.integers([1], "one")
        self.add("Shape", ["attention_mask"], "mask.shape")
        self.add("Gather", ["mask.shape", self.integers(1, "axis.1")], "total.long", axis=0)
        self.add("Cast", ["total.long"], "total", to=TensorProto.INT32)
        if not left_padding:
            self.add("ReduceSum", ["attention_mask", one], "used", keepdims=0)
            self.add("Sub", ["used", one], "last.long")
            self.add("Cast", ["last.long"], "last", to=TensorProto.INT32)
            return "last", "total", ""
        self.add("Sub", ["total.long", one], "last.long")
        self.add("Slice", ["mask.shape", zero, one], "batch")
        self.add("Expand", ["last.long", "batch"], "last.rows")
        self.add("Cast", ["last.rows"], "last", to=TensorProto.INT32)
        self.add("Cast", ["attention_mask"], "mask.bool", to=TensorProto.BOOL)
        self.constant(np.array(0, np.float32), "visible")
        self.constant(np.array(MASKED, np.float32), "masked")
        self.add("Where", ["mask.bool", "visible", "masked"], "bias.keys")
        self.add("Unsqueeze", ["bias.keys", self.integers([1, 2], "one_two")], "bias.row")
        self.add("Shape", ["inputs_embeds"], "queries", start=1, end=2)
        self.add("Concat", ["batch", "one", "queries", "one"], "bias.shape", axis=0)
        # one row for every query: causality is the operator's own
        return "last", "total", self.add("Expand", ["bias.row", "bias.shape"], "bias")

    def attention(
        self,
        x: str,
        layer: _Layer,
        weights: DecoderWeights,
        rotation: tuple[str, str, str],
        lengths: tuple[str, str, str],
        past: Sequence[str],
        name: str,
    ) -> str:
        """Attend; return the heads side by side."""
        self.product(x, layer.qkv, f"{name}.qkv")
        bias = self.constant(layer.qkv_bias, f"{name}.qkv.bias")
        self.add("Add", [f"{name}.qkv", bias], f"{name}.qkv.sum")
        heads, kv = weights.num_heads, weights.num_kv_heads
        sizes = self.integers([n * weights.head_dim for n in (heads, kv, kv)], "qkv.sizes")
        q, k, v = (f"{name}.{part}" for part in "qkv")
        self.nodes.append(
            helper.make_node("Split", [f"{name}.qkv.sum", sizes], [q, k, v], q, axis=-1)
        )
        for part, count in ((q, heads), (k, kv)):
            self.nodes.append(
                helper.make_node(
                    "RotaryEmbedding",
                    [part, *rotation],
                    [f"{part}.rotated"],
                    f"{part}.rotated",
                    domain=MICROSOFT,
                    num_heads=count,
                    rotary_embedding_dim=0,
                )
            )
        last, total, scores_bias = lengths
        inputs = [f"{q}.rotated", f"{k}.rotated", v, *past, last, total]
        if scores_bias:
            inputs += ["", "", "", scores_bias]
        present = [p.replace("past.", "present.") for p in past]
        self.nodes.append(
            helper.make_node(
                "GroupQueryAttention",
                inputs,
                [f"{name}.mixed", *present],
                f"{name}.mixed",
                domain=MICROSOFT,
                num_heads=heads,
                kv_num_heads=kv,
                do_rotary=0,
            )
        )
        return f"{name}.mixed"

    def mlp(self, x: str, layer: _Layer, name: str) -> str:
        """Gate, multiply, project."""
        self.product(x, layer.gate_up, f"{name}.gate_up")
        width = layer.down.shape[0]
        sizes = self.integers([width, width], "gate_up.sizes")
        gate, up = f"{name}.gate", f"{name}.up"
        self.nodes.append(
            helper.make_node("Split", [f"{name}.gate_up", sizes], [gate, up], gate, axis=-1)
        )
        self.add("Sigmoid", [gate], f"{gate}.sigmoid")
        self.add("Mul", [gate, f"{gate}.sigmoid"], f"{gate}.silu")
        self.add("Mul", [f"{gate}.silu", up], f"{name}.gated")
        return self.product(f"{name}.gated", layer.down, f"{name}.down")

    def last(self, x: str) -> str:
        """Keep the last position."""
        end = self.integers([np.iinfo(np.int64).max], "end")
        names = [self.integers([-1], "minus_one"), end, self.integers([1], "one")]
        return self.add("Slice", [x, *names], f"{x}.last")
