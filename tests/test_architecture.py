"""Who may import whom, and what a bare import costs. CONTRIBUTING draws the same table."""

from __future__ import annotations

import ast
import importlib
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"numpy", "av", "tokenizers", "torch", "transformers", "onnxruntime", "tensorrt", "trl"}
ENGINES = {"torch", "transformers", "onnxruntime", "tensorrt", "trl", "onnx", "safetensors"}


LAYERS: dict[str, tuple[str, ...]] = {
    "omni_sdk": (
        "errors _version _core",
        "native utils",
        "config",
        "media bundle",
        "graphs",
        "engines stages",
        "grs",
        "dus",
        "output hf",
        "results metrics",
        "events datasets loading",
        "pipeline",
        "demo bench evaluation",
        "omni_sdk",
        "cli",
    ),
    "omni_export": (
        "draft samples clips constants gptq fused_attention fused_decoder targets "
        "tensorrt_operators thinker_graphs",
        "onnx_export calibration parity sam2_parity embedding_table tensorrt_build",
        "precision variant_quality sam2_graphs thinker_export",
        "bundle_writer variants",
        "omni_export cli",
    ),
    "omni_training": (
        "factories rewards",
        "workers",
        "data",
        "grpo",
        "nano experiment",
        "omni_training cli",
    ),
}
"""Rows from the lowest up: a module or folder imports from rows below its own, and from itself.

Imports inside functions and for type checkers count as well. The name of a package is its `__init__`.
"""

PACKAGES = {
    "omni_sdk": ROOT / "omni_sdk",
    "omni_export": ROOT / "export/omni_export",
    "omni_training": ROOT / "training/omni_training",
}

ACROSS: dict[str, dict[str, set[str]]] = {
    "omni_sdk": {},
    "omni_export": {"omni_sdk": set()},
    "omni_training": {"omni_sdk": set(), "omni_export": {"omni_training.nano.command"}},
}
"""Package -> the packages that it may import, and from which modules alone (none named: from all)."""

MAX_ROOT_MODULES = 8


def _modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def _name(package: str, path: Path) -> str:
    parts = path.relative_to(PACKAGES[package]).with_suffix("").parts
    return ".".join((package, *(p for p in parts if p != "__init__")))


FILES = {
    _name(package, path): path
    for package, folder in PACKAGES.items()
    for path in [*_modules(folder), *folder.glob("_core.pyi")]
}


def _targets(name: str) -> set[str]:
    """The files of ours that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found.update(n if n in FILES else node.module for n in inside.values())
    return {target for target in found if target in FILES and target != name}


def _group(name: str) -> tuple[str, str]:
    package, _, rest = name.partition(".")
    return package, rest.partition(".")[0] or package


def _row(name: str) -> int:
    package, group = _group(name)
    return next(n for n, row in enumerate(LAYERS[package]) if group in row.split())


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


def test_every_module_has_its_layer() -> None:
    for package in PACKAGES:
        listed = [group for row in LAYERS[package] for group in row.split()]
        assert len(listed) == len(set(listed))
        assert set(listed) == {_group(name)[1] for name in FILES if _group(name)[0] == package}


@pytest.mark.parametrize("name", sorted(FILES))
def test_imports_run_downwards(name: str) -> None:
    package, group = _group(name)
    for target in _targets(name):
        other, other_group = _group(target)
        if other != package:
            assert other in ACROSS[package], f"{name} imports {target}"
            only = ACROSS[package][other]
            assert not only or name in only, f"{name} imports {target}; only {sorted(only)} may"
        elif other_group != group:
            assert _row(target) < _row(name), f"{name} imports {target}, which lies above it"


def _circle(edges: dict[str, set[str]]) -> list[str]:
    """Return files that import each other in a circle, [] where there is none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for target in sorted(edges.get(name, ())):
            if found := walk(target, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(edges) if (found := walk(name, []))), [])


def test_no_circle_of_files() -> None:
    assert _circle({name: _targets(name) for name in FILES}) == []


def test_a_circle_and_an_import_upwards_are_seen() -> None:
    """The rules above can fail."""
    edges = {name: set(_targets(name)) for name in FILES}
    edges["omni_sdk.media.frames"].add("omni_sdk.results")
    assert {"omni_sdk.media.frames", "omni_sdk.results"} <= set(_circle(edges))
    assert _row("omni_sdk.results") > _row("omni_sdk.media.frames")
    assert "omni_sdk.media.frames" in _targets("omni_sdk.results")
    assert "omni_sdk.output.save" in _targets("omni_sdk.results")  # imported inside a method


def test_contributing_draws_the_layers() -> None:
    """Every folder is in the picture, lower ones further down."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = text.partition("## The house")[2].partition("A folder imports")[0]
    columns = [line[:34].split() for line in picture.splitlines()]
    rows = [row.split() for row in LAYERS["omni_sdk"][:-2]]
    hidden = {"_version", "_core"}
    places = [
        [
            next(n for n, words in enumerate(columns) if name in words)
            for name in row
            if name not in hidden
        ]
        for row in rows
    ]
    assert all(max(above) < min(below) for below, above in itertools.pairwise(places))


def test_the_root_holds_few_modules() -> None:
    modules = {p.stem for p in (ROOT / "omni_sdk").glob("*.py")} - {"__init__", "_version"}
    assert len(modules) <= MAX_ROOT_MODULES, sorted(modules)


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
