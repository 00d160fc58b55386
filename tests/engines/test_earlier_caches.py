"""What versions before 0.2 kept in ~/.cache/omni-sdk still counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omni_sdk.bundle.bundle import Bundle, embedded
from omni_sdk.engines.base import Engine
from omni_sdk.engines.gate import GatedLoader
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.engines.plans import BuildFlags, PlanCache, plan_directory, plan_key

GRAPH = "grs/embed"


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The old place, with the new one where XDG_CACHE_HOME says."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("OMNI_SDK_CACHE", raising=False)
    return tmp_path / ".cache" / "omni-sdk"


@pytest.fixture
def nano() -> Bundle:
    path = embedded("nano")
    assert path is not None
    return Bundle.open(path)


class _Counting(OnnxLoader):
    """Counts how often a graph runs."""

    calls = 0

    def load(self, bundle: Bundle, graph: str) -> Any:
        engine: Engine = super().load(bundle, graph)
        run = engine.run

        def counted(inputs: Any) -> Any:
            self.calls += 1
            return run(inputs)

        engine.run = counted  # type: ignore[method-assign]
        return engine


def test_a_graph_that_passed_is_not_run_again(earlier: Path, nano: Bundle, tmp_path: Path) -> None:
    loader = _Counting("cpu", threads=1)
    GatedLoader(loader, directory=earlier / "parity").load(nano, GRAPH)
    assert loader.calls == 1
    GatedLoader(loader).load(nano, GRAPH)
    assert loader.calls == 1
    (passed,) = (tmp_path / "xdg" / "omni_sdk" / "parity").iterdir()
    passed.unlink()
    GatedLoader(loader).load(nano, GRAPH)
    assert loader.calls == 2


def test_a_plan_is_found_and_a_new_one_lies_in_the_new_place(
    earlier: Path, nano: Bundle, tmp_path: Path
) -> None:
    def key(tensorrt: str) -> Any:
        return plan_key(nano, GRAPH, (), BuildFlags(), tensorrt=tensorrt, compute_capability="8.7")

    PlanCache(earlier / "plans").store(key("10.3"), b"a plan")
    cache = PlanCache(plan_directory())
    assert cache.find(key("10.3")) == b"a plan"
    assert cache.store(key("11.0"), b"another").parent == tmp_path / "xdg/omni_sdk/plans"
