"""The exported bundle: its table, its files, its parity report; and what export refuses."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import omni_export
import onnx
import pytest
from omni_export import cli, thinker_export
from omni_export.bundle_writer import ExportOptions, export_bundle, validate_bundle
from omni_export.constants import store_exact_halves
from omni_export.draft import check_parity
from omni_export.parity import thinker_parity
from onnx import TensorProto, helper, numpy_helper

from omni_sdk.bundle.bundle import Bundle, write_manifest
from omni_sdk.bundle.manifest import ParityRow
from omni_sdk.engines.gate import GatedLoader
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.errors import BundleError, ParityError
from omni_sdk.hf.checkpoint import load_thinker, open_thinker, read_spec

# ONNX operators that TensorRT's parser also reads (onnx-tensorrt, docs/operators.md).
STANDARD = {
    "Add",
    "And",
    "Cast",
    "Concat",
    "Constant",
    "Conv",
    "Cos",
    "Div",
    "Equal",
    "Expand",
    "Gather",
    "GatherND",
    "Gelu",
    "Gemm",
    "Identity",
    "LayerNormalization",
    "Less",
    "LessOrEqual",
    "MatMul",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pad",
    "Pow",
    "Range",
    "Reciprocal",
    "ReduceMean",
    "Reshape",
    "Shape",
    "Sigmoid",
    "Sin",
    "Slice",
    "Softmax",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tanh",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
}


def _models(directory):
    return {p.stem: onnx.load(p) for p in sorted((directory / "grs").glob("*.onnx"))}


def test_table_of_graphs(bundle):
    def table(tensors):
        return {t.name: (t.dtype, t.axes) for t in tensors}

    graphs = bundle.manifest.graphs
    assert set(graphs) == {
        *("grs/vision", "grs/audio", "grs/embed", "grs/decoder"),
        *("dus/image_encoder", "dus/mask_decoder", "dus/memory_attention", "dus/memory_encoder"),
    }
    assert table(graphs["grs/vision"].inputs) == {
        "pixel_values": ("float32", ("patches", 1176)),
        "position_ids": ("int64", ("patches", 2)),
        "win_mask": ("bool", ("windows", 64)),
        "full_mask": ("bool", ("frames", "frame_rows")),
        "gather": ("int64", ("rows",)),
        "out_gather": ("int64", ("tokens",)),
    }
    assert table(graphs["grs/audio"].inputs) == {
        "mel": ("float32", ("chunks", 128, 200)),
        "lengths": ("int64", ("chunks",)),
    }
    assert table(graphs["grs/audio"].outputs) == {"embeds": ("float32", ("chunks", 50, 64))}
    assert table(graphs["grs/embed"].outputs) == {"embeds": ("float32", ("batch", "length", 64))}
    decoder = graphs["grs/decoder"]
    cache = [f"{i}.{part}" for i in (0, 1) for part in ("key", "value")]
    assert table(decoder.inputs) == {
        "inputs_embeds": ("float32", ("batch", "length", 64)),
        "attention_mask": ("int64", ("batch", "total")),
        "position_ids": ("int64", (3, "batch", "length")),
    } | {f"past.{name}": ("float32", ("batch", 2, "past", 16)) for name in cache}
    assert table(decoder.outputs) == {"logits": ("float32", ("batch", 1, 300))} | {
        f"present.{name}": ("float32", ("batch", 2, "total", 16)) for name in cache
    }


def test_files_agree_with_the_table(bundle):
    for name, model in _models(bundle.directory).items():
        onnx.checker.check_model(model, full_check=True)
        spec = bundle.graph(f"grs/{name}")
        for values, tensors in (
            (model.graph.input, spec.inputs),
            (model.graph.output, spec.outputs),
        ):
            found = [
                tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim)
                for v in values
            ]
            assert found == [t.axes for t in tensors]
            assert [v.name for v in values] == [t.name for t in tensors]


def test_only_standard_operators(bundle):
    for model in _models(bundle.directory).values():
        assert {n.op_type for n in model.graph.node} <= STANDARD
        assert {n.domain for n in model.graph.node} <= {"", "ai.onnx"}
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
        assert not model.functions


def test_nothing_of_the_exporting_machine_is_in_the_files(bundle):
    traces = [str(Path(omni_export.__file__).parent).encode(), b"site-packages", b'File \\"']
    for path in bundle.directory.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [t for t in traces if t in content], path


def test_manifest(exported, bundle, full_checkpoint):
    manifest = exported.manifest
    assert bundle.manifest == manifest
    assert (manifest.name, manifest.license) == ("tiny", "apache-2.0 AND unknown")
    assert manifest.sources["grs"].checkpoint == "qwen-omni-tiny"
    assert manifest.grs == read_spec(full_checkpoint)
    assert manifest.sources["dus"].checkpoint == "sam2.1-tiny"
    assert manifest.dus is not None
    assert manifest.dus.image_size == 128
    rows = {row.subject: row for row in manifest.parity}
    assert {"grs/vision", "grs/audio", "grs/embed", "grs/decoder", "grs: left-padded batch"} <= set(
        rows
    )
    assert {"dus/memory_attention", "tracked clip"} <= set(rows)
    assert all(row.value <= row.tolerance for row in manifest.parity)
    assert all(rows[f"grs/{g}"].value < 5e-5 for g in ("vision", "audio", "embed", "decoder"))
    assert exported.progress[0].startswith("reading")
    assert not [p for p in exported.directory.parent.iterdir() if p.name.startswith(".")]


def test_every_exported_graph_has_golden_outputs(exported, tmp_path):
    """What the gate compares with on the target: without them it would let everything pass."""
    bundle = Bundle.open(exported.directory)
    assert {n: g.golden for n, g in bundle.manifest.graphs.items()} == {
        n: f"golden/{n}.npz" for n in bundle.manifest.graphs
    }
    wrong = _tamper(exported.directory, tmp_path / "wrong", "vision", lambda x: 1.5 * x)
    gate = GatedLoader(OnnxLoader("cpu", threads=1), directory=tmp_path / "passes")
    for graph in bundle.manifest.graphs:
        gate.load(bundle, graph)
    with pytest.raises(ParityError, match="grs/vision"):
        gate.load(wrong, "grs/vision")


def _tamper(source, target, graph, change):
    """Copy a bundle with one graph's weights changed, hashes made right again."""
    shutil.copytree(source, target)
    path = target / "grs" / f"{graph}.onnx"
    model = onnx.load(path)
    largest = max(model.graph.initializer, key=lambda t: np.prod(t.dims))
    largest.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(largest)), largest.name))
    onnx.save(model, path)
    manifest = Bundle.open(source).manifest
    write_manifest(target, dataclasses.replace(manifest, files={}))
    return Bundle.open(target)


@pytest.mark.parametrize("graph", ["vision", "audio", "embed", "decoder"])
def test_parity_notices_a_graph_that_is_slightly_off(
    graph, exported, full_checkpoint, loader, tmp_path
):
    def change(weights):
        weights = weights.copy()
        weights.flat[: weights.size // 2] *= 1.02
        return weights

    tampered = _tamper(exported.directory, tmp_path / "b", graph, change)
    rows = thinker_parity(load_thinker(full_checkpoint).model, tampered, loader)
    off = {row.subject for row in rows if row.value > row.tolerance}
    assert f"grs/{graph}" in off
    with pytest.raises(ParityError, match=r"differs from transformers.*nothing was written"):
        check_parity(rows)


def test_values_that_are_not_numbers_fail_parity():
    with pytest.raises(ParityError):
        check_parity([ParityRow("g", "r", "m", float("nan"), 1.0)])


def test_export_without_parity_leaves_nothing(exported, full_checkpoint, tmp_path, monkeypatch):
    """The whole export, with ready graphs in place of tracing, one of them broken."""
    broken = _tamper(exported.directory, tmp_path / "broken", "decoder", lambda w: w * 0)

    def copy_graph(plan, directory, *, compact):
        spec = broken.graph(plan.name)
        (directory / spec.file).parent.mkdir(exist_ok=True)
        shutil.copyfile(broken.directory / spec.file, directory / spec.file)
        return spec

    monkeypatch.setattr(thinker_export, "export_graph", copy_graph)
    out = tmp_path / "parent" / "out"
    with pytest.raises(ParityError, match="decoder"):
        export_bundle(out, ExportOptions(grs=str(full_checkpoint)))
    assert list(out.parent.iterdir()) == []
    # An existing bundle survives a failed replacement.
    kept = tmp_path / "kept"
    shutil.copytree(exported.directory, kept)
    with pytest.raises(ParityError):
        export_bundle(kept, ExportOptions(grs=str(full_checkpoint), force=True))
    assert Bundle.open(kept).manifest == exported.manifest


def test_large_thinkers_are_exported_in_parts(exported, full_checkpoint, tmp_path, monkeypatch):
    """Never more than one part's weights at a time; graphs are compared, whole completions are not."""
    held = []

    def copy_graph(plan, directory, *, compact):
        parts = checkpoint.model.model
        held.append(
            [
                not next(part.parameters()).is_meta
                for part in (parts.visual, parts.audio_tower, parts.language_model)
            ]
        )
        spec = exported.manifest.graphs[plan.name]
        (directory / spec.file).parent.mkdir(exist_ok=True)
        shutil.copyfile(exported.directory / spec.file, directory / spec.file)
        return spec

    monkeypatch.setattr(thinker_export, "export_graph", copy_graph)
    monkeypatch.setattr(thinker_export, "WHOLE_BYTES", 0)
    checkpoint = open_thinker(full_checkpoint)
    shutil.copyfile(checkpoint.tokenizer, tmp_path / "tokenizer.json")
    draft = dataclasses.replace(exported.manifest, files={}, graphs={}, parity=(), grs=None)
    manifest = thinker_export.export_thinker(
        checkpoint, draft, tmp_path, OnnxLoader("cpu", threads=1), compact=False
    )
    names = ["grs/vision", "grs/audio", "grs/embed", "grs/decoder"]
    assert [row.subject for row in manifest.parity] == names
    check_parity(manifest.parity)
    assert held == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
        [False, False, True],
    ]
    assert all(p.is_meta for p in checkpoint.model.parameters())


def test_existing_directories_are_safe(exported, full_checkpoint, tmp_path, monkeypatch):
    options = ExportOptions(grs=str(full_checkpoint))
    with pytest.raises(BundleError, match=r"exists.*--force"):
        export_bundle(exported.directory, options)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "me.jpg").write_bytes(b"x")
    with pytest.raises(BundleError, match="not a bundle; it is left alone"):
        export_bundle(photos, dataclasses.replace(options, force=True))
    assert (photos / "me.jpg").exists()

    def copy_graph(plan, directory, *, compact):
        spec = exported.manifest.graphs[plan.name]
        (directory / spec.file).parent.mkdir(exist_ok=True)
        shutil.copyfile(exported.directory / spec.file, directory / spec.file)
        return spec

    monkeypatch.setattr(thinker_export, "export_graph", copy_graph)
    old = shutil.copytree(exported.directory, tmp_path / "old")
    (old / "stale.txt").write_text("x")
    licensed = dataclasses.replace(options, force=True, name="fresh", licenses={"grs": "mine"})
    manifest = export_bundle(old, licensed)
    assert Bundle.open(old).manifest == manifest
    assert (manifest.name, manifest.license) == ("fresh", "mine")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old", "photos"]


def test_options():
    with pytest.raises(ValueError, match="nothing to export"):
        ExportOptions()
    with pytest.raises(BundleError, match="no bundle name"):
        export_bundle(Path("x"), ExportOptions(grs="y", name="../up"))


def test_validate(exported, tmp_path):
    assert validate_bundle(exported.directory).manifest == exported.manifest
    copy = shutil.copytree(exported.directory, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["parity"][0]["value"] = 1.0
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ParityError, match="grs/vision"):
        validate_bundle(copy)
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError):
        validate_bundle(copy)


def test_command_line(exported, tmp_path, capsys):
    assert cli.main(["validate", str(exported.directory)]) == 0
    assert "sound; grs and dus, 8 graphs" in capsys.readouterr().out
    assert cli.main(["validate", str(tmp_path)]) == 1
    assert cli.main(["onnx", "--grs", str(tmp_path), "--out", str(tmp_path / "b")]) == 1
    captured = capsys.readouterr()
    problems = [line for line in captured.err.splitlines() if line.startswith("omni-export: ")]
    assert len(problems) == 2
    assert "config.json: missing" in problems[1]
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []
    assert cli.main(["onnx", "--out", str(tmp_path / "b")]) == 2
    for arguments in ([], ["onnx"], ["quantise"]):
        with pytest.raises(SystemExit) as e:
            cli.main(arguments)
        assert e.value.code == 2


def test_command_line_exports(exported, full_checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        thinker_export,
        "export_graph",
        lambda plan, directory, *, compact: (
            shutil.copytree(exported.directory / "grs", directory / "grs", dirs_exist_ok=True)
            and exported.manifest.graphs[plan.name]
        ),
    )
    out = tmp_path / "b"
    arguments = ["onnx", "--grs", str(full_checkpoint), "--out", str(out), "--grs-license", "MIT"]
    assert cli.main([*arguments, "--name", "named"]) == 0
    captured = capsys.readouterr()
    assert "named, 4 graphs" in captured.out
    assert "exporting grs/decoder" in captured.err
    assert Bundle.open(out).manifest.sources["grs"].license == "MIT"


def test_compact_weights_are_exact():
    rng = np.random.default_rng(0)
    exact = rng.standard_normal((16, 32)).astype(np.float16).astype(np.float32)
    inexact = rng.standard_normal((32, 16)).astype(np.float32)
    large = np.full((16, 16), 1e5, np.float32)
    weights = {"exact": exact, "inexact": inexact, "large": large, "small": exact[:1, :8].copy()}
    nodes = [
        helper.make_node("MatMul", ["x", "exact"], ["a"]),
        helper.make_node("MatMul", ["a", "inexact"], ["b"]),
        helper.make_node("MatMul", ["b", "large"], ["y"]),
        helper.make_node("Identity", ["small"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 8]),
        ],
        [numpy_helper.from_array(w, name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = rng.standard_normal((3, 16)).astype(np.float32)
    ort = pytest.importorskip("onnxruntime")

    def run():
        session = ort.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return session.run(None, {"x": x})

    before, size = run(), model.ByteSize()
    store_exact_halves(model)
    onnx.checker.check_model(model, full_check=True)
    after = run()
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.ByteSize() < size - exact.nbytes // 2 + 200
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    assert kinds == {
        "exact_float16": TensorProto.FLOAT16,
        "inexact": TensorProto.FLOAT,
        "large": TensorProto.FLOAT,
        "small": TensorProto.FLOAT,
    }


def test_cli_is_light():
    heavy = ("torch", "onnx", "onnxruntime")
    code = f"import sys, omni_export.cli; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "[]"
