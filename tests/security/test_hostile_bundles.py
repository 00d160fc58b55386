"""Whatever is done to a bundle ends in one BundleError, before a parser of models sees a byte."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import omni_sdk.engines.onnx as engine_module
from omni_sdk.bundle.bundle import Bundle, write_manifest
from omni_sdk.bundle.manifest import GraphSpec, Manifest, TensorSpec
from omni_sdk.cli import main
from omni_sdk.engines.graph_check import check_graph
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.errors import BundleError, OmniError
from omni_sdk.pipeline import Pipeline

TENSOR = TensorSpec("x", "float32", (64,))
TABLE = np.arange(64, dtype=np.float32)


@pytest.fixture
def copy(nano, tmp_path) -> Path:
    """Return a copy of the shipped bundle that a test may spoil."""
    return shutil.copytree(nano, tmp_path / "copy")


@pytest.fixture(autouse=True)
def tripwire(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when anything here tries the network."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("tried the network"))


@pytest.fixture
def no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when onnxruntime or the tokenizer is handed anything."""
    monkeypatch.setattr(
        engine_module.ort, "InferenceSession", lambda *_, **__: pytest.fail("parsed a graph")
    )
    monkeypatch.setattr(
        "omni_sdk.grs.processor.load_tokenizer", lambda *_: pytest.fail("parsed a tokenizer")
    )


def _refused(directory: Path, match: str) -> None:
    with pytest.raises(BundleError, match=match) as caught:
        Pipeline.from_pretrained(directory, device="cpu")
    assert "\n" not in str(caught.value)


def test_every_file_of_the_shipped_bundle_is_guarded(nano, tmp_path, no_parser) -> None:
    names = [p.relative_to(nano).as_posix() for p in sorted(nano.rglob("*")) if p.is_file()]
    assert {Path(n).suffix for n in names} == {".onnx", ".json", ".npy", ".npz"}
    for number, name in enumerate(n for n in names if n != "manifest.json"):
        root = shutil.copytree(nano, tmp_path / str(number))
        content = bytearray((root / name).read_bytes())
        for at in (0, len(content) // 2, len(content) - 1):
            content[at] ^= 1
            (root / name).write_bytes(content)
            _refused(root, "altered")
            content[at] ^= 1
        (root / name).write_bytes(content[:-1])
        _refused(root, "bytes, the manifest says")
        (root / name).unlink()
        _refused(root, "is missing")
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("evil.so", lambda p: p.write_bytes(b"\x7fELF")),
        ("grs/custom_ops.py", lambda p: p.write_text("import os")),
        ("pytorch_model.bin", lambda p: p.write_bytes(b"\x80\x04.")),
        ("model.engine", lambda p: p.write_bytes(b"plan")),
        ("link", lambda p: p.symlink_to("/etc/passwd")),
        ("folder", lambda p: p.symlink_to("/etc", target_is_directory=True)),
        ("pipe", os.mkfifo),
    ],
)
def test_nothing_else_may_lie_there(copy, no_parser, name, make) -> None:
    make(copy / name)
    _refused(copy, "is not in the manifest|not a regular file")


def test_links_to_the_same_bytes_are_refused(copy, tmp_path, no_parser) -> None:
    target = copy / "dus/mask_decoder.onnx"
    os.link(target, tmp_path / "outside")
    _refused(copy, "2 hard links")
    target.unlink()
    target.symlink_to(tmp_path / "outside")
    _refused(copy, "not a regular file")


def _model(*nodes, domain: str = "", **fields) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Add", ["x", "table"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64])],
        [onnx.numpy_helper.from_array(TABLE, "table")],
    )
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **fields)


def _bundle(root: Path, model: onnx.ModelProto | bytes, *data: str) -> Bundle:
    (root / "grs").mkdir(parents=True)
    content = model if isinstance(model, bytes) else model.SerializeToString()
    (root / "grs/a.onnx").write_bytes(content)
    for name in data:
        (root / name).write_bytes(TABLE.tobytes())
    out = TensorSpec("y", "float32", (64,))
    graphs = {"grs/a": GraphSpec("grs/a.onnx", (TENSOR,), (out,), data)}
    write_manifest(root, Manifest(1, "t", "1", "none", "", {}, {}, graphs))
    return Bundle.open(root)


def _external(location: str, **more: str) -> onnx.ModelProto:
    model = _model()
    table = model.graph.initializer[0]
    table.ClearField("raw_data")
    table.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        entry = table.external_data.add()
        entry.key, entry.value = key, value
    return model


def test_listed_external_data_is_read(tmp_path) -> None:
    bundle = _bundle(tmp_path / "b", _external("a.data"), "grs/a.data")
    out = OnnxLoader("cpu", threads=1).load(bundle, "grs/a").run({"x": np.ones(64, np.float32)})
    np.testing.assert_array_equal(out["y"], TABLE + 1)


@pytest.mark.parametrize(
    "location",
    [
        *("../outside.data", "/etc/passwd", "a.data/../../outside.data", "other.data", "", "."),
        *("*/_ORT_MEM_ADDR_/*", "a.data\x00", "./a.data/", "..\\outside.data"),
    ],
)
def test_external_data_elsewhere_is_refused(tmp_path, no_parser, location) -> None:
    (tmp_path / "outside.data").write_bytes(TABLE.tobytes())
    bundle = _bundle(tmp_path / "b", _external(location), "grs/a.data", "grs/unlisted.data")
    with pytest.raises(BundleError, match=r"reads its weights from .*which the manifest does not"):
        OnnxLoader("cpu", threads=1).load(bundle, "grs/a")


def test_data_of_another_graph_is_refused(tmp_path, no_parser) -> None:
    bundle = _bundle(tmp_path / "b", _external("a.onnx"), "grs/a.data")
    with pytest.raises(BundleError, match=r"reads its weights from 'a\.onnx'"):
        OnnxLoader("cpu", threads=1).load(bundle, "grs/a")


def test_a_location_hidden_in_any_place_is_found(tmp_path, no_parser) -> None:
    tensor = _external("../x").graph.initializer[0]
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "i", [], [])
    places = {
        "node": _model(helper.make_node("Constant", [], ["y"], value=tensor)),
        "subgraph": _model(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)),
        "list": _model(helper.make_node("Foo", [], ["y"], tensors=[tensor, tensor])),
        "sparse": _model(),
        "function": _model(
            functions=[
                helper.make_function(
                    "", "F", [], ["c"], list(inner.node), [helper.make_opsetid("", 20)]
                )
            ]
        ),
    }  # fmt: skip
    places["sparse"].graph.sparse_initializer.add().values.CopyFrom(tensor)
    for name, model in places.items():
        with pytest.raises(BundleError, match="reads its weights from"):
            check_graph(model.SerializeToString(), name, "grs/a.onnx", {})
    # protobuf merges messages that occur twice, and of a repeated key takes the last.
    twice = _model().SerializeToString() + _external("../x").SerializeToString()
    with pytest.raises(BundleError, match="reads its weights from"):
        check_graph(twice, "twice", "grs/a.onnx", {})


@pytest.mark.parametrize(
    "domain", ["evil.ops", "com.microsoft.extensions", "trt", "ai.onnx.contrib"]
)
def test_operators_of_libraries_are_refused(tmp_path, no_parser, domain) -> None:
    node = helper.make_node("PyOp", ["x"], ["y"], domain=domain)
    bundle = _bundle(tmp_path / "b", _model(node, domain=domain))
    with pytest.raises(BundleError, match=f"operator of the domain '{domain}'"):
        OnnxLoader("cpu", threads=1).load(bundle, "grs/a")


def test_compiled_blobs_are_refused(tmp_path, no_parser) -> None:
    node = helper.make_node(
        "EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context="../evil.engine"
    )
    bundle = _bundle(tmp_path / "b", _model(node, domain="com.microsoft"))
    with pytest.raises(BundleError, match="EPContext node, which runs a compiled blob"):
        OnnxLoader("cpu", threads=1).load(bundle, "grs/a")


@pytest.mark.parametrize("dims", [[1 << 40], [1 << 20] * 8, [3, 1 << 62], [1 << 62] * 4000])
def test_tensors_that_claim_more_than_they_hold_are_refused(tmp_path, no_parser, dims) -> None:
    model = _model()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    bundle = _bundle(tmp_path / "b", model)
    with pytest.raises(BundleError, match=r"claims .* elements in .* bytes"):
        OnnxLoader("cpu", threads=1).load(bundle, "grs/a")


def test_what_is_verified_is_what_is_loaded(tmp_path) -> None:
    """A graph that is exchanged after the bundle was opened is noticed when it is loaded."""
    bundle = _bundle(tmp_path / "b", _model())
    OnnxLoader("cpu", threads=1).load(bundle, "grs/a")
    path = tmp_path / "b/grs/a.onnx"
    path.write_bytes(path.read_bytes().replace(b"table", b"tABLE"))
    with pytest.raises(BundleError, match="altered since the bundle was opened"):
        OnnxLoader("cpu", threads=1).load(bundle, "grs/a")
    path.unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        bundle.read("grs/a.onnx")


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_spoiled_graphs_never_escape(data) -> None:
    """The checker ends in BundleError or accepts; it never fails otherwise, hangs or allocates."""
    content = bytearray(_external("a.data").SerializeToString())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BundleError):
        check_graph(bytes(content), "g", "grs/a.onnx", {"grs/a.data": 256})


@given(st.binary(max_size=400))
@settings(max_examples=150, deadline=None)
def test_noise_never_escapes(content) -> None:
    with contextlib.suppress(BundleError):
        check_graph(content, "g", "g.onnx", {})


def test_manifests_with_hostile_settings(copy, no_parser) -> None:
    """A manifest may say anything of itself; every file's size is checked before it is hashed."""
    path = copy / "manifest.json"
    good = json.loads(path.read_text())
    for change in (
        {"files": good["files"] | {"grs/embed.onnx": {"size": 1 << 62, "sha256": "0" * 64}}},
        {"files": good["files"] | {"grs/embed.onnx": {"size": -1, "sha256": "0" * 64}}},
        {"files": good["files"] | {"grs/embed.onnx": {"size": 68910, "sha256": "../../x"}}},
        {"auto_map": {"AutoModel": "evil.Model"}},
        {"custom_ops": ["evil.so"]},
        {"graphs": {}, "files": []},
    ):
        path.write_text(json.dumps(good | change))
        _refused(copy, ".")
    path.write_text("[" * 200_000)
    _refused(copy, "not JSON")


def test_verify(copy, capsys) -> None:
    assert main(["verify", "nano"]) == 0
    assert main(["verify", str(copy)]) == 0
    out = capsys.readouterr().out
    assert "18 files" in out
    assert "sound" in out
    with (copy / "grs/embed.onnx").open("ab") as f:
        f.write(b"x")
    assert main(["verify", str(copy)]) == 1
    assert "grs/embed.onnx" in capsys.readouterr().err
    assert main(["verify", str(copy / "nowhere")]) == 1


def test_verify_checks_the_graphs_too(tmp_path, capsys) -> None:
    _bundle(tmp_path / "b", _external("../x"))
    assert main(["verify", str(tmp_path / "b")]) == 1
    assert "reads its weights from" in capsys.readouterr().err
    assert issubclass(BundleError, OmniError)
