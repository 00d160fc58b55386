"""Attention over the whole image in one operator gives the standard graph's numbers."""

import numpy as np
import onnx
import pytest
from omni_export.fused_attention import NothingToFuseError, fuse_attention
from omni_export.variants import add_variants
from onnx import TensorProto, helper

from omni_sdk.bundle.bundle import Bundle, embedded
from omni_sdk.graphs.golden import golden_inputs


@pytest.fixture(scope="module")
def nano():
    return Bundle.open(embedded("nano"))


def _session(model):
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options)


def _model(nano, graph):
    return onnx.load(nano.path(nano.graph(graph).file))


def _same(plain, fused, call, tolerance=2e-5):
    found = [_session(model).run(None, call) for model in (plain, fused)]
    for a, b in zip(*found, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, atol=tolerance * a.std())


def test_memory_attention(nano):
    plain = _model(nano, "dus/memory_attention")
    fused = fuse_attention(_model(nano, "dus/memory_attention"))
    onnx.checker.check_model(fused)
    before = sum(node.op_type == "Softmax" for node in plain.graph.node)
    assert before >= 2
    assert sum(node.op_type == "MultiHeadAttention" for node in fused.graph.node) == before
    assert not any(node.op_type == "Softmax" for node in fused.graph.node)
    call = golden_inputs(nano, "dus/memory_attention")["call"]
    _same(plain, fused, call)
    rng = np.random.default_rng(0)
    tokens, width = call["mem_feat"].shape[2:]
    for objects, memories in ((3, 7), (2, 1)):  # one frame's queries meet keys of several objects
        several = {
            "mem_feat": rng.standard_normal((objects, memories, tokens, width)).astype("f4"),
            "mem_tpos": np.arange(memories) % 7,
            "obj_ptr": np.repeat(call["obj_ptr"], objects, 0),
        }
        _same(plain, fused, call | several)


def test_heads_over_a_whole_image():
    """As blocks of the image encoder without windows are written."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [4], [1, 6, 2, 4])
    nodes = []
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes.append(helper.make_node("Reshape", [name, "shape"], [f"{name}4"]))
        nodes.append(helper.make_node("Transpose", [f"{name}4"], [f"{name}t"], perm=order))
    nodes += [
        helper.make_node("MatMul", ["qt", "kt"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "vt"], ["o"]),
        helper.make_node("Transpose", ["o"], ["y"], perm=[0, 2, 1, 3]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2, 3, 8]) for n in "qkv"]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6, 2, 4])
    graph = helper.make_graph(nodes, "g", values, [output], [shape])
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    fused = onnx.ModelProto()
    fused.CopyFrom(plain)
    fuse_attention(fused)
    assert not any(node.op_type == "Softmax" for node in fused.graph.node)
    rng = np.random.default_rng(0)
    call = {n: rng.standard_normal((1, 2, 3, 8)).astype("f4") for n in "qkv"}
    _same(plain, fused, call)


def test_the_variant(nano, tmp_path):
    """Graphs without attention over a whole image are left as they are; masks of a clip are compared."""
    with pytest.raises(NothingToFuseError):
        fuse_attention(_model(nano, "dus/memory_encoder"))
    manifest = add_variants(nano.directory, tmp_path / "out", ["fused-attention"])
    made = {name for name, graph in manifest.graphs.items() if graph.variants}
    assert made == {"dus/image_encoder", "dus/memory_attention"}
    rows = {row.subject: row for row in manifest.parity}
    assert rows["tracked clip@fused-attention"].value <= 0.01
    assert rows["dus/memory_attention@fused-attention"].value <= 1e-4
    variant = manifest.graphs["dus/memory_attention"].variants["fused-attention"]
    assert (variant.backends, variant.devices) == (("onnx",), ("cpu",))


def test_query_blocks_become_one(nano):
    """As memory attention is written at 1024 px."""
    sizes = [("x", ["n", 8, 4]), ("k", ["n", "t", 4]), ("v", ["n", "t", 2])]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in sizes]
    nodes = [helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1])]
    init, rows = [helper.make_tensor("one", TensorProto.INT64, [1], [1])], []
    for i in range(4):
        init += [
            helper.make_tensor(f"a{i}", TensorProto.INT64, [1], [2 * i]),
            helper.make_tensor(f"b{i}", TensorProto.INT64, [1], [2 * i + 2]),
        ]
        nodes += [
            helper.make_node("Slice", ["x", f"a{i}", f"b{i}", "one"], [f"q{i}"]),
            helper.make_node("MatMul", [f"q{i}", "kt"], [f"s{i}"]),
            helper.make_node("Softmax", [f"s{i}"], [f"p{i}"], axis=-1),
            helper.make_node("MatMul", [f"p{i}", "v"], [f"o{i}"]),
        ]
        rows.append(f"o{i}")
    nodes.append(helper.make_node("Concat", rows, ["y"], axis=1))
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8, 2])

    def model():
        graph = helper.make_graph(nodes, "g", values, [output], init)
        opsets = [helper.make_opsetid("", 20)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    fused = fuse_attention(model())
    assert [n.op_type for n in fused.graph.node][-1:] == ["MultiHeadAttention"]
    assert len(fused.graph.node) == 4  # Shape, Concat, Expand, attention
    rng = np.random.default_rng(0)
    call = {
        n: rng.standard_normal((2, t, s[2])).astype("f4")
        for (n, s), t in zip(sizes, (8, 5, 5), strict=True)
    }
    (a,), (b,) = _session(model()).run(None, call), _session(fused).run(None, call)
    np.testing.assert_allclose(b, a, atol=1e-6)
    # rows out of order are somebody else's graph
    nodes[-1] = helper.make_node("Concat", rows[::-1], ["y"], axis=1)
    with pytest.raises(NothingToFuseError, match="no attention over a whole image"):
        fuse_attention(model())
