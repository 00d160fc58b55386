"""One graph in another form: typed float16, weights in 8 or 4 bits, a decoder of fused operators.

float16 graphs are typed: every tensor inside is float16, and so is a decoder's cache; only other inputs and
outputs stay float32. So TensorRT 11, which has no precision flags, reads them as they are. Quantised weights
use onnxruntime's MatMulNBits, an operator of its own, and so does a fused decoder: such files run in ONNX
Runtime only.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from omni_sdk.errors import BundleError
from onnx import TensorProto, numpy_helper

from omni_export.calibration import Calibration
from omni_export.fused_attention import fuse_attention
from omni_export.fused_decoder import fuse_decoder
from omni_export.gptq import quantise_fitted

BLOCK = 32
"""Weights that share a scale."""


@dataclass(frozen=True, slots=True)
class Precision:
    """How a variant is made, and what is asked of it.

    Attributes:
        convert: changes a model whose weights are float32; may change it in place.
        label: `GraphVariant.precision`.
        backends: engines that can run the result.
        tolerance: of the golden outputs' distance from the float32 graph's, in standard deviations.
        machine_tolerance: of the same file on another machine.
        graphs: those that have this variant; none: all.
        allowed_tokens: share of greedy tokens that may differ, on random prompts where near-ties are
            common.
        left_padding: padded batches are right.
        devices: kinds of device that have kernels for the result.
        calibrate: as `convert`, fitted to what the decoder saw on clips; None: nothing to fit.
    """

    convert: Callable[[onnx.ModelProto], onnx.ModelProto]
    label: str
    backends: tuple[str, ...]
    tolerance: float
    machine_tolerance: float
    graphs: tuple[str, ...] = ()
    allowed_tokens: float = 0.0
    left_padding: bool = True
    devices: tuple[str, ...] = ("cpu", "cuda")
    calibrate: Callable[[onnx.ModelProto, Calibration], onnx.ModelProto] | None = None

    def has(self, graph: str) -> bool:
        """Whether a graph has this variant."""
        return not self.graphs or graph in self.graphs


def expand_halves(model: onnx.ModelProto) -> None:
    """Undo `store_exact_halves`: float16 initialisers behind a Cast to float32 become float32 ones."""
    graph = model.graph
    weights = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT16}
    if not weights:
        return  # what follows copies the model
    nodes, expanded = [], set()
    for node in graph.node:
        to = next((a.i for a in node.attribute if a.name == "to"), None)
        if node.op_type == "Cast" and to == TensorProto.FLOAT and node.input[0] in weights:
            array = numpy_helper.to_array(weights[node.input[0]]).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
            expanded.add(node.input[0])
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    initializers = [t for t in graph.initializer if t.name not in expanded or t.name in used]
    # protobuf containers take copies, and deleting from them frees what they held
    copies = [_copy(v) for v in nodes], [_copy(v) for v in initializers]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(copies[0])
    graph.initializer.extend(copies[1])


def weight_bytes(model: onnx.ModelProto) -> int:
    """Return the memory that a model's initialisers take; their values need not be loaded."""
    return sum(
        math.prod(t.dims) * onnx.helper.tensor_dtype_to_np_dtype(t.data_type).itemsize
        for t in model.graph.initializer
    )


def _copy(value: onnx.NodeProto | TensorProto) -> onnx.NodeProto | TensorProto:
    copy = type(value)()
    copy.CopyFrom(value)
    return copy


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a typed float16 graph with float32 inputs and outputs, but for a decoder's cache.

    The cache is float16 outside too: it comes back on every step, and casting it there and back would cost
    more than the step's arithmetic.

    Raises:
        BundleError: the converter refuses the graph.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    kept = [v.name for v in (*model.graph.input, *model.graph.output) if not _is_cache(v.name)]
    # ByteSize() fails beyond the limit; the nodes, in front of such weights, take a few MB
    large = weight_bytes(model) >= onnx.checker.MAXIMUM_PROTOBUF - (64 << 20)
    try:
        # Range has no float16 form in ONNX; shapes cannot be inferred in a model over protobuf's limit
        converted: onnx.ModelProto = convert_float_to_float16(
            model, keep_io_types=kept, op_block_list=["Range"], disable_shape_infer=large
        )
    except (ValueError, TypeError, RuntimeError) as e:
        raise BundleError(f"cannot convert to float16: {e}") from e
    sort_nodes(converted)
    return converted


def cache_dtype(model: onnx.ModelProto) -> str | None:
    """Return "float16" for a decoder with such a cache, else None (float32, or no cache)."""
    kinds = {v.type.tensor_type.elem_type for v in model.graph.input if _is_cache(v.name)}
    return "float16" if kinds == {TensorProto.FLOAT16} else None


def _is_cache(name: str) -> bool:
    return name.startswith(("past.", "present."))


def sort_nodes(model: onnx.ModelProto) -> None:
    """Bring nodes into the order that ONNX demands, each after what it reads; equal ones keep theirs.

    onnxruntime's float16 converter appends its casts at the end, which onnxruntime forgives.

    Raises:
        BundleError: the graph has a cycle.
    """
    graph = model.graph
    writer = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    readers: dict[int, list[int]] = {}
    waiting = []
    for i, node in enumerate(graph.node):
        sources = {writer[name] for name in _read_by(node) if name in writer}
        waiting.append(len(sources))
        for source in sources:
            readers.setdefault(source, []).append(i)
    ready = [i for i, count in enumerate(waiting) if count == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for reader in readers.get(i, ()):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) != len(graph.node):
        raise BundleError("the graph has a cycle")
    nodes = [_copy(graph.node[i]) for i in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, those inside its sub-graphs included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _read_by(inner)


def _quantise(model: onnx.ModelProto, bits: int) -> onnx.ModelProto:
    """Round constant weights of products to the nearest number of so many bits."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with _quiet():
        # Level 0 keeps float32 activations and makes decoding 2.2x slower than the float32 graph (nano,
        # int8, one core, past 256); level 4 makes it 1.2x faster, at 0.07 against 0.05 deviations.
        quantizer = MatMulNBitsQuantizer(
            model, bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=4
        )
        quantizer.process()
    return _quantised(quantizer.model.model)


def _fit(model: onnx.ModelProto, data: Calibration) -> onnx.ModelProto:
    return _quantised(quantise_fitted(model, list(data.sequences()), BLOCK))


def _quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    if not any(node.op_type == "MatMulNBits" for node in model.graph.node):
        raise BundleError("no matrix product with constant weights was found to quantise")
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's progress to itself."""
    chatter = logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer")
    level = chatter.level
    chatter.setLevel(logging.WARNING)
    try:
        yield
    finally:
        chatter.setLevel(level)


def _fused_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    return to_float16(fuse_decoder(model, left_padding=False))


DECODER = ("grs/decoder",)
ORT = ("onnx",)
# onnxruntime's docs/OperatorKernels.md: CUDA's GroupQueryAttention takes float16 and bfloat16 only. What its
# MultiHeadAttention does with the tracker's shapes was not run.
CPU_ONLY = ("cpu",)
_BLOCKS = f"weights, blocks of {BLOCK}"
FOUR_BIT_TOLERANCE = 3.5
"""Of garbage, not of quality: nano's logits of another input are 5.9 deviations away, shuffled ones 3.6
at least in 2,000 draws (median 5). Golden inputs are random: on them nano in 4 bits is 1.9 away, fitted
2.5, and then 1 of 274 tokens differs on the clips that it was fitted to."""

PRECISIONS = {
    "fp16": Precision(to_float16, "float16", ("onnx", "tensorrt"), 0.05, 0.05, allowed_tokens=0.05),
    # The CPU's kernels quantise activations too (accuracy level 4), others need not: machines differ
    # by about as much as the variant differs from the float32 graph.
    "int8": Precision(lambda m: _quantise(m, 8), f"int8 {_BLOCKS}", ORT, 0.3, 0.3, DECODER, 0.15),
    # To be judged by a task: any share of tokens passes here and is only written down.
    "int4": Precision(
        lambda m: _quantise(m, 4),
        f"int4 {_BLOCKS}",
        ORT,
        FOUR_BIT_TOLERANCE,
        0.3,
        DECODER,
        1.0,
        calibrate=_fit,
    ),
    "fused": Precision(
        fuse_decoder, "float32, fused operators", ORT, 1e-3, 1e-2, DECODER, devices=CPU_ONLY
    ),
    "fused-int8": Precision(
        lambda m: _quantise(fuse_decoder(m), 8),
        f"int8 {_BLOCKS}, fused operators",
        ORT,
        0.3,
        0.3,
        DECODER,
        0.15,
        devices=CPU_ONLY,
    ),
    "fused-int4": Precision(
        lambda m: _quantise(fuse_decoder(m), 4),
        f"int4 {_BLOCKS}, fused operators",
        ORT,
        FOUR_BIT_TOLERANCE,
        0.3,
        DECODER,
        1.0,
        devices=CPU_ONLY,
        calibrate=lambda m, data: _fit(fuse_decoder(m), data),
    ),
    "fused-attention": Precision(
        fuse_attention,
        "float32, fused operators",
        ORT,
        1e-3,
        1e-2,
        ("dus/memory_attention", "dus/image_encoder"),
        devices=CPU_ONLY,
    ),
    # For CUDA, whose kernel of grouped attention knows float16 only and no bias on the scores.
    "fused-fp16": Precision(
        _fused_float16,
        "float16, fused operators",
        ORT,
        0.05,
        0.05,
        DECODER,
        0.05,
        left_padding=False,
    ),
}
