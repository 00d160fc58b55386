"""Trainers over a tiny random thinker of the real class."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from omni_training.grpo.tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """Return tests/training/tiny_trainer.py, which pytest's import mode does not put on the path."""
    path = Path(__file__).with_name("tiny_trainer.py")
    spec = importlib.util.spec_from_file_location("tiny_trainer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make_trainer(tiny: ModuleType, tiny_checkpoint: Path, tmp_path: Path) -> Callable[..., Any]:
    """Return a maker of trainers; keyword arguments go to GRPOConfig, `trainer` holds the trainer's own."""

    def maker(**options: Any) -> Any:
        return tiny.make(tiny_checkpoint, options.pop("output_dir", tmp_path / "out"), **options)

    return maker
