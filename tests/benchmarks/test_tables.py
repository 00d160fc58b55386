"""The README's tables follow from committed results, and every benchmark can write such results."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
LIBRARIES = {"harness", "propagation_clips", "random_models", "sampling_clips", "sampling_peers"}
PROGRAMS = sorted(p for p in FOLDER.glob("*.py") if p.stem not in {*LIBRARIES, "tables"})
RESULTS = sorted((FOLDER / "results").glob("*.json"))

ENOUGH = 6
"""So many cells with a number make a table numeric."""
TYPED = {
    "Checks that wait for a GPU": "prose: what was not run has no result; the digits are names and versions",
    "Log of speed changes": "prose: one-off comparisons with code that is gone; none can be run again",
}
"""Sections whose numeric tables are typed by hand, and why."""


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", FOLDER / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_follow_from_their_results(tables: ModuleType) -> None:
    blocks = []
    for readme in tables.READMES:
        text = readme.read_text(encoding="utf-8")
        assert tables.rewrite(text) == text, f"{readme}: run benchmarks/tables.py"
        blocks += [block[2] for block in tables.BLOCK.finditer(text)]
        assert text.count("<!-- table:") == text.count("<!-- end -->")
    assert sorted(blocks) == [p.stem for p in RESULTS], "each result is shown once"


def numeric_tables(text: str) -> Iterator[str]:
    """Yield the section of each Markdown table of `ENOUGH` numeric cells or more, below its header."""
    section = ""
    for part in re.split(r"\n\n+", text):
        lines = part.splitlines()
        section = next((n[3:] for n in lines[::-1] if n.startswith("## ")), section)
        body = [line.split("|")[1:-1] for line in lines if line.startswith("|")][2:]
        if sum(bool(re.search(r"\d", cell)) for cells in body for cell in cells) >= ENOUGH:
            yield section


def test_numeric_tables_are_made_from_results(tables: ModuleType) -> None:
    typed = [
        section
        for readme in tables.READMES
        for section in numeric_tables(tables.BLOCK.sub("", readme.read_text(encoding="utf-8")))
    ]
    assert set(typed) == set(TYPED), "make the table from benchmarks/results, see tables.py"


def test_a_table_outside_a_block_is_found(tables: ModuleType) -> None:
    table = "| a | b |\n|---|---|\n| 1 | 2 |\n| .3 | **4x** |\n| 5 ms | 6 / 7 |\n"
    words = "| a | b |\n|---|---|\n" + "| word | **not run** |\n" * 6
    marked = f"<!-- table: t -->\n{table}<!-- end -->\n"
    text = f"# T\n\n## One\n\n{words}\n{marked}\n## Two\n\nText:\n{table}\n## Three\n\n{table}"
    assert list(numeric_tables(tables.BLOCK.sub("", text))) == ["Two", "Three"]
    assert list(numeric_tables(table.replace("5 ms", "ms"))) == []


def test_a_number_typed_by_hand_is_found(tables: ModuleType, tmp_path: Path) -> None:
    rows = [{"case": "a", "implementation": "b", "wall_s": 0.0123}]
    for name in ("templates", "results"):
        (tmp_path / name).mkdir()
    (tmp_path / "templates" / "t.md").write_text("| {a; b; wall_s*1000: .1f} ms |\n")
    (tmp_path / "results" / "t.json").write_text(json.dumps({"rows": rows}))
    readme = "x\n<!-- table: t -->\n| 12.4 ms |\n<!-- end -->\ny\n"
    assert tables.rewrite(readme, tmp_path) == readme.replace("12.4", "12.3")


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (8.84, "=2", "8.8"),
        (33.2, "=2", "33"),
        (2.0, "=2", "2.0"),
        (0.0, "=2", "0.0"),
        (0.98, "~.2f", ".98"),
        (1.0, "~.2f", "1.00"),
        (-0.5, "~.1f", "-.5"),
        (50, "d", "50"),
        (2e-5, ".0e", "2e-5"),
        (1.3e-12, ".1e", "1.3e-12"),
    ],
)
def test_formats(tables: ModuleType, value: float, form: str, text: str) -> None:
    assert tables.shown(value, form) == text


@pytest.mark.parametrize(
    "reference", ["{other; b; wall_s: .1f}", "{a; b; cpu_s: .1f}", "{a; c; wall_s: .1f}"]
)
def test_what_is_missing_is_told(tables: ModuleType, reference: str) -> None:
    rows = [{"case": "a", "implementation": "b", "wall_s": 1.0}, {"case": "c"}]
    with pytest.raises(tables.TableError, match="needed"):
        tables.fill(reference, rows)


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_results_have_the_schema(path: Path) -> None:
    results = json.loads(path.read_text(encoding="utf-8"))
    assert results["benchmark"]
    assert results.keys() >= {"benchmark", "environment", "rows", "bars"}
    assert all(row.keys() >= {"case", "implementation"} for row in results["rows"])
    assert "origin" in results or "time" in results["environment"], "measured, or said to be typed"


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_every_benchmark_writes_results(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "make_parser(" in text
    assert ".finish(arguments.json)" in text
