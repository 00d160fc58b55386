"""How models are loaded: one set of options, and what is refused before anything is read."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omni_sdk import OmniError, Pipeline
from omni_sdk.bundle.bundle import embedded
from omni_sdk.bundle.memory_plan import parse_bytes
from omni_sdk.config import ModelOptions
from omni_sdk.media.limits import MediaLimits


def test_the_keywords_are_the_options() -> None:
    keywords = inspect.signature(Pipeline.from_pretrained).parameters
    fields = {f.name: f.default for f in dataclasses.fields(ModelOptions)}
    assert {k: p.default for k, p in keywords.items() if k in fields} == fields
    assert set(keywords) - set(fields) == {"name_or_path", "limits"}
    for name in fields:
        assert f"{name}:" in (inspect.getdoc(Pipeline.from_pretrained) or "")
        assert f"{name}:" in (inspect.getdoc(ModelOptions) or "")


def with_torch(options: dict[str, Any], message: str) -> Any:
    """A mistake that is found once torch is there."""
    missing = importlib.util.find_spec("torch") is None
    return pytest.param(options, message, marks=pytest.mark.skipif(missing, reason="needs torch"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device must be"),
        ({"device": "cuda:x"}, "device must be"),
        ({"device": "cpu:0"}, "device must be"),
        with_torch({"device": "gpu", "backend": "torch"}, "device must be"),
        ({"backend": "caffe"}, "backend must be one of"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"tracker": "x"}, "tracker= is for backend='torch'"),
        ({"backend": "tensorrt", "providers": ["X"]}, "providers= is for onnxruntime"),
        ({"backend": "torch", "memory_budget": "8GB"}, "are for bundles"),
        ({"variant": "fp16", "memory_budget": "8GB"}, "one of the two"),
        ({"memory_budget": "much"}, "expected a size"),
        ({"memory_budget": float("nan")}, "above 0"),
        with_torch({"backend": "torch", "tracker": "no such"}, "not a directory"),
        with_torch({"backend": "torch", "tracker": embedded("nano")}, r"config\.json"),
        ({"name_or_path": "x"}, "not a directory"),
        ({"name_or_path": __file__}, "not a directory"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OmniError, match=message) as raised:
        Pipeline.from_pretrained(**options)
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MediaLimits(max_pixels=0),
        lambda: MediaLimits(max_wall_seconds=float("nan")),
        lambda: parse_bytes("ten"),
        lambda: parse_bytes(float("inf")),
    ],
)
def test_numbers_that_are_none(make: Callable[[], object]) -> None:
    with pytest.raises(OmniError, match=r"must be|expected a size"):
        make()


def test_torch_that_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    code = (
        "import sys\nsys.modules['torch'] = None\nfrom omni_sdk import Pipeline\n"
        "from omni_sdk.errors import BackendUnavailableError\n"
        f"try: Pipeline.from_pretrained({str(tmp_path)!r}, backend='torch')\n"
        "except BackendUnavailableError as e: print(e)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'omni-sdk[torch]'" in out.stdout
