"""Execution providers from the command line."""

import argparse

import pytest

from omni_sdk.cli import main
from omni_sdk.cli.common import read_providers
from omni_sdk.errors import EngineError
from omni_sdk.pipeline import Pipeline


def _read(*texts, backend="auto"):
    return read_providers(argparse.Namespace(provider=list(texts), backend=backend))


def test_names_and_options():
    assert _read() is None
    assert _read("TensorrtExecutionProvider", "CUDAExecutionProvider:a=1,b=x=y") == (
        ("TensorrtExecutionProvider", {}),
        ("CUDAExecutionProvider", {"a": "1", "b": "x=y"}),
    )
    for wrong in ("X:a", "X:=1", "X:a=1,b"):
        with pytest.raises(EngineError, match="expected NAME"):
            _read(wrong)
    for backend in ("tensorrt", "torch"):
        assert _read(backend=backend) is None
        with pytest.raises(EngineError, match=f"not for --backend {backend}"):
            _read("CPUExecutionProvider", backend=backend)
    with pytest.raises(ValueError, match="providers="):
        Pipeline.from_pretrained("nano", backend="torch", providers=["CPUExecutionProvider"])


def test_a_provider_is_used_or_refused(clips, capsys):
    path, truth = clips["null"]
    command = ["run", str(path), truth.query]
    assert (
        main(
            [*command, "--provider", "CPUExecutionProvider:arena_extend_strategy=kSameAsRequested"]
        )
        == 0
    )
    assert main([*command, "--provider", "NoSuchProvider"]) == 1
    assert "has no NoSuchProvider here" in capsys.readouterr().err
