from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from omni_export import sam2_parity
from omni_export.constants import share_constants, store_exact_halves
from omni_export.sam2_graphs import export_tracker, write_graphs
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from transformers import Sam2VideoModel

from omni_sdk.bundle.bundle import Bundle
from omni_sdk.dus.sam2.graphs import GRAPHS, Sam2Graphs
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.errors import BundleError, ParityError
from omni_sdk.hf.sam2_checkpoint import dus_spec, load_config, load_model
from omni_sdk.hf.sam2_modules import query_blocks
from omni_sdk.hf.tracker import HfTracker, no_memory_embedding, torch_engines

RNG = np.random.default_rng(0)


def test_parity_rows_are_in_the_manifest(bundle: Bundle) -> None:
    rows = {row.subject: row for row in bundle.manifest.parity}
    assert {name.split(" ")[0] for name in rows} >= set(GRAPHS)
    assert rows["tracked clip"].value <= 0.01  # 1 - least mask IoU
    # float32 in another order; measured 1e-6
    assert all(
        r.value < 1e-4 for n, r in rows.items() if n.startswith("dus/m") and "encoder" not in n
    )


def test_graphs_use_standard_operators_and_no_large_constant_twice(bundle: Bundle) -> None:
    for name in GRAPHS:
        model = onnx.load(bundle.path(bundle.graph(name).file))
        assert {n.domain for n in model.graph.node} <= {"", "ai.onnx"}
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
        large = [i for i in model.graph.initializer if len(i.raw_data) > 1024]
        assert len({bytes(i.raw_data) for i in large}) == len(large)
        assert not [n for n in model.graph.node if n.op_type == "Constant" and n.ByteSize() > 1024]
        ours = [t.name for t in (*bundle.graph(name).inputs, *bundle.graph(name).outputs)]
        assert ours == [v.name for v in (*model.graph.input, *model.graph.output)]


@pytest.mark.parametrize(("n", "t", "p", "k"), [(1, 1, 1, 1), (3, 7, 20, 2), (2, 11, 16, 5)])
def test_sizes_are_dynamic(bundle: Bundle, model: Sam2VideoModel, n, t, p, k) -> None:
    """Against the same modules in torch: the tracer must have baked no size in."""
    spec = dus_spec(model, "nowhere")
    ours = Sam2Graphs.open(OnnxLoader("cpu", threads=1), bundle)
    reference = Sam2Graphs(torch_engines(model, spec), spec, no_memory_embedding(model))
    image = RNG.integers(0, 255, (128, 128, 3), np.uint8)
    memories = RNG.standard_normal((n, t, 64, 64), np.float32)
    slots = RNG.integers(0, 7, t)
    pointers = RNG.standard_normal((n, p, 128), np.float32)
    distances = RNG.random(p).astype(np.float32)
    points = (RNG.random((n, k, 2)) * 128).astype(np.float32)
    labels = RNG.integers(0, 2, (n, k))
    for graphs in (ours, reference):
        features = graphs.encode(image)
        attended = graphs.attend(features, memories, slots, pointers, distances)
        decoded = graphs.decode(features, attended, points, labels)
        memory = graphs.memorise(
            features, decoded.logits, decoded.scores, np.arange(n).astype(bool)
        )
        if graphs is ours:
            expected = (attended, decoded.logits, decoded.pointers, decoded.scores)
            memory_expected = memory
        else:
            for a, b in zip(
                expected,
                (attended, decoded.logits, decoded.pointers, decoded.scores),
                strict=True,
            ):
                np.testing.assert_allclose(a, b, atol=2e-4)
            np.testing.assert_allclose(memory_expected, memory, atol=0.04)  # bfloat16


def test_exact_halves_change_no_number(checkpoint: Path, tmp_path: Path) -> None:
    """A checkpoint saved in float16 gives files of half the size and the same outputs."""
    model = Sam2VideoModel.from_pretrained(checkpoint, dtype=torch.float32)
    for weight in model.parameters():
        weight.data = weight.data.half().float()
    spec = dus_spec(model, tmp_path)
    pixels = {"image": RNG.standard_normal((1, 3, 128, 128), np.float32)}
    outputs, sizes = [], []
    for halves in (False, True):
        graphs = write_graphs(model, spec, tmp_path / str(halves), exact_halves=halves)
        files = [tmp_path / str(halves) / graph.file for graph in graphs.values()]
        sizes.append(sum(f.stat().st_size for f in files))
        outputs.append(ort.InferenceSession(files[0]).run(None, pixels))
    for plain, small in zip(*outputs, strict=True):
        np.testing.assert_array_equal(plain, small)
    assert sizes[1] < 0.6 * sizes[0], sizes


def test_export_refuses_a_graph_that_differs(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Sam2Graphs.memorise
    monkeypatch.setattr(Sam2Graphs, "memorise", lambda self, *a: 1.02 * encode(self, *a))
    with pytest.raises(ParityError, match=r"dus/memory_encoder differs .* allowed"):
        export_tracker(checkpoint, tmp_path, loader=OnnxLoader("cpu", threads=1))


def test_hub_layout_named_sam2(checkpoint: Path, tmp_path: Path) -> None:
    """model_type "sam2" with the video model's weights, and keys that choose code: left out."""
    shutil.copytree(checkpoint, tmp_path / "sam2")
    path = tmp_path / "sam2" / "config.json"
    config = json.loads(path.read_text()) | {
        "model_type": "sam2",
        "auto_map": {"AutoModel": "evil.Model"},
        "attn_implementation": "flash",
        "_attn_implementation": "flash",
    }
    path.write_text(json.dumps(config))
    image = RNG.integers(0, 255, (128, 128, 3), np.uint8)
    a, b = (
        HfTracker.from_checkpoint(d)._graphs.encode(image) for d in (checkpoint, tmp_path / "sam2")
    )
    np.testing.assert_array_equal(a.pix_feat, b.pix_feat)


def test_float16_checkpoint_is_computed_in_float32(checkpoint: Path, tmp_path: Path) -> None:
    model = Sam2VideoModel.from_pretrained(checkpoint, dtype=torch.float32)
    model.to(torch.float16).save_pretrained(tmp_path)
    assert {p.dtype for p in load_model(tmp_path).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "model_type 'llama', expected one of"),
        ({"multimask_max_pt_num": 3}, "multimask_max_pt_num is 3, expected 1"),
        ({"num_maskmem": 1}, "out of range"),
        ({"vision_config": 3}, "not a SAM 2 video configuration"),
    ],
)
def test_refuses_configs(
    checkpoint: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    config = json.loads((checkpoint / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match=message):
        load_config(tmp_path)


def test_refuses_directories(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"config\.json: cannot be read"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        load_model(tmp_path)
    shutil.copy(checkpoint / "config.json", tmp_path / "config.json")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BundleError, match=r"no \.safetensors file"):
        load_model(tmp_path)


def test_refuses_missing_weights(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copy(checkpoint / "config.json", tmp_path)
    weights = load_file(checkpoint / "model.safetensors")
    image_only = {k: v for k, v in weights.items() if not k.startswith("memory_")}
    save_file(image_only, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BundleError, match="weights of the video model are missing"):
        load_model(tmp_path)


def test_shared_constants_and_halves_keep_a_graph_s_numbers() -> None:
    weight = np.arange(128, dtype=np.float32) / 4
    exact, inexact = numpy_helper.from_array(weight), numpy_helper.from_array(weight + 1e-5)
    nodes = [
        helper.make_node("Constant", [], [f"c{i}"], value=tensor)
        for i, tensor in enumerate((exact, exact, inexact))
    ]
    nodes += [
        helper.make_node("Add", ["x", "c0"], ["y"]),
        helper.make_node("Mul", ["y", "c1"], ["z"]),
        helper.make_node("Sub", ["z", "c2"], ["out"]),
    ]
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [128]) for n in ("x", "out")]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    x = {"x": np.linspace(-3, 3, 128, dtype=np.float32)}
    (before,) = ReferenceEvaluator(model).run(None, x)
    share_constants(model)
    assert len(model.graph.initializer) == 2
    store_exact_halves(model)
    kinds = sorted(i.data_type for i in model.graph.initializer)
    assert kinds == [TensorProto.FLOAT, TensorProto.FLOAT16]
    onnx.checker.check_model(model)
    (after,) = ReferenceEvaluator(model).run(None, x)
    np.testing.assert_array_equal(before, after)


def test_query_blocks_divide_the_tokens() -> None:
    assert query_blocks(64) == query_blocks(1024) == 1
    assert query_blocks(4096) == 16
    assert 2304 % query_blocks(2304) == 0


def test_blocks_of_queries_are_exact(
    model: Sam2VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omni_sdk.hf import sam2_modules

    args = (
        torch.randn(1, 128, 8, 8),
        torch.randn(2, 3, 64, 64),
        torch.tensor([6, 1, 0]),
        torch.randn(2, 4, 128),
        torch.rand(4),
    )
    whole = sam2_modules.MemoryAttention(model).eval()
    monkeypatch.setattr(sam2_modules, "SCORE_BLOCK_BYTES", 7 * 4 * 64 * 64 // 4)
    blocked = sam2_modules.MemoryAttention(model).eval()
    assert (whole.blocks, blocked.blocks) == (1, 4)
    with torch.inference_mode():
        torch.testing.assert_close(whole(*args), blocked(*args))


def test_bad_no_memory_embedding(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.directory, copy)
    broken = Bundle(copy, bundle.manifest)
    np.save(copy / "dus/no_memory_embedding.npy", np.zeros(5, np.float32))
    with pytest.raises(BundleError, match=r"expected \(128,\) finite numbers"):
        Sam2Graphs.open(OnnxLoader("cpu", threads=1), broken)
    (copy / "dus/no_memory_embedding.npy").write_bytes(b"\x80\x04not an array")
    with pytest.raises(BundleError, match=r"not a \.npy array"):
        Sam2Graphs.open(OnnxLoader("cpu", threads=1), broken)


def test_nano_checkpoint(shared: Path, tmp_path: Path) -> None:
    """The trained nano model under 5 MB, its masks those of transformers."""
    spec, _, rows = export_tracker(
        shared / "nano" / "sam2",
        tmp_path,
        loader=OnnxLoader("cpu", threads=1),
        exact_halves=True,
    )
    assert spec.image_size == 128
    assert {r.subject for r in rows} >= {"tracked clip"}
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) < 5_000_000
    assert sam2_parity.MIN_IOU == 0.99
