from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from omni_sdk.cli import eval as command
from omni_sdk.cli import main
from omni_sdk.datasets import DATASETS, SPLITS
from omni_sdk.evaluation.plan import DEFAULT_SPLITS, FRAMES_PER_SECOND


def test_names_are_those_of_the_readers() -> None:
    assert set(command.RUNNABLE) == set(SPLITS) == set(DEFAULT_SPLITS) == set(FRAMES_PER_SECOND)
    assert set(command.CHECKABLE) == set(DATASETS)
    assert all(split in SPLITS[name] for name, split in DEFAULT_SPLITS.items())


def test_check(revos_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "check.json"
    assert main(["eval", "check", "revos", str(revos_root), "--json", str(report)]) == 0
    assert json.loads(report.read_text())["counts"]["valid: expressions"] == 4
    assert main(["eval", "check", "revos", str(tmp_path)]) == 1
    assert "incomplete" in capsys.readouterr().out


def test_a_finished_run_writes_its_results(whole: Any, capsys: pytest.CaptureFixture[str]) -> None:
    out = Path(whole.plan.out)
    options = ["--out", str(out), "--fps", "2", "--clips", "1"]
    assert main(["eval", "run", "revos", whole.plan.root, *options]) == 0
    printed = capsys.readouterr()
    assert "4 of 4 expressions were done before" in printed.err
    assert "overall" in printed.out
    results = json.loads((out / "results.json").read_text())
    assert results["num_expressions"] == 4
    assert results["run"]["statuses"]["absent"] >= 1
    assert results["summary"]["overall"]["jf"] == whole.results.summary.overall.jf
    assert (out / "report.html").stat().st_size > 1000


@pytest.mark.parametrize(
    "options",
    [["--shard", "2/2"], ["--limit", "0"], ["--clips", "-1"], ["--values", "7"], []],
)
def test_wrong_usage(options: list[str], tmp_path: Path) -> None:
    out = ["--out", str(tmp_path)] if options else []
    with pytest.raises(SystemExit) as stopped:
        main(["eval", "revos", str(tmp_path), *out, *options])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "nowhere"], "expected a data set and its split"),
        (["--fps", "-1"], "fps must be above 0"),
        (["--temperature", "-1"], "temperature must be"),
        ([], "meta_expressions_valid_.json"),
    ],
)
def test_errors_are_one_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "revos", str(tmp_path), "--out", str(tmp_path / "o"), *options]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "note:" not in line]
    assert len(lines) == 1
    assert message in lines[0]
