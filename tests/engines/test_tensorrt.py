"""Everything of TensorRT up to the library's and the driver's calls. Nothing here ran on a GPU."""

import ctypes
import dataclasses
import gc
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omni_export.cli import main
from omni_export.tensorrt_build import build_plans, plan_requests, trtexec_line
from omni_export.tensorrt_operators import objections
from onnx import TensorProto, helper

from omni_sdk.bundle.bundle import Bundle, embedded
from omni_sdk.bundle.manifest import GraphSpec, GraphVariant, TensorSpec
from omni_sdk.engines import cuda, tensorrt_api
from omni_sdk.engines.cuda import BufferPool, Device
from omni_sdk.engines.linked import _NumpyLinks, start_linked
from omni_sdk.engines.plans import BuildFlags, PlanCache, differences, plan_key
from omni_sdk.engines.select import open_loader
from omni_sdk.engines.tensorrt import TensorRTEngine, TensorRTLinks, TensorRTLoader
from omni_sdk.errors import BackendUnavailableError, BundleError, EngineError
from omni_sdk.graphs.golden import golden_inputs
from omni_sdk.graphs.profiles import (
    Profile,
    ShapeLimits,
    graph_profiles,
    prompt_tokens,
    read_profiles,
)
from omni_sdk.utils import schema

GRAPHS = sorted(Bundle.open(embedded("nano")).manifest.graphs)


@pytest.fixture(scope="module")
def nano():
    return Bundle.open(embedded("nano"))


# profiles


@pytest.mark.parametrize("graph", GRAPHS)
def test_profiles_are_ordered_and_hold_real_calls(nano, graph):
    profiles = graph_profiles(nano, graph, ShapeLimits())
    for profile in profiles:
        assert set(profile.shapes) == {t.name for t in nano.graph(graph).inputs}
        for low, usual, high in profile.shapes.values():
            assert all(a <= b <= c for a, b, c in zip(low, usual, high, strict=True))
    for call, inputs in golden_inputs(nano, graph).items():
        shapes = {name: value.shape for name, value in inputs.items()}
        holding = [p.name for p in profiles if p.holds(shapes)]
        assert len(holding) == 1, (call, shapes, profiles)
        if graph == "grs/decoder":
            assert holding == [call]


def test_dynamic_axes_of_one_name_agree(nano):
    """A profile's corners are calls that the graph takes: equal axis names have equal sizes."""
    for graph in GRAPHS:
        for profile in graph_profiles(nano, graph, ShapeLimits()):
            for corner in range(3):
                sizes = {}
                for tensor in nano.graph(graph).inputs:
                    shape = profile.shapes[tensor.name][corner]
                    for axis, size in zip(tensor.axes, shape, strict=True):
                        want = sizes.setdefault(axis, size) if isinstance(axis, str) else axis
                        # the vision layout's largest call is the union of several frames
                        if graph != "grs/vision" or corner < 2:
                            assert size == want, (graph, profile.name, tensor.name)


def test_decoder_limits(nano):
    limits = ShapeLimits(max_prompt=100, max_new_tokens=20)
    prefill, step = graph_profiles(nano, "grs/decoder", limits)
    assert prefill.shapes["inputs_embeds"][2][:2] == (1, 100)
    assert prefill.shapes["past.0.key"][2][2] == 0
    assert step.shapes["past.0.key"] == ((1, 2, 1, 32), (1, 2, 100, 32), (1, 2, 120, 32))
    assert step.shapes["attention_mask"][2] == (1, 121)
    assert prompt_tokens(nano.grs, ShapeLimits()) <= nano.grs.decoder.max_positions
    with pytest.raises(ValueError, match="at least 1"):
        ShapeLimits(max_objects=0)
    with pytest.raises(BundleError, match="no graph"):
        graph_profiles(nano, "grs/x", limits)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 12), st.integers(0, 12))
def test_holds_is_the_box(a, b):
    profile = Profile("p", {"x": ((1, 2), (2, 4), (8, 9))})
    assert profile.holds({"x": (a, b)}) == (1 <= a <= 8 and 2 <= b <= 9)
    assert not profile.holds({"x": (a, b, 1)})


# the cache


def _key(nano, graph="grs/embed", tensorrt="10.3.0", sm="8.7", flags=None, limits=None):
    profiles = graph_profiles(nano, graph, limits or ShapeLimits())
    return plan_key(
        nano, graph, profiles, flags or BuildFlags(), tensorrt=tensorrt, compute_capability=sm
    )


@pytest.fixture
def cache(tmp_path):
    return PlanCache(tmp_path / "plans")


def test_every_part_of_the_key_counts(nano):
    base = _key(nano)
    others = [
        _key(nano, graph="grs/audio"),
        _key(nano, tensorrt="10.4.0"),
        _key(nano, sm="9.0"),
        _key(nano, flags=BuildFlags(optimization_level=5)),
        _key(nano, limits=ShapeLimits(max_prompt=7)),
        dataclasses.replace(base, system="linux-other"),
        dataclasses.replace(base, files=("0" * 64,)),
    ]
    digests = {k.digest for k in (base, *others)}
    assert len(digests) == 8
    assert _key(nano).digest == base.digest
    assert differences(base, base) == []
    assert differences(base, others[2]) == ["compute_capability: expected 8.7, found 9.0"]
    assert differences(base, others[6]) == ["files: not those of this bundle"]


def test_store_and_find(nano, cache):
    key = _key(nano)
    assert cache.find(key) is None
    path = cache.store(key, b"plan bytes")
    assert path.read_bytes() == b"plan bytes"  # a plain plan: nothing is put before it
    assert cache.find(key) == b"plan bytes"
    assert cache.find(_key(nano, sm="9.0")) is None
    leftovers = {p.suffix for p in cache.directory.iterdir()}
    assert leftovers == {".plan", ".json"}


@pytest.mark.parametrize("damage", ["truncate", "flip", "missing", "no record", "bad record"])
def test_damaged_entries_count_as_absent(nano, cache, damage):
    key = _key(nano)
    plan = cache.store(key, b"plan bytes")
    record = plan.with_suffix(".json")
    if damage == "truncate":
        plan.write_bytes(b"plan")
    elif damage == "flip":
        plan.write_bytes(b"plan bytez")
    elif damage == "missing":
        plan.unlink()
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text("{")
    assert cache.find(key) is None
    cache.store(key, b"again")
    assert cache.find(key) == b"again"


def test_a_record_of_another_plan_is_refused(nano, cache):
    key, other = _key(nano), _key(nano, sm="9.0")
    source = cache.store(other, b"for another GPU")
    for suffix in (".plan", ".json"):
        (cache.directory / f"{key.digest}{suffix}").write_bytes(
            source.with_suffix(suffix).read_bytes()
        )
    assert cache.find(key) is None


def test_explain(nano, cache):
    key = _key(nano)
    assert "no plan of grs/embed" in cache.explain(key)
    cache.store(_key(nano, sm="9.0", tensorrt="11.4"), b"x")
    cache.store(_key(nano, tensorrt="11.4"), b"y")
    assert "(tensorrt: expected 10.3.0, found 11.4)" in cache.explain(key)


def test_the_least_recently_used_go_first(nano, tmp_path):
    cache = PlanCache(tmp_path / "plans", max_bytes=250)
    keys = [_key(nano, sm=f"{i}.0") for i in range(3)]
    for i, key in enumerate(keys[:2]):
        path = cache.store(key, bytes(100))
        os.utime(path, ns=(i, i))
    assert cache.find(keys[0]) is not None  # used: now the newest
    cache.store(keys[2], bytes(100))
    assert cache.find(keys[1]) is None
    assert cache.find(keys[0]) is not None
    assert cache.find(keys[2]) is not None
    with pytest.raises(EngineError, match="larger than the cache"):
        cache.store(_key(nano, sm="5.0"), bytes(251))
    assert not list(cache.directory.glob(".*"))


def test_a_directory_that_others_write_to(tmp_path):
    (tmp_path / "plans").mkdir(mode=0o777)
    (tmp_path / "plans").chmod(0o777)
    with pytest.raises(EngineError, match="chmod 700"):
        PlanCache(tmp_path / "plans")


def test_an_interrupted_write_leaves_nothing(nano, cache, monkeypatch):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(EngineError, match="No space left"):
        cache.store(_key(nano), b"plan")
    assert list(cache.directory.iterdir()) == []


HOLD = """
import sys, time
from pathlib import Path
from omni_sdk.utils import schema
from omni_sdk.engines.plans import PlanCache, PlanKey
import json
key = schema.from_dict(PlanKey, json.loads(sys.argv[2]))
with PlanCache(Path(sys.argv[1])).building(key):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_builders(nano, cache):
    key = _key(nano)
    command = [sys.executable, "-c", HOLD, str(cache.directory), json.dumps(schema.to_dict(key))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            with (
                pytest.raises(EngineError, match="another process has been building"),
                cache.building(key, timeout_seconds=0.2),
            ):
                pass
            with cache.building(_key(nano, sm="9.0"), timeout_seconds=0.2):
                pass  # another key is free
        finally:
            process.kill()
        process.wait(10)
        with cache.building(key, timeout_seconds=10):
            pass  # a builder that died has given its lock back


KILLED = """
import json, os, sys, time
from pathlib import Path
from omni_sdk.utils import schema
from omni_sdk.engines.plans import PlanCache, PlanKey

def hang(_):
    print("writing", flush=True)
    time.sleep(60)

os.fsync = hang
key = schema.from_dict(PlanKey, json.loads(sys.argv[2]))
cache = PlanCache(Path(sys.argv[1]))
with cache.building(key):
    cache.store(key, b"half of a plan")
"""


def test_a_process_killed_while_it_writes(nano, cache):
    key = _key(nano)
    command = [sys.executable, "-c", KILLED, str(cache.directory), json.dumps(schema.to_dict(key))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        process.kill()
        process.wait(10)
    assert len(list(cache.directory.glob(".*"))) == 1  # what it had begun
    assert cache.find(key) is None
    with cache.building(_key(nano, sm="9.0"), timeout_seconds=10):
        assert (
            len(list(cache.directory.glob(".*"))) == 1
        )  # another plan's builder may be at work on it
    with cache.building(key, timeout_seconds=10):
        assert not list(cache.directory.glob(".*"))
        cache.store(key, b"a whole plan")
    assert cache.find(key) == b"a whole plan"


# operators and trtexec


@pytest.mark.parametrize("graph", GRAPHS)
def test_shipped_graphs_are_on_the_list(nano, graph):
    model = onnx.load(nano.path(nano.graph(graph).file))
    assert objections(model) == []


def test_what_is_not_on_the_list():
    def model(node, domain=""):
        value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("x", "y")]
        graph = helper.make_graph([node], "g", value[:1], value[1:])
        opsets = [helper.make_opsetid("", 20)]
        return helper.make_model(graph, opset_imports=opsets)

    assert objections(model(helper.make_node("Relu", ["x"], ["y"]))) == []
    assert "Det is not supported" in objections(model(helper.make_node("Det", ["x"], ["y"])))[0]
    fused = helper.make_node("MatMulNBits", ["x"], ["y"], domain="com.microsoft")
    assert "com.microsoft::MatMulNBits" in objections(model(fused))[0]
    reduce = helper.make_node("ReduceMean", ["x", "axes"], ["y"])
    assert "axes must be a constant" in objections(model(reduce))[0]
    resize = helper.make_node("Resize", ["x", "", "s"], ["y"], mode="cubic", antialias=1)
    assert len(objections(model(resize))) == 2
    old = model(helper.make_node("Relu", ["x"], ["y"]))
    old.opset_import[0].version = 8
    assert "opset 8" in objections(old)[0]


def test_sizes_that_depend_on_values():
    """Sizes may come from an input's shape; from its values they would need shape tensors on the host."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m"])]

    def found(*nodes):
        graph = helper.make_graph([helper.make_node(*n) for n in nodes], "g", inputs, outputs)
        return objections(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))

    assert found(("Shape", ["ids"], ["s"]), ("Expand", ["x", "s"], ["y"])) == []
    (why,) = found(("Abs", ["ids"], ["s"]), ("Expand", ["x", "s"], ["y"]))
    assert "Expand '': its size depends on values of s" in why
    (why,) = found(("NonZero", ["x"], ["y"]))
    assert "depends on values of x" in why
    assert found(("Gather", ["x", "ids"], ["y"])) == []  # ids choose values, not sizes


def test_trtexec_line(nano, tmp_path):
    (request,) = plan_requests(nano, ["grs/decoder"], ShapeLimits(max_prompt=9), BuildFlags())
    line = trtexec_line(request, tmp_path / "a b.plan", tmp_path / "t.cache")
    assert (
        "--stronglyTyped" in line
    )  # 10.x would choose precisions itself; 11.x takes it in silence
    assert "'--saveEngine=" in line  # the blank in the path is quoted
    for part in (
        "--profile=0",
        "--profile=1",
        "--memPoolSize=workspace:2048M ",
        "inputs_embeds:1x9x",
    ):
        assert part in line
    assert line.count("--minShapes=") == line.count("--maxShapes=") == 2


def test_command_line(nano, capsys):
    assert (
        main(["tensorrt", str(nano.directory), "--print-only", "--graph", "dus/mask_decoder"]) == 0
    )
    assert "--minShapes=pix_feat_mem:1x" in capsys.readouterr().out
    assert main(["tensorrt", str(nano.directory), "--max-objects", "0"]) == 2
    assert main(["tensorrt", str(nano.directory), "--graph", "nothing", "--print-only"]) == 1


def test_without_the_library():
    code = (
        "import sys; sys.modules['tensorrt'] = None\n"
        "from omni_sdk.engines.select import open_loader\n"
        "from omni_sdk.errors import BackendUnavailableError\n"
        "try:\n    open_loader('tensorrt')\n"
        "except BackendUnavailableError as e:\n    print(e)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "omni-sdk[tensorrt]" in run.stdout
    with pytest.raises(ValueError, match="providers="):
        open_loader("tensorrt", providers=["CPUExecutionProvider"])


# the library's and the driver's calls, recorded


class FakeDriver:
    """libcuda whose device memory is a dict of ctypes buffers."""

    def __init__(self, fail=None, free=1 << 30):
        self.fail, self.free, self.calls, self.memory = fail, free, [], {}
        self.version, self.downloaded, self.uploaded, self.allocations = 13000, [], [], 0

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append(name)
            if name == self.fail:
                return 2
            method = getattr(type(self), f"do_{name}", None)
            return 0 if method is None else int(method(self, *arguments))

        return call

    @staticmethod
    def _set(pointer, value):
        pointer._obj.value = value

    def do_cuDeviceGetAttribute(self, out, code, _):
        self._set(out, {75: 8, 76: 7}[code.value])
        return 0

    def do_cuDriverGetVersion(self, out):
        self._set(out, self.version)
        return 0

    def do_cuMemGetInfo_v2(self, free, total):
        self._set(free, self.free)
        return 0

    def do_cuGetErrorString(self, _, text):
        self._set(text, b"out of memory")
        return 0

    def do_cuMemAlloc_v2(self, out, size):
        self.allocations += 1
        block = ctypes.create_string_buffer(size.value)
        self.memory[ctypes.addressof(block)] = block
        self._set(out, ctypes.addressof(block))
        return 0

    def do_cuMemFree_v2(self, pointer):
        del self.memory[pointer.value]
        return 0

    def do_cuMemcpyHtoDAsync_v2(self, target, source, size, _):
        self.uploaded.append(size.value)
        ctypes.memmove(target.value, source.value, size.value)
        return 0

    def do_cuMemcpyDtoHAsync_v2(self, target, source, size, _):
        self.downloaded.append(size.value)
        ctypes.memmove(target.value, source.value, size.value)
        return 0


class FakeContext:
    """Computes y = table[ids] (grs/embed) on the fake device memory."""

    def __init__(self, hidden):
        self.hidden, self.shape, self.addresses, self.profile = hidden, None, {}, None

    def set_optimization_profile_async(self, index, stream):
        self.profile = index
        return True

    def set_input_shape(self, name, shape):
        self.shape = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        return (*self.shape, self.hidden)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        n = int(np.prod(self.shape))
        ids = np.ctypeslib.as_array((ctypes.c_int64 * n).from_address(self.addresses["input_ids"]))
        out = (ctypes.c_float * (n * self.hidden)).from_address(self.addresses["embeds"])
        np.ctypeslib.as_array(out)[:] = np.repeat(ids.astype(np.float32), self.hidden)
        return True


class FakeDecoder:
    """present = past and x, one after the other; logits = the sum over present; on the fake memory."""

    def __init__(self):
        self.shapes, self.addresses = {}, {}

    def set_optimization_profile_async(self, index, stream):
        return True

    def set_input_shape(self, name, shape):
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        x, past = self.shapes["x"], self.shapes["past"]
        return (1, 2) if name == "logits" else (1, past[1] + x[1], 2)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        def view(name, shape):
            n = int(np.prod(shape))
            place = (ctypes.c_float * n).from_address(self.addresses[name])
            return np.ctypeslib.as_array(place).reshape(shape)

        assert self.addresses["past"] != self.addresses["present"]
        x, past = view("x", self.shapes["x"]), view("past", self.shapes["past"])
        present = np.concatenate([past, x], axis=1)
        view("present", present.shape)[:] = present
        view("logits", (1, 2))[:] = present.sum(axis=1)
        return True


DECODER = GraphSpec(
    "d.onnx",
    (TensorSpec("x", "float32", (1, "n", 2)), TensorSpec("past", "float32", (1, "p", 2))),
    (TensorSpec("logits", "float32", (1, 2)), TensorSpec("present", "float32", (1, "t", 2))),
)


def _decoder(driver):
    names = {"x": "IN", "past": "IN", "logits": "OUT", "present": "OUT"}
    library, _ = fake_tensorrt("11.4")
    engine = SimpleNamespace(
        num_io_tensors=4,
        get_tensor_name=list(names).__getitem__,
        get_tensor_mode=names.__getitem__,
        create_execution_context=FakeDecoder,
    )
    shapes = {"x": ((1, 1, 2), (1, 1, 2), (1, 9, 2)), "past": ((1, 0, 2), (1, 9, 2), (1, 500, 2))}
    return TensorRTEngine(
        library, engine, Device(0, driver), "d", DECODER, [Profile("all", shapes)]
    )


def test_a_cache_stays_on_the_device():
    driver = FakeDriver()
    engine = _decoder(driver)
    first = {"past": np.zeros((1, 0, 2), np.float32)}
    linked = start_linked(engine, {"present": "past"}, first)
    assert isinstance(linked, TensorRTLinks)
    plain = _NumpyLinks(engine, {"present": "past"}, first)
    rng = np.random.default_rng(0)
    allocations = 0
    for step in range(120):
        x = rng.standard_normal((1, 7 if step == 0 else 1, 2)).astype(np.float32)
        driver.downloaded.clear()
        driver.uploaded.clear()
        before = driver.allocations
        found = linked.run({"x": x})
        allocations += driver.allocations - before
        assert set(found) == {"logits"}
        assert driver.downloaded == [8]  # the logits and nothing else
        assert driver.uploaded == [x.nbytes]
        expected = plain.run({"x": x})["logits"]
        np.testing.assert_array_equal(found["logits"], expected)
    assert allocations < 40  # buffers grow by a share, not by a token
    with pytest.raises(EngineError, match="inputs"):
        linked.run({"x": x, "past": first["past"]})
    with pytest.raises(EngineError, match="x is float64"):
        linked.run({"x": x.astype(np.float64)})
    del linked, plain, engine
    gc.collect()
    assert driver.memory == {}


def test_a_cache_that_outgrows_the_profile():
    linked = start_linked(
        _decoder(FakeDriver()), {"present": "past"}, {"past": np.zeros((1, 499, 2), np.float32)}
    )
    x = np.ones((1, 1, 2), np.float32)
    for _ in range(2):
        linked.run({"x": x})
    with pytest.raises(EngineError, match="no profile holds"):
        linked.run({"x": x})


def test_no_memory_for_a_cache():
    driver = FakeDriver(free=99)
    linked = start_linked(
        _decoder(driver), {"present": "past"}, {"past": np.zeros((1, 0, 2), np.float32)}
    )
    driver.fail = "cuMemAlloc_v2"
    with pytest.raises(EngineError, match="99 are free: pass memory_budget"):
        linked.run({"x": np.ones((1, 1, 2), np.float32)})


def test_a_driver_that_is_too_old(tmp_path, monkeypatch):
    driver, (library, _) = FakeDriver(), fake_tensorrt("11.4.0")
    driver.version = 12040
    monkeypatch.setattr(tensorrt_api, "built_for_cuda", lambda: 13)
    with pytest.raises(EngineError, match=r"runs CUDA up to 12.4, TensorRT 11.4.0 .*tensorrt-cu12"):
        _loader(tmp_path, library, driver)
    driver.version = 13000
    assert _loader(tmp_path, library, driver).device == "cuda:0"
    monkeypatch.undo()
    tensorrt_api.check_driver(library, (1, 0), None)  # JetPack's packages fit its driver
    with pytest.raises(EngineError, match="cuDriverGetVersion failed"):
        _ = Device(0, FakeDriver(fail="cuDriverGetVersion")).cuda_version


BUILD = """
import json, sys, time
from pathlib import Path
from omni_export import tensorrt_build
from omni_sdk.bundle.bundle import Bundle, embedded
from omni_sdk.engines import cuda, tensorrt_api
from omni_sdk.engines.plans import BuildFlags, PlanCache
from omni_sdk.graphs.profiles import ShapeLimits
from types import SimpleNamespace
folder = Path(sys.argv[1])

def build(trt, graph, profiles, flags, timing):
    with (folder / "builds.txt").open("a") as log:
        log.write(sys.argv[2] + " begins\\n")
    if sys.argv[2] == "dies":
        import os
        os._exit(9)  # as the kernel ends a process that takes too much memory
    time.sleep(1.0)
    with (folder / "builds.txt").open("a") as log:
        log.write(sys.argv[2] + " ends\\n")
    return b"PLAN of " + graph.read_bytes()[:100]

tensorrt_api.build_plan = build
nano = Bundle.open(embedded("nano"))
requests = tensorrt_build.plan_requests(nano, ["grs/embed"], ShapeLimits(), BuildFlags())
print("ready", flush=True)
sys.stdin.readline()
(path,) = tensorrt_build.build_plans(
    nano, requests, PlanCache(folder / "plans"),
    trt=SimpleNamespace(__version__="11.4"), compute_capability="8.7",
)
print(path.read_bytes()[:4].decode(), flush=True)
"""


def _builder(folder, name):
    command = [sys.executable, "-c", BUILD, str(folder), name]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE
    )


def _go(process):
    process.stdin.write("go\n")
    process.stdin.flush()


def test_two_processes_build_the_same_plan(tmp_path):
    """One builds; the other waits and takes its plan. A builder that dies leaves nothing in the way."""
    dying = _builder(tmp_path, "dies")
    assert dying.stdout.readline() == "ready\n"
    dying.communicate("go\n", timeout=60)
    assert dying.returncode == 9
    builders = [_builder(tmp_path, name) for name in ("a", "b")]
    try:
        for process in builders:
            assert process.stdout.readline() == "ready\n"
        for process in builders:
            _go(process)
        for process in builders:
            out, errors = process.communicate(timeout=60)
            assert (out, process.returncode) == ("PLAN\n", 0), errors
    finally:
        for process in builders:
            process.kill()
    lines = (tmp_path / "builds.txt").read_text().split("\n")[:-1]
    assert lines[0] == "dies begins"
    assert len(lines) == 3
    assert lines[1:] in (["a begins", "a ends"], ["b begins", "b ends"])
    left = {path.suffix for path in (tmp_path / "plans").iterdir()}
    assert left <= {".plan", ".json", ".lock"}
    assert not list((tmp_path / "plans").glob(".*"))


def fake_tensorrt(
    version, *, parses=True, plan=b"PLAN", tensors=("input_ids", "embeds"), hidden=128
):
    """A library of the shape of tensorrt's Python API that writes down what it is told."""
    told = SimpleNamespace(flags=None, profiles=[], workspace=None, level=None, cache=None)

    def create_network(flags=0):
        told.flags = flags
        return object()

    class Config:
        def set_memory_pool_limit(self, pool, size):
            told.workspace = size

        def create_timing_cache(self, content):
            told.cache = content
            return SimpleNamespace(serialize=lambda: b"measured")

        def set_timing_cache(self, cache, ignore_mismatch):
            self.cache = cache
            return True

        def get_timing_cache(self):
            return self.cache

        def add_optimization_profile(self, profile):
            told.profiles.append(profile)
            return len(told.profiles) - 1

        def __setattr__(self, name, value):
            if name == "builder_optimization_level":
                told.level = value
            object.__setattr__(self, name, value)

    class Ranges(dict):
        def set_shape(self, name, low, usual, high):
            self[name] = (low, usual, high)

    def parse_from_file(path):
        told.path = path
        return parses

    engine = SimpleNamespace(
        num_io_tensors=len(tensors),
        get_tensor_name=lambda i: tensors[i],
        get_tensor_mode=lambda n: "IN" if n == "input_ids" else "OUT",
        create_execution_context=lambda: FakeContext(hidden),
    )
    strongly = {} if version.startswith("11") else {"STRONGLY_TYPED": 1}
    library = SimpleNamespace(
        __version__=version,
        Logger=type("Logger", (), {"WARNING": 1, "__init__": lambda self, level: None}),
        Builder=lambda logger: SimpleNamespace(
            create_network=create_network,
            create_builder_config=Config,
            create_optimization_profile=Ranges,
            build_serialized_network=lambda network, config: plan,
        ),
        OnnxParser=lambda network, logger: SimpleNamespace(
            parse_from_file=parse_from_file, num_errors=1, get_error=lambda i: "bad node 7"
        ),
        Runtime=lambda logger: SimpleNamespace(
            deserialize_cuda_engine=lambda plan: engine if plan == b"PLAN" else None
        ),
        NetworkDefinitionCreationFlag=SimpleNamespace(**strongly),
        MemoryPoolType=SimpleNamespace(WORKSPACE=0),
        TensorIOMode=SimpleNamespace(INPUT="IN", OUTPUT="OUT"),
    )
    return library, told


def _built(nano, tmp_path, version="10.3.0.30", graph="grs/embed", **options):
    library, told = fake_tensorrt(version, **options)
    cache = PlanCache(tmp_path / "plans")
    requests = plan_requests(nano, [graph], ShapeLimits(), BuildFlags(workspace_mb=7))
    said = []
    paths = build_plans(
        nano, requests, cache, trt=library, compute_capability="8.7", progress=said.append
    )
    return library, told, cache, paths, said


@pytest.mark.parametrize(("version", "flags"), [("10.3.0.30", 2), ("11.4.0.106", 0)])
def test_building(nano, tmp_path, version, flags):
    _, told, cache, (path,), said = _built(nano, tmp_path, version)
    assert (told.flags, told.workspace, told.level) == (flags, 7 << 20, 3)
    assert told.path == str(nano.path("grs/embed.onnx"))
    (ranges,) = told.profiles
    assert ranges["input_ids"][0] == (1, 1)
    assert path.read_bytes() == b"PLAN"
    assert said == ["building grs/embed (minutes)"]
    # the second build finds the plan, and the timing cache is there for others
    *_, again = _built(nano, tmp_path, version)
    assert again == ["grs/embed: its plan is there"]
    assert next(cache.directory.glob("timing-*")).read_bytes() == b"measured"


@pytest.mark.parametrize("refuses", ["null", "mismatch", "raises"])
def test_a_timing_cache_that_is_not_taken(nano, tmp_path, refuses):
    """Half-written, or of another TensorRT: kernels are measured anew, and the file is replaced."""
    library, _ = fake_tensorrt("11.4")
    (profiles,) = (graph_profiles(nano, "grs/embed", ShapeLimits()),)
    path = tmp_path / "timing.cache"
    path.write_bytes(b"half of a")

    class Config:
        def set_memory_pool_limit(self, pool, size):
            pass

        def create_timing_cache(self, content):
            if content and refuses == "raises":
                raise RuntimeError("bad magic number")
            fresh = SimpleNamespace(content=content, serialize=lambda: b"measured")
            return None if content and refuses == "null" else fresh

        def set_timing_cache(self, cache, ignore_mismatch):
            self.cache = cache
            return not cache.content

        def get_timing_cache(self):
            assert self.cache.content == b""
            return self.cache

        def add_optimization_profile(self, profile):
            return 0

    builder = library.Builder(None)
    builder.create_builder_config = Config
    library.Builder = lambda logger: builder
    file = nano.path("grs/embed.onnx")
    assert tensorrt_api.build_plan(library, file, profiles, BuildFlags(), path) == b"PLAN"
    assert path.read_bytes() == b"measured"
    assert [p.name for p in tmp_path.iterdir()] == ["timing.cache"]


def test_a_timing_cache_that_cannot_be_kept(nano, tmp_path, monkeypatch):
    library, _ = fake_tensorrt("11.4")
    (tmp_path / "file").write_text("")
    profiles = graph_profiles(nano, "grs/embed", ShapeLimits())
    where = tmp_path / "file" / "timing.cache"
    file = nano.path("grs/embed.onnx")
    assert tensorrt_api.build_plan(library, file, profiles, BuildFlags(), where) == b"PLAN"


@pytest.mark.parametrize("part", ["Builder", "Runtime"])
def test_cuda_that_does_not_start(nano, tmp_path, part):
    """TensorRT's constructors return null, e.g. with a driver that is too old."""
    library, *_ = _built(nano, tmp_path)

    def null(logger):
        raise TypeError("pybind11::init(): factory function returned nullptr")

    setattr(library, part, null)
    loader = _loader(tmp_path, library)
    call = {"Runtime": loader.load, "Builder": loader.build}[part]
    with pytest.raises(EngineError, match="CUDA did not start: the driver may be older"):
        call(nano, {"Runtime": "grs/embed", "Builder": "grs/audio"}[part])


def test_the_command_line_asks_for_the_driver_first(nano, tmp_path, monkeypatch, capsys):
    driver, (library, told) = FakeDriver(), fake_tensorrt("11.4.0")
    monkeypatch.setattr(tensorrt_api, "load_library", lambda: library)
    monkeypatch.setattr(tensorrt_api, "built_for_cuda", lambda: 13)
    monkeypatch.setattr(cuda, "Device", lambda index: Device(index, driver))
    command = ["tensorrt", str(nano.directory), "--graph", "grs/embed"]
    command += ["--cache", str(tmp_path / "plans")]
    driver.version = 12040
    assert main(command) == 1
    assert "runs CUDA up to 12.4, TensorRT 11.4.0" in capsys.readouterr().err
    assert told.flags is None
    driver.version = 13000
    assert main(command) == 0
    printed = capsys.readouterr().out
    (timing,) = (tmp_path / "plans").glob("timing-*")
    assert f"--timingCacheFile={timing}" in printed  # the file that was used


def test_plans_of_other_limits_are_found(nano, tmp_path):
    """`omni-export tensorrt --max-prompt 9 --workspace-mb 7` builds what a plain run loads."""
    library, _ = fake_tensorrt("11.4")
    cache = PlanCache(tmp_path / "plans")
    small, large = ShapeLimits(max_prompt=9), ShapeLimits(max_prompt=99)
    for age, limits in ((2, large), (1, small)):
        requests = plan_requests(nano, ["grs/embed"], limits, BuildFlags(workspace_mb=age))
        (path,) = build_plans(nano, requests, cache, trt=library, compute_capability="8.7")
        os.utime(path, ns=(10**9 - age, 10**9 - age))

    def load(**options):
        loader = TensorRTLoader(library=library, driver=FakeDriver(), cache=cache, **options)
        return loader.load(nano, "grs/embed")

    ids = np.zeros((1, 50), np.int64)
    engine = load()
    with pytest.raises(EngineError, match="no profile holds"):
        engine.run({"input_ids": ids})
    assert load(limits=large).run({"input_ids": ids})["embeds"].shape == (1, 50, 128)
    # it was used last: it is what a run without wishes takes from now on
    again = load()
    assert again.run({"input_ids": ids})["embeds"].shape == (1, 50, 128)
    assert engine.fingerprint != again.fingerprint  # the gate checks each
    with pytest.raises(EngineError, match="profiles: not those of this bundle"):
        load(limits=ShapeLimits(max_prompt=5))
    with pytest.raises(EngineError, match="flags: expected"):
        load(limits=large, flags=BuildFlags(workspace_mb=3))
    other, _ = fake_tensorrt("11.5")
    with pytest.raises(EngineError, match=r"tensorrt: expected 11.5, found 11.4"):
        TensorRTLoader(library=other, driver=FakeDriver(), cache=cache).load(nano, "grs/embed")


def test_the_command_that_builds_what_is_missing(nano, tmp_path):
    spec = nano.graph("grs/embed")
    half = GraphVariant("grs/embed_fp16.onnx", "float16", ("onnx", "tensorrt"))
    file = nano.manifest.files[spec.file]
    bundle = dataclasses.replace(
        nano,
        manifest=dataclasses.replace(
            nano.manifest,
            graphs=nano.manifest.graphs
            | {"grs/embed": dataclasses.replace(spec, variants={"fp16": half})},
            files=nano.manifest.files | {half.file: file},
        ),
    )
    library, _ = fake_tensorrt("11.4")
    expected = rf"run: omni-export tensorrt .*{re.escape(bundle.directory.name)} --graph grs/embed"
    with pytest.raises(EngineError, match=rf"{expected}$"):
        _loader(tmp_path, library).load(bundle, "grs/embed")
    with pytest.raises(EngineError, match=rf"{expected} --variant fp16 --device 1$"):
        _loader(tmp_path, library, device="cuda:1").load(bundle.with_variants("fp16"), "grs/embed")


def test_records_without_profiles():
    for text in ("{", "[]x", "[1]", '[["a", 1]]'):
        with pytest.raises(EngineError, match="holds no profiles"):
            read_profiles(text)


def test_builds_that_fail(nano, tmp_path):
    with pytest.raises(EngineError, match="bad node 7"):
        _built(nano, tmp_path, parses=False)
    with pytest.raises(EngineError, match="could not build"):
        _built(nano, tmp_path, plan=None)
    assert not list((tmp_path / "plans").glob("*.plan"))
    assert tensorrt_api.major_version("x") == 0


def _loader(tmp_path, library, driver=None, **options):
    return TensorRTLoader(
        library=library,
        driver=driver or FakeDriver(),
        cache=PlanCache(tmp_path / "plans"),
        flags=BuildFlags(workspace_mb=7),
        **options,
    )


def test_running(nano, tmp_path):
    library, *_ = _built(nano, tmp_path)
    driver = FakeDriver()
    loader = _loader(tmp_path, library, driver)
    assert (loader.backend, loader.device) == ("tensorrt", "cuda:0")
    engine = loader.load(nano, "grs/embed")
    for length in (3, 50, 2):
        ids = np.arange(length)[None]
        out = engine.run({"input_ids": ids})["embeds"]
        np.testing.assert_array_equal(out, np.repeat(ids, 128).reshape(1, length, 128))
        assert out.dtype == np.float32
    assert driver.calls[-2:] == ["cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"]
    with pytest.raises(EngineError, match="no profile holds"):
        engine.run({"input_ids": np.zeros((2, 3), np.int64)})
    with pytest.raises(EngineError, match="input_ids is int32, expected int64"):
        engine.run({"input_ids": np.zeros((1, 3), np.int32)})
    del engine, loader
    assert driver.memory == {}


def test_a_plan_that_does_not_fit_is_found_before_it_is_read(nano, tmp_path):
    library, _, cache, *_ = _built(nano, tmp_path)
    newer, _ = fake_tensorrt("11.4.0")
    newer.Runtime = None  # deserialising would fail loudly
    with pytest.raises(
        EngineError, match=r"tensorrt: expected 11.4.0, found 10.3.0.30.*omni-export tensorrt"
    ):
        _loader(tmp_path, newer).load(nano, "grs/embed")
    with pytest.raises(EngineError, match="no plan of grs/audio"):
        _loader(tmp_path, library).load(nano, "grs/audio")
    next(cache.directory.glob("*.plan")).write_bytes(b"PLAM")
    with pytest.raises(EngineError, match="omni-export tensorrt"):
        _loader(tmp_path, library).load(nano, "grs/embed")


def test_a_plan_of_other_tensors(nano, tmp_path):
    library, *_ = _built(nano, tmp_path, tensors=("input_ids", "other"))
    with pytest.raises(BundleError, match="the plan's tensors"):
        _loader(tmp_path, library).load(nano, "grs/embed")


def test_driver_errors(tmp_path):
    with pytest.raises(EngineError, match="cuDeviceGet failed with code 2: out of memory"):
        Device(9, FakeDriver(fail="cuDeviceGet"))
    device = Device(0, FakeDriver(fail="cuMemAlloc_v2", free=77))
    with pytest.raises(EngineError, match="1000 bytes were asked for, 77 are free"):
        device.allocate(1000)
    for wrong in ("cpu", "cuda:x"):
        with pytest.raises(ValueError, match="device must be"):
            _loader(tmp_path, fake_tensorrt("10.0")[0], device=wrong)


def test_buffers_grow_and_are_reused():
    driver = FakeDriver()
    pool = BufferPool(Device(0, driver))
    first = pool.get("x", 0).address
    assert pool.get("x", 256).address == first
    pool.get("x", 1000)
    assert [len(block) for block in driver.memory.values()] == [1000]


def test_no_driver_here():
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        with pytest.raises(BackendUnavailableError, match="NVIDIA driver"):
            Device(0)
    else:
        pytest.skip("this machine has an NVIDIA driver")
