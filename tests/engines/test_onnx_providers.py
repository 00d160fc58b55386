"""Providers and their options, fixed buffers, and what is said when a device lacks something.

Options are checked as values and bindings on the CPU; `test_gpu.py` runs them where there is a GPU.
"""

import dataclasses
import logging
from types import SimpleNamespace

import numpy as np
import pytest

from omni_sdk.bundle.bundle import Bundle, embedded
from omni_sdk.engines import onnx as onnx_module
from omni_sdk.engines.gate import GatedLoader
from omni_sdk.engines.onnx import OnnxEngine, OnnxLoader
from omni_sdk.engines.onnx_binding import FixedBuffers
from omni_sdk.engines.onnx_options import (
    CPU,
    CUDA,
    TENSORRT,
    device_of,
    graph_providers,
    provider_list,
)
from omni_sdk.errors import EngineError
from omni_sdk.graphs.golden import golden_inputs
from omni_sdk.graphs.profiles import ShapeLimits, graph_profiles

GRAPHS = sorted(Bundle.open(embedded("nano")).manifest.graphs)


@pytest.fixture(scope="module")
def nano():
    return Bundle.open(embedded("nano"))


def test_what_falls_back_on_what():
    all_three = [TENSORRT, CUDA, CPU]
    chain = provider_list([(TENSORRT, {"device_id": 1, "trt_max_workspace_size": 5})], all_three)
    assert [name for name, _ in chain] == all_three
    assert chain[1] == (CUDA, {"device_id": 1})
    assert device_of(chain) == "cuda:1"
    assert provider_list([TENSORRT], [TENSORRT, CPU]) == [(TENSORRT, {}), (CPU, {})]
    assert provider_list([], all_three) == [(CPU, {})]
    assert device_of(provider_list([], all_three)) == "cpu"
    assert provider_list([CPU, CUDA], all_three) == [(CPU, {}), (CUDA, {})]


@pytest.mark.parametrize("value", ["1", 1, True, "True"])
def test_cuda_graphs_where_shapes_allow(nano, tmp_path, value):
    providers = provider_list([(CUDA, {"enable_cuda_graph": value})], [CUDA, CPU])
    fixed = []
    for graph in GRAPHS:
        found, captured = graph_providers(providers, nano, graph, tmp_path / "c")
        assert found[0][1]["enable_cuda_graph"] == ("1" if captured else "0")
        if captured:
            fixed.append(graph)
    assert fixed == ["dus/image_encoder"]
    off = provider_list([(CUDA, {"enable_cuda_graph": "0"})], [CUDA, CPU])
    assert graph_providers(off, nano, "dus/image_encoder", tmp_path / "c") == (off, False)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("graph", GRAPHS)
def test_tensorrt_gets_ranges_that_hold_every_profile(nano, tmp_path, graph):
    providers = provider_list([TENSORRT], [TENSORRT, CUDA, CPU])
    ((_, options), *_), captured = graph_providers(providers, nano, graph, tmp_path / "c")
    assert not captured
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "1"
    assert options["trt_engine_cache_path"] == str(tmp_path / "c")
    assert "trt_fp16_enable" not in options
    assert (tmp_path / "c").stat().st_mode & 0o077 == 0
    ranges = []
    for which in ("min", "opt", "max"):
        text = options[f"trt_profile_{which}_shapes"]
        shapes = {
            name: tuple(map(int, dims.split("x")))
            for name, dims in (item.split(":") for item in text.split(","))
        }
        assert set(shapes) == {t.name for t in nano.graph(graph).inputs}
        ranges.append(shapes)
    low, usual, high = ranges
    for profile in graph_profiles(nano, graph, ShapeLimits()):
        for name, (least, _, most) in profile.shapes.items():
            assert all(a <= b for a, b in zip(low[name], least, strict=True))
            assert all(a >= b for a, b in zip(high[name], most, strict=True))
            inside = zip(low[name], usual[name], high[name], strict=True)
            assert all(a <= b <= c for a, b, c in inside)


def test_what_the_caller_says_wins(nano, tmp_path):
    spec = nano.graph("grs/embed")
    half = dataclasses.replace(spec, precision="float16")
    graphs = nano.manifest.graphs | {"grs/embed": half}
    bundle = dataclasses.replace(nano, manifest=dataclasses.replace(nano.manifest, graphs=graphs))
    providers = provider_list([(TENSORRT, {"trt_engine_cache_path": "/x"})], [TENSORRT])
    ((_, options), _), _ = graph_providers(providers, bundle, "grs/embed", tmp_path / "c")
    assert options["trt_engine_cache_path"] == "/x"
    assert options["trt_fp16_enable"] == "1"


def test_a_cache_that_others_write_to(nano, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c").chmod(0o777)
    with pytest.raises(EngineError, match="chmod 700"):
        graph_providers(provider_list([TENSORRT], []), nano, "grs/embed", tmp_path / "c")


def test_fixed_buffers_give_what_a_plain_run_gives(nano):
    plain = OnnxLoader("cpu", threads=1).load(nano, "dus/image_encoder")
    fixed = OnnxEngine(plain.session, plain.name, nano.graph(plain.name), captured=True)
    assert isinstance(fixed._fixed, FixedBuffers)
    (first,) = golden_inputs(nano, "dus/image_encoder").values()
    second = {"image": np.ascontiguousarray(first["image"][..., ::-1])}
    kept = [fixed.run(inputs) for inputs in (first, second, first)]
    for found, inputs in zip(kept, (first, second, first), strict=True):
        expected = plain.run(inputs)
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
    with pytest.raises(EngineError, match="image is float64"):
        fixed.run({"image": first["image"].astype(np.float64)})


class _Session:
    """Stands for a session whose GPU is out of memory."""

    def run(self, *_):
        raise RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for buffer")


def test_a_gpu_without_enough_memory(nano, monkeypatch):
    spec = nano.graph("grs/embed")
    engine = OnnxEngine(_Session(), "grs/embed", spec)
    with pytest.raises(EngineError, match=r"Failed to allocate.*memory_budget='auto'"):
        engine.run({"input_ids": np.zeros((1, 1), np.int64)})

    def refuse(*_, **__):
        raise RuntimeError("CUDA failure 2: out of memory")

    monkeypatch.setattr(onnx_module.ort, "InferenceSession", refuse)
    with pytest.raises(EngineError, match=r"out of memory.*choose a smaller variant"):
        OnnxLoader("cpu").load(nano, "grs/embed")


def _with_cuda(monkeypatch, session):
    """A onnxruntime that lists CUDA and opens what `session` returns for the providers' options."""
    opened = []

    def open_session(model, options, providers, provider_options):
        opened.append(list(zip(providers, provider_options, strict=True)))
        return session(opened[-1])

    monkeypatch.setattr(onnx_module, "available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnx_module.ort, "InferenceSession", open_session)
    return opened


def _fallen_back(nano, graph):
    spec = nano.graph(graph)

    def value(t):
        kind = {"float32": "tensor(float)", "int64": "tensor(int64)"}[t.dtype]
        return SimpleNamespace(name=t.name, type=kind, shape=list(t.axes))

    return SimpleNamespace(
        get_inputs=lambda: [value(t) for t in spec.inputs],
        get_outputs=lambda: [value(t) for t in spec.outputs],
        get_providers=lambda: [CPU],
        get_provider_options=dict,
    )


def test_a_driver_that_is_too_old(nano, monkeypatch):
    """onnxruntime then starts on the CPU without a word; here it is told, with what to do."""
    _with_cuda(monkeypatch, lambda _: _fallen_back(nano, "grs/embed"))
    monkeypatch.setattr(
        "omni_sdk.utils.devices.nvidia_device", lambda _: {"driver_version": "470.1"}
    )
    with pytest.raises(EngineError, match=r"could not start.*driver 470.1 is installed.*older"):
        OnnxLoader("cuda").load(nano, "grs/embed")
    monkeypatch.setattr("omni_sdk.utils.devices.nvidia_device", lambda _: {})
    with pytest.raises(EngineError, match="no NVIDIA driver answers"):
        OnnxLoader("cuda").load(nano, "grs/embed")


def test_a_device_that_nobody_named_falls_back(nano, monkeypatch, caplog):
    _with_cuda(monkeypatch, lambda _: _fallen_back(nano, "grs/embed"))
    loader = OnnxLoader("auto")
    assert loader.device == "cuda:0"
    loader.load(nano, "grs/embed")
    assert loader.device == "cpu"
    assert "could not start" in caplog.text


def test_a_graph_that_cannot_be_captured_runs_uncaptured(nano, monkeypatch, caplog):
    def session(providers):
        if dict(providers)[CUDA].get("enable_cuda_graph") == "1":
            raise RuntimeError("not all nodes have been partitioned to CUDAExecutionProvider")
        found = _fallen_back(nano, "dus/image_encoder")
        found.get_providers = lambda: [CUDA, CPU]
        return found

    opened = _with_cuda(monkeypatch, session)
    loader = OnnxLoader(providers=[(CUDA, {"enable_cuda_graph": "1"})])
    with caplog.at_level(logging.WARNING):
        engine = loader.load(nano, "dus/image_encoder")
    assert engine._fixed is None
    assert "not captured as a CUDA graph" in caplog.text
    assert [dict(p)[CUDA].get("enable_cuda_graph") for p in opened] == ["1", None]


def test_the_gate_knows_providers_and_plans(nano, tmp_path):
    """What passed on one provider, or with one plan, has not passed on another."""
    spec = dataclasses.replace(nano.graph("grs/embed"), golden="grs/embed.onnx")
    graphs = nano.manifest.graphs | {"grs/embed": spec}
    bundle = dataclasses.replace(nano, manifest=dataclasses.replace(nano.manifest, graphs=graphs))
    keys = set()
    for options in ({}, {"arena_extend_strategy": "kSameAsRequested"}):
        loader = OnnxLoader(providers=[(CPU, options)])
        gate = GatedLoader(loader, directory=tmp_path)
        for plan in ("one", "another"):
            keys.add(gate._key(bundle, "grs/embed", SimpleNamespace(fingerprint=plan)))
    assert len(keys) == 4
