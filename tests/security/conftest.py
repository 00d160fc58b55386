"""The corpus of small media files, the shipped bundle, and a thinker that says what it is told."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from omni_sdk.bundle.bundle import embedded


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def load_helper() -> Callable[[str], ModuleType]:
    """Return a function that imports a module of this folder."""
    return _load


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the unspoiled files of mutations.py by name."""
    mutations = _load("mutations")
    folder = tmp_path_factory.mktemp("corpus")
    return {name: (folder / name).read_bytes() for name in mutations.write_corpus(folder)}


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Return a function that writes bytes to a file and returns its path."""

    def write(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.fixture(scope="session")
def nano() -> Path:
    """Return the directory of the shipped bundle."""
    directory = embedded("nano")
    assert directory is not None
    return directory
