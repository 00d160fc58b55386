"""The ONNX engine on a graph made by hand: checks before running, typed errors, threads."""

import concurrent.futures
import dataclasses
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from omni_sdk.bundle.bundle import Bundle, write_manifest
from omni_sdk.bundle.manifest import GraphSpec, Manifest, TensorSpec
from omni_sdk.engines.onnx import OnnxLoader, available_providers
from omni_sdk.errors import BackendUnavailableError, BundleError, EngineError

# y = table[ids] + x, for ids (B,), x (B, 3)
SPEC = GraphSpec(
    "add.onnx",
    (TensorSpec("ids", "int64", ("batch",)), TensorSpec("x", "float32", ("batch", 3))),
    (TensorSpec("y", "float32", ("batch", 3)),),
)
TABLE = np.arange(12, dtype=np.float32).reshape(4, 3)


def _model():
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("Add", ["rows", "x"], ["y"]),
        ],
        "add",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(TABLE, "table")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _bundle(directory, spec=SPEC, model=None, **save_options):
    directory.mkdir()
    if isinstance(model, bytes):
        (directory / spec.file).write_bytes(model)
    else:
        onnx.save(model or _model(), directory / spec.file, **save_options)
    manifest = Manifest(1, "t", "1", "none", "", {}, {}, {"g": spec})
    return Bundle(directory, write_manifest(directory, manifest))


@pytest.fixture
def engine(tmp_path):
    return OnnxLoader("cpu", threads=1).load(_bundle(tmp_path / "b"), "g")


def _inputs(n=2):
    return {"ids": np.arange(n) % 4, "x": np.ones((n, 3), np.float32)}


def test_runs(engine):
    out = engine.run(_inputs(5))
    assert out.keys() == {"y"}
    np.testing.assert_array_equal(out["y"], TABLE[[0, 1, 2, 3, 0]] + 1)
    assert out["y"].dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, r"inputs \['ids'\], expected \['ids', 'x'\]"),
        ({"z": np.ones(1)}, "inputs"),
        ({"x": np.ones((2, 3))}, "x is float64, expected float32"),
        ({"x": [[1.0] * 3] * 2}, "x is list, expected float32"),
        ({"x": np.ones(3, np.float32)}, r"shape \(3,\), expected \('batch', 3\)"),
        ({"x": np.ones((2, 4), np.float32)}, "with 3 = 3"),
        ({"x": np.ones((3, 3), np.float32)}, "with batch = 2"),
        ({"ids": np.array([0, 9])}, "onnxruntime failed"),
    ],
)
def test_what_does_not_fit_is_named(engine, change, message):
    inputs = {k: v for k, v in (_inputs() | change).items() if v is not None}
    with pytest.raises(EngineError, match=message):
        engine.run(inputs)
    engine.run(_inputs())  # still usable


def test_several_threads(engine):
    def work(seed):
        ids = np.random.default_rng(seed).integers(0, 4, 50)
        x = np.full((50, 3), seed, np.float32)
        return np.array_equal(engine.run({"ids": ids, "x": x})["y"], TABLE[ids] + seed)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(40)))


def test_external_data(tmp_path):
    spec = dataclasses.replace(SPEC, data=("add.onnx.data",))
    bundle = _bundle(
        tmp_path / "b", spec, save_as_external_data=True, location="add.onnx.data", size_threshold=0
    )
    out = OnnxLoader("cpu").load(bundle, "g").run(_inputs())
    np.testing.assert_array_equal(out["y"], TABLE[:2] + 1)


@pytest.mark.parametrize("content", [b"", b"not a graph", _model().SerializeToString()[:-40]])
def test_malformed_graph(tmp_path, content):
    with pytest.raises((EngineError, BundleError), match=r"refuses|is not an ONNX file"):
        OnnxLoader("cpu").load(_bundle(tmp_path / "b", model=content), "g")


def test_graph_that_is_not_the_manifests(tmp_path):
    x, y = SPEC.inputs[1], SPEC.outputs[0]
    wrong = {
        "name": dataclasses.replace(SPEC, outputs=(dataclasses.replace(y, name="z"),)),
        "dtype": dataclasses.replace(
            SPEC, inputs=(SPEC.inputs[0], dataclasses.replace(x, dtype="float16"))
        ),
        "rank": dataclasses.replace(SPEC, outputs=(dataclasses.replace(y, axes=("batch",)),)),
        "size": dataclasses.replace(
            SPEC, inputs=(SPEC.inputs[0], dataclasses.replace(x, axes=("batch", 4)))
        ),
    }
    for what, spec in wrong.items():
        with pytest.raises(BundleError, match="manifest"):
            OnnxLoader("cpu").load(_bundle(tmp_path / what, spec), "g")
    with pytest.raises(BundleError, match="no graph 'h'"):
        OnnxLoader("cpu").load(_bundle(tmp_path / "b"), "h")


def test_devices_and_providers(tmp_path):
    assert OnnxLoader("cpu").device == "cpu"
    assert "CPUExecutionProvider" in available_providers()
    loader = OnnxLoader(providers=[("CPUExecutionProvider", {})])
    assert (loader.backend, loader.device) == ("onnx", "cpu")
    loader.load(_bundle(tmp_path / "b"), "g").run(_inputs())
    OnnxLoader("auto").load(_bundle(tmp_path / "c"), "g").run(_inputs())
    for device in ("gpu", "cpu:1", "cuda:x", "cuda:-1"):
        with pytest.raises(ValueError, match="device must be"):
            OnnxLoader(device)
    with pytest.raises(ValueError, match="threads"):
        OnnxLoader("cpu", threads=0)
    with pytest.raises(EngineError, match="no NoSuchProvider here"):
        OnnxLoader(providers=["NoSuchProvider"])
    if "CUDAExecutionProvider" not in available_providers():
        with pytest.raises(EngineError, match="onnx-gpu"):
            OnnxLoader("cuda")


def test_missing_library_names_the_extra():
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from omni_sdk.errors import BackendUnavailableError\n"
        "try:\n    import omni_sdk.engines.onnx\n"
        "except BackendUnavailableError as e:\n    print(e)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "omni-sdk[onnx]" in out
    assert issubclass(BackendUnavailableError, ImportError)
