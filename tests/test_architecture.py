"""Who may import whom, and what a bare import costs."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"numpy", "av", "tokenizers", "torch", "transformers", "onnxruntime", "tensorrt", "trl"}
ENGINES = {"torch", "transformers", "onnxruntime", "tensorrt", "trl", "onnx", "safetensors"}


def _modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def _imports(path: Path, *, top_level_only: bool) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    if top_level_only:
        hidden = {
            id(inner)
            for node in nodes
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or _is_type_checking(node)
            for inner in ast.walk(node)
        }
        nodes = [node for node in nodes if id(node) not in hidden]
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def _roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_bare_import_loads_nothing_heavy() -> None:
    code = f"import sys, omni_sdk, omni_sdk.cli; print(sorted({HEAVY!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "path", _modules(ROOT / "omni_sdk"), ids=lambda p: str(p.relative_to(ROOT))
)
def test_sdk_imports(path: Path) -> None:
    everything = _imports(path, top_level_only=False)
    assert not _roots(everything) & {"omni_export", "omni_training"}
    if path.name != "native.py":
        assert "omni_sdk._core" not in everything
    relative = path.relative_to(ROOT / "omni_sdk").parts
    if relative[0] not in ("engines", "hf"):
        assert not _roots(_imports(path, top_level_only=True)) & ENGINES


@pytest.mark.parametrize(
    ("folder", "other"),
    [("export/omni_export", "omni_training"), ("training/omni_training", "omni_export")],
)
def test_tools_do_not_import_each_other(folder: str, other: str) -> None:
    for path in _modules(ROOT / folder):
        assert other not in _roots(_imports(path, top_level_only=False)), path


def test_each_engine_module_has_one_runtime() -> None:
    for path in _modules(ROOT / "omni_sdk/engines"):
        runtimes = _roots(_imports(path, top_level_only=False)) & {
            "onnxruntime",
            "tensorrt",
            "torch",
        }
        assert len(runtimes) <= 1, path


def test_public_names_resolve() -> None:
    import omni_sdk

    for name in omni_sdk.__all__:
        assert getattr(omni_sdk, name) is not None
    for name, module in omni_sdk._LAZY.items():
        assert hasattr(importlib.import_module(module), name)


def test_native_core_knows_no_python() -> None:
    for path in [*(ROOT / "csrc/src").glob("*"), *(ROOT / "csrc/include").rglob("*.h")]:
        text = path.read_text(encoding="utf-8")
        assert "pybind11" not in text, path
        assert "Python.h" not in text, path
