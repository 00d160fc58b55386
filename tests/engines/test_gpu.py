"""Real graphs on a real GPU against the CPU; without one: skipped, or failed with OMNI_REQUIRE_CUDA=1."""

import os
import subprocess
import sys

import numpy as np
import pytest

from omni_sdk.bundle.bundle import Bundle, embedded
from omni_sdk.config import GenerationConfig, PipelineConfig
from omni_sdk.demo.clip import write_clip
from omni_sdk.demo.scene import make_scene
from omni_sdk.dus.masks import rle_decode
from omni_sdk.engines.cuda import Device
from omni_sdk.engines.linked import start_linked
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.engines.onnx_options import TENSORRT
from omni_sdk.engines.plans import PlanCache
from omni_sdk.engines.tensorrt import TensorRTLoader
from omni_sdk.errors import BackendUnavailableError, EngineError
from omni_sdk.graphs.golden import golden_error, golden_inputs, golden_outputs
from omni_sdk.graphs.profiles import ShapeLimits
from omni_sdk.pipeline import Pipeline

GRAPHS = sorted(Bundle.open(embedded("nano")).manifest.graphs)
TOLERANCE = 1e-2  # of a standard deviation: TF32 keeps ten bits
CAPTURE = [("CUDAExecutionProvider", {"enable_cuda_graph": "1"})]


@pytest.fixture(scope="module")
def nano():
    return Bundle.open(embedded("nano"))


def _same(engine, nano, graph):
    calls = golden_inputs(nano, graph)
    reference = golden_outputs(OnnxLoader("cpu").load(nano, graph).run, calls)
    for _ in range(3):  # a captured graph is replayed from the second call on
        error, output = golden_error(golden_outputs(engine.run, calls), reference)
        assert error <= TOLERANCE, output


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_graph_on_cuda(cuda_device, nano, graph):
    _same(OnnxLoader(cuda_device).load(nano, graph), nano, graph)


def test_a_captured_graph(cuda_device, nano):
    engine = OnnxLoader(providers=CAPTURE).load(nano, "dus/image_encoder")
    assert engine._fixed is not None
    _same(engine, nano, "dus/image_encoder")


def test_a_cache_stays_on_the_gpu(cuda_device, nano):
    names = [f"{i}.{part}" for i in range(nano.grs.decoder.num_layers) for part in ("key", "value")]
    links = {f"present.{n}": f"past.{n}" for n in names}
    calls = golden_inputs(nano, "grs/decoder")
    logits = []
    for device in ("cpu", cuda_device):
        engine = OnnxLoader(device).load(nano, "grs/decoder")
        cache = {n: v for n, v in calls["prefill"].items() if n in links.values()}
        run = start_linked(engine, links, cache)
        run.run({n: v for n, v in calls["prefill"].items() if n not in cache})
        step = {n: v for n, v in calls["step"].items() if n not in cache}
        logits.append(run.run(step)["logits"])
        kinds = {value.device_name() for value in run._held.values()}
        assert kinds == {device.partition(":")[0]}
    np.testing.assert_allclose(logits[1], logits[0], atol=TOLERANCE * logits[0].std())


@pytest.mark.parametrize("providers", [None, CAPTURE])
def test_the_same_answer_and_masks(cuda_device, tmp_path, providers):
    path = tmp_path / "clip.mp4"
    query = write_clip(make_scene(5400000, "sound"), path, size=(128, 128), fps=4.0).query
    config = PipelineConfig(generation=GenerationConfig())
    where = {"device": cuda_device} if providers is None else {"providers": providers}
    results = [
        Pipeline.from_pretrained("nano", **options)(path, query, config=config)
        for options in ({"device": "cpu"}, where)
    ]
    assert results[1].bundle.device == cuda_device
    assert results[0].answer == results[1].answer
    for a, b in zip(results[0].tracks, results[1].tracks, strict=True):
        pairs = zip(a.rles, b.rles, strict=True)
        masks = [(rle_decode(x, a.size), rle_decode(y, b.size)) for x, y in pairs]
        inter = sum(int((x & y).sum()) for x, y in masks)
        union = sum(int((x | y).sum()) for x, y in masks)
        assert inter >= 0.99 * union


@pytest.mark.parametrize("graph", ["grs/decoder", "dus/image_encoder", "dus/memory_attention"])
def test_tensorrts_provider(cuda_device, nano, graph, tmp_path, monkeypatch):
    monkeypatch.setenv("OMNI_SDK_CACHE", str(tmp_path))
    try:
        engine = OnnxLoader(providers=[TENSORRT]).load(nano, graph)
    except EngineError as e:
        pytest.skip(f"onnxruntime's TensorRT provider does not start here: {e}")
    _same(engine, nano, graph)


@pytest.mark.parametrize("graph", GRAPHS)
def test_tensorrt(cuda_device, nano, graph, tmp_path):
    limits = ShapeLimits(max_prompt=64, max_new_tokens=16, max_patches=256, max_objects=2)
    try:
        loader = TensorRTLoader(limits=limits, cache=PlanCache(tmp_path / "plans"))
    except BackendUnavailableError as e:
        pytest.skip(f"no TensorRT: {e}")
    loader.build(nano, graph)
    _same(loader.load(nano, graph), nano, graph)


def test_the_driver_module(cuda_device):
    device = Device(0)
    assert device.cuda_version >= (11, 0)
    assert device.free_bytes() > 0
    value = np.arange(1000, dtype=np.float32)
    back = np.zeros_like(value)
    buffer = device.allocate(value.nbytes)
    device.upload(value, buffer)
    device.download(buffer, back)
    device.wait()
    np.testing.assert_array_equal(back, value)


def test_required_gpus_are_required():
    """On a machine without one, OMNI_REQUIRE_CUDA=1 turns the skip into a failure."""
    try:
        OnnxLoader("cuda").load(Bundle.open(embedded("nano")), "grs/embed")
    except EngineError:
        pass
    else:
        pytest.skip("this machine has a GPU")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"{__file__}::test_the_driver_module"]
    outcomes = []
    for required in ("0", "1"):
        environment = os.environ | {"OMNI_REQUIRE_CUDA": required}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        outcomes.append((done.returncode, done.stdout))
    assert (outcomes[0][0], "1 skipped" in outcomes[0][1]) == (0, True)
    assert outcomes[1][0] == 1
    assert "there is no working GPU" in outcomes[1][1]
