"""`omni-sdk doctor` runs what is there and says plainly what is not."""

import sys

import pytest

from omni_sdk.bundle.bundle import Bundle, embedded
from omni_sdk.cli import doctor, main
from omni_sdk.engines.tensorrt import TensorRTLoader
from omni_sdk.errors import BackendUnavailableError, EngineError


@pytest.fixture(scope="module")
def nano():
    return Bundle.open(embedded("nano"))


class _Stand:
    """A loader in TensorRT's place; `wrong` adds to the logits."""

    device = "cuda:0"

    def __init__(self, wrong=0.0, error=None):
        self.wrong, self.error, self.built = wrong, error, []

    def build(self, bundle, graph):
        if self.error is not None:
            raise self.error
        self.built.append(graph)

    def load(self, bundle, graph):
        engine, wrong = doctor._cpu().load(bundle, graph), self.wrong

        class Engine:
            def run(self, inputs):
                return {name: value + wrong for name, value in engine.run(inputs).items()}

        return Engine()


@pytest.mark.parametrize(
    ("stand", "state"),
    [
        (_Stand(), "ok"),
        (_Stand(wrong=1.0), "WRONG RESULTS"),
        (_Stand(error=EngineError("could not build")), "fails: could not build"),
        (_Stand(error=BackendUnavailableError("pip install x")), "not installed: pip install x"),
    ],
)
def test_tensorrt_row(nano, monkeypatch, stand, state):
    asked = {}

    def loader(**options):
        asked.update(options)
        return stand

    monkeypatch.setattr("omni_sdk.engines.tensorrt.TensorRTLoader", loader)
    row = doctor.check_tensorrt(nano)
    assert row[2] == state
    assert asked["limits"].max_prompt == 64
    assert stand.built == (["grs/decoder"] if stand.error is None else [])


def test_its_profiles_hold_what_it_runs(nano):
    from omni_sdk.graphs.golden import golden_inputs
    from omni_sdk.graphs.profiles import ShapeLimits, graph_profiles

    limits = ShapeLimits(max_prompt=64, max_new_tokens=16)
    profiles = graph_profiles(nano, doctor.GRAPH, limits)
    for inputs in golden_inputs(nano, doctor.GRAPH).values():
        assert any(p.holds({n: v.shape for n, v in inputs.items()}) for p in profiles)


def test_without_tensorrt(nano, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendUnavailableError):
        TensorRTLoader()
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "tensorrt  -                     not installed" in said
    assert "omni-sdk[tensorrt]" in said
    assert "AzureExecutionProvider" not in said
    assert max(len(line) for line in said.splitlines()[4:7]) < 100


def test_without_any_engine(monkeypatch, capsys):
    def nothing(*_, **__):
        raise BackendUnavailableError("pip install 'omni-sdk[onnx]'")

    monkeypatch.setattr("omni_sdk.engines.select.open_loader", nothing)
    assert main(["doctor"]) == 1
    said = capsys.readouterr()
    assert "fails" in said.out
    assert "no working engine" in said.err


def test_the_device_in_words(monkeypatch):
    fields = ("name", "driver_version", "compute_cap", "memory.total", "memory.free")
    values = ("GPU X", "580.1", "9.0", "80 GiB", "70 GiB")
    monkeypatch.setattr(
        "omni_sdk.utils.devices.nvidia_device", lambda _: dict(zip(fields, values, strict=True))
    )
    assert "GPU X, compute capability 9.0, driver 580.1, 70 GiB of 80" in doctor.describe_device()
