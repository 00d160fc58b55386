"""Variants of the shipped bundle: what they are, what they cost, and who may load them."""

import dataclasses
import hashlib
import json
import logging
import shutil

import numpy as np
import onnx
import pytest
from omni_export import variants as variants_module
from omni_export.bundle_writer import validate_bundle
from omni_export.cli import main
from omni_export.clips import ArrayFrameSource
from omni_export.constants import store_exact_halves
from omni_export.onnx_export import check_operators
from omni_export.precision import expand_halves, to_float16
from omni_export.variant_quality import mask_iou
from omni_export.variants import add_variants
from onnx import TensorProto, helper, numpy_helper

from omni_sdk.bundle.bundle import Bundle, embedded, write_manifest
from omni_sdk.config import TrackingConfig
from omni_sdk.demo.clip import write_clip
from omni_sdk.demo.render import box, render
from omni_sdk.demo.scene import make_scene
from omni_sdk.dus.masks import rle_decode
from omni_sdk.dus.sam2.tracker import Sam2Tracker
from omni_sdk.engines.gate import GatedLoader
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.errors import BundleError, EngineError, ParityError
from omni_sdk.graphs.golden import golden_error, golden_inputs, golden_outputs, hashed, read_golden
from omni_sdk.loading import check_backend
from omni_sdk.pipeline import Pipeline
from omni_sdk.stages import KeyframePrompt


@pytest.fixture(scope="session")
def nano():
    return Bundle.open(embedded("nano"))


@pytest.fixture(scope="session")
def many(tmp_path_factory, nano):
    """The shipped bundle with all variants."""
    out = tmp_path_factory.mktemp("variants") / "nano-variants"
    add_variants(nano.directory, out, ["fp16", "int8", "int4"])
    return Bundle.open(out)


@pytest.fixture(scope="session")
def loader():
    return OnnxLoader("cpu", threads=1)


def _op_types(bundle, graph):
    model = onnx.load(bundle.path(bundle.graph(graph).file))
    return model, {node.op_type for node in model.graph.node}


def test_what_is_made(many, nano):
    assert validate_bundle(many.directory).manifest == many.manifest
    for name, graph in many.manifest.graphs.items():
        expected = {"fp16", "int8", "int4"} if name == "grs/decoder" else {"fp16"}
        assert set(graph.variants) == expected
        assert (graph.inputs, graph.outputs) == (
            nano.graph(name).inputs,
            nano.graph(name).outputs,
        )
    rows = {row.subject: row for row in many.manifest.parity}
    for subject in ("grs/decoder@int8", "grs/decoder@int4: tokens", "tracked clip@fp16"):
        assert rows[subject].value <= rows[subject].tolerance
    assert 0 < rows["grs/decoder@int8"].value < rows["grs/decoder@int4"].value
    sizes = {
        v: many.manifest.files[s.file].size for v, s in many.graph("grs/decoder").variants.items()
    }
    assert sizes["int4"] < sizes["int8"] < sizes["fp16"]


def test_fp16_graphs_are_typed(many):
    half = many.with_variants("fp16")
    for name in half.manifest.graphs:
        model, _ = _op_types(half, name)
        check_operators(model, name)
        onnx.checker.check_model(model)
        large = [t for t in model.graph.initializer if np.prod(t.dims) > 64]
        assert large
        kinds = {t.data_type for t in large}
        assert TensorProto.FLOAT not in kinds, name
        # no weight is kept in float16 only to be cast up where it is used
        weights = {t.name for t in large if t.data_type == TensorProto.FLOAT16}
        casts = [n for n in model.graph.node if n.op_type == "Cast" and n.input[0] in weights]
        assert not casts


def test_quantised_decoders(many):
    for variant in ("int8", "int4"):
        _, ops = _op_types(many.with_variants(variant), "grs/decoder")
        assert "MatMulNBits" in ops
        chosen = many.with_variants(variant)
        assert chosen.graph("grs/vision") == many.graph("grs/vision")
        with pytest.raises(EngineError, match=r"grs/decoder .*runs on onnx, not on tensorrt"):
            check_backend(chosen, "tensorrt", "cuda:0")
    check_backend(many.with_variants("fp16"), "tensorrt", "cuda:0")


def test_the_last_variant_wins(many):
    both = many.with_variants("fp16", "int8")
    assert both.graph("grs/decoder").file == "grs/decoder_int8.onnx"
    assert both.graph("grs/vision").file == "grs/vision_fp16.onnx"
    assert many.with_variants() == many


def test_fp16_masks_on_a_true_clip(many, loader):
    """The trained tracker's masks barely move in float16 (bar: IoU 0.98)."""
    side, scene = many.dus.image_size, make_scene(5400000, "sound")
    times = [3.0 + 0.25 * i for i in range(8)]
    frames = ArrayFrameSource(np.stack([render(scene, t, (side, side)) for t in times]))
    start, target = next(
        (t, i)
        for t in range(len(times))
        for i in range(len(scene.objects))
        if box(scene, times[t], (side, side), i) is not None
    )
    prompt = KeyframePrompt(
        start, np.array([box(scene, times[start], (side, side), target)], np.float32)
    )
    tracks = []
    for bundle in (many, many.with_variants("fp16")):
        run = Sam2Tracker.open(loader, bundle).track(frames, [prompt], TrackingConfig())
        done = sorted(run, key=lambda f: f.frame_index)
        tracks.append([rle_decode(f.masks[0].counts, (side, side)) for f in done])
    assert max(mask.mean() for mask in tracks[0]) > 0.002
    assert min(mask_iou(a, b) for a, b in zip(*tracks, strict=True)) >= 0.98


def test_int8_decoder_gives_the_same_answer(many, tmp_path):
    path = tmp_path / "clip.mp4"
    query = write_clip(make_scene(5400000, "sound"), path, size=(128, 128), fps=2.0).query
    answers = []
    for variant in ((), "int8"):
        pipeline = Pipeline.from_pretrained(many.directory, device="cpu", variant=variant)
        found = pipeline.reason(path, query)
        answers.append((found.thinking, found.answer, found.status))
    assert answers[0] == answers[1]
    assert answers[0][2] == "found"


def test_refusals(nano, many, tmp_path):
    with pytest.raises(BundleError, match="no variant 'fp8'; known"):
        add_variants(nano.directory, tmp_path / "a", ["fp8"])
    with pytest.raises(BundleError, match="no variant named"):
        add_variants(nano.directory, tmp_path / "a", [])
    (tmp_path / "b").mkdir()
    with pytest.raises(BundleError, match="exists"):
        add_variants(nano.directory, tmp_path / "b", ["int8"])
    with pytest.raises(BundleError, match=r"has no variant 'x'; it has \['fp16', 'int4', 'int8'\]"):
        many.with_variants("x")
    with pytest.raises(ValueError, match="are for bundles"):
        Pipeline.from_pretrained(nano.directory, backend="torch", variant="fp16")


def test_a_variant_out_of_tolerance_leaves_nothing(nano, tmp_path, monkeypatch):
    strict = dataclasses.replace(variants_module.PRECISIONS["int4"], tolerance=1e-6)
    monkeypatch.setitem(variants_module.PRECISIONS, "int4", strict)
    with pytest.raises(ParityError, match="grs/decoder@int4"):
        add_variants(nano.directory, tmp_path / "out", ["int4"])
    assert list(tmp_path.iterdir()) == []


def test_external_data(nano, tmp_path, monkeypatch):
    """Over protobuf's limit the weights go beside the graph; here the limit is set low."""
    monkeypatch.setattr(variants_module, "EXTERNAL_DATA_BYTES", 100_000)
    out = tmp_path / "out"
    add_variants(nano.directory, out, ["int8"])
    bundle = Bundle.open(out).with_variants("int8")
    assert bundle.graph("grs/decoder").data == ("grs/decoder_int8.onnx.data",)
    assert bundle.path("grs/decoder_int8.onnx").stat().st_size < 500_000
    OnnxLoader("cpu").load(bundle, "grs/decoder")


def test_a_variant_of_a_variant_bundle(many, tmp_path):
    """Adding to a bundle that has variants keeps those and replaces rows of the same name."""
    out = tmp_path / "again"
    manifest = add_variants(many.directory, out, ["int8"])
    assert set(manifest.graphs["grs/decoder"].variants) == {"fp16", "int8", "int4"}
    subjects = [row.subject for row in manifest.parity]
    assert len(subjects) == len(set(subjects)) == len(many.manifest.parity)


def test_expanding_undoes_exact_halves():
    weights = np.arange(256, dtype=np.float32).reshape(16, 16)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    store_exact_halves(model)
    assert [n.op_type for n in model.graph.node] == ["Cast", "MatMul"]
    expand_halves(model)
    assert [n.op_type for n in model.graph.node] == ["MatMul"]
    (tensor,) = model.graph.initializer
    assert tensor.name == "w"
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), weights)
    onnx.checker.check_model(to_float16(model))


def test_command_line(nano, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["variants", str(nano.directory), "--out", out, "--variant", "int8"]) == 0
    shown = capsys.readouterr().out
    assert "grs/decoder@int8: tokens" in shown
    assert "int8 weights, blocks of 32" in shown
    assert main(["variants", str(nano.directory), "--out", out, "--variant", "int8"]) == 1
    assert "exists" in capsys.readouterr().err


# golden inputs and the gate


def test_hashed_numbers_never_change():
    values = hashed((3, 40_000), 7)
    assert abs(float(values.mean())) < 0.01
    assert abs(float(values.std()) - 1) < 0.01
    assert abs(np.corrcoef(values)[0, 1]) < 0.02
    assert abs(np.corrcoef(hashed((40_000,), 7), hashed((40_000,), 8))[0, 1]) < 0.02
    digest = hashlib.sha256(hashed((1000,), 3).tobytes()).hexdigest()
    assert digest == "aaecfb83945ea14b48a5521ce406652a99971371e8938f107d604c8fafb9b814"


def test_golden_error_sees_everything():
    reference = {"c/y": np.arange(10, dtype=np.float32)}
    assert golden_error(reference, reference) == (0.0, "")
    shifted = {"c/y": reference["c/y"] + reference["c/y"].std()}
    assert golden_error(shifted, reference)[0] == pytest.approx(1)
    for wrong in ({}, {"c/y": np.zeros(3, np.float32)}, {"c/y": np.full(10, np.nan, np.float32)}):
        assert golden_error(wrong, reference) == (float("inf"), "c/y")


def test_a_value_that_is_not_finite_is_sampled():
    class Engine:
        def run(self, inputs):
            y = np.zeros(100_000, np.float32)
            y[99_999] = np.inf
            return {"y": y}

    found = golden_outputs(Engine().run, {"c": {}})
    assert len(found["c/y"]) <= 4096
    assert np.isnan(found["c/y"]).any()


def test_unknown_graph(nano):
    with pytest.raises(BundleError, match="no golden inputs"):
        golden_inputs(nano, "grs/other")


class _Counting:
    """A loader whose engines count their calls and may answer wrongly."""

    backend, device = "onnx", "cpu"

    def __init__(self, loader, scale=1.0):
        self.loader, self.scale, self.calls = loader, scale, 0

    def load(self, bundle, graph):
        engine, outer = self.loader.load(bundle, graph), self

        class Engine:
            def run(self, inputs):
                outer.calls += 1
                return {k: v * np.float32(outer.scale) for k, v in engine.run(inputs).items()}

        return Engine()


def test_the_gate_runs_once_per_file_and_machine(many, loader, tmp_path):
    counting = _Counting(loader)
    gate = GatedLoader(counting, directory=tmp_path / "passes")
    gate.load(many, "grs/decoder")
    assert counting.calls == 2  # prefill and step
    gate.load(many, "grs/decoder")
    assert counting.calls == 2
    gate.load(many.with_variants("int8"), "grs/decoder")
    assert counting.calls == 4
    (first, second) = (tmp_path / "passes").iterdir()
    assert {json.loads(p.read_text())["graph"] for p in (first, second)} == {"grs/decoder"}
    # another engine on the same machine is checked again
    counting.backend = "tensorrt"
    gate.load(many, "grs/decoder")
    assert counting.calls == 6


def test_the_gate_refuses_wrong_numbers(many, loader, tmp_path, caplog):
    gate = GatedLoader(_Counting(loader, 1.2), directory=tmp_path)
    with pytest.raises(ParityError, match=r"dus/image_encoder .*1\.\d+ standard deviations.*0\.01"):
        gate.load(many, "dus/image_encoder")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ParityError, match="inf standard deviations"):
        GatedLoader(_Counting(loader, np.nan), directory=tmp_path).load(many, "grs/embed")
    with caplog.at_level(logging.WARNING):
        skipping = GatedLoader(_Counting(loader, 1.2), skip=True, directory=tmp_path)
        skipping.load(many, "dus/image_encoder")
    assert "PARITY CHECK SKIPPED: dus/image_encoder" in caplog.text


def test_the_gate_without_golden_outputs_or_cache(nano, many, loader, tmp_path):
    counting = _Counting(loader)
    graphs = {name: dataclasses.replace(g, golden=None) for name, g in nano.manifest.graphs.items()}
    bare = Bundle(nano.directory, dataclasses.replace(nano.manifest, graphs=graphs))
    GatedLoader(counting, directory=tmp_path).load(bare, "grs/decoder")
    assert counting.calls == 0
    (tmp_path / "file").write_text("")
    GatedLoader(counting, directory=tmp_path / "file" / "below").load(many, "grs/embed")
    assert counting.calls == 1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04junk", b"\x93NUMPY"])
def test_malformed_golden_outputs(tmp_path, content):
    path = tmp_path / "g.npz"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="golden outputs"):
        read_golden(path)
    np.savez(path, y=np.zeros(3))
    with pytest.raises(BundleError, match="float64"):
        read_golden(path)
    np.savez(path, y=np.array([{}], object))
    with pytest.raises(BundleError):
        read_golden(path)


def test_a_pipeline_refuses_a_bundle_that_is_wrong_here(many, tmp_path, monkeypatch):
    monkeypatch.setenv("OMNI_SDK_CACHE", str(tmp_path / "cache"))
    wrong = tmp_path / "wrong"
    shutil.copytree(many.directory, wrong)
    golden = dict(np.load(wrong / "golden/grs/vision.npz"))
    np.savez(wrong / "golden/grs/vision.npz", **{k: -v for k, v in golden.items()})
    write_manifest(wrong, many.manifest)
    with pytest.raises(ParityError, match="grs/vision"):
        Pipeline.from_pretrained(wrong, device="cpu")
    Pipeline.from_pretrained(wrong, device="cpu", skip_parity=True)
    Pipeline.from_pretrained(wrong, device="cpu", variant="fp16")
