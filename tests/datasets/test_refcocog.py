from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_sdk.datasets.refcocog import open_refcocog, parse_row, parse_solution
from omni_sdk.errors import BackendUnavailableError, DatasetError

ROW = {
    "id": "refcocog_1",
    "problem": "the red mug",
    "solution": "<box>(10,20),(110,220)</box><points>(50,60),(70,80)</points>",
    "img_height": 840,
    "img_width": 840,
}


def test_row() -> None:
    row = parse_row(ROW)
    assert (row.row_id, row.expression, row.size) == ("refcocog_1", "the red mug", (840, 840))
    assert row.box_xyxy == (10.0, 20.0, 110.0, 220.0)
    assert row.points_xy == ((50.0, 60.0), (70.0, 80.0))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"id": None}, r"\['id'\]"),
        ({"problem": 3}, r"\['problem'\]: expected str"),
        ({"solution": None}, r"\['solution'\]: expected str"),
        ({"solution": "<box>(1,2),(3,4)</box>"}, r"\['solution'\]: expected <box>"),
        ({"solution": ROW["solution"].replace("110", "1e9")}, "expected <box>"),
        ({"solution": ROW["solution"].replace("110", "9")}, "box with area"),
        ({"solution": ROW["solution"].replace("110", "841")}, "inside 840x840"),
        ({"solution": ROW["solution"].replace("(10,", "(-1,")}, "inside 840x840"),
        ({"img_width": "840"}, r"\['img_width'\]: expected int"),
        ({"img_height": True}, r"\['img_height'\]: expected int"),
    ],
)
def test_malformed_rows(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(DatasetError, match=match):
        parse_row({**ROW, **changes})


@given(st.text(alphabet="<>/()boxpints,0123456789-. ", max_size=80))
@settings(deadline=None, max_examples=100)
def test_any_text_is_refused_or_parsed(text: str) -> None:
    try:
        parse_solution(text)
    except DatasetError:
        return
    assert "<box>" in text


def test_sources(tmp_path: Path) -> None:
    assert [row.row_id for row in open_refcocog([ROW, {**ROW, "id": 7}])] == ["refcocog_1", "7"]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n\n" + json.dumps({**ROW, "id": 2}) + "\n")
    assert [row.row_id for row in open_refcocog(path)] == ["refcocog_1", "2"]
    path.write_text(json.dumps(ROW) + "\n{")
    rows = open_refcocog(path)
    assert next(rows).row_id == "refcocog_1"
    with pytest.raises(DatasetError, match="not valid JSON lines"):
        next(rows)
    with pytest.raises(DatasetError, match=r"\.jsonl or \.parquet"):
        open_refcocog(tmp_path / "rows.txt")
    with pytest.raises(DatasetError, match="cannot be read"):
        next(open_refcocog(tmp_path / "none.jsonl"))


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(arrow.Table.from_pylist([ROW] * 20), path)
    assert len(list(open_refcocog(path))) == 20
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(DatasetError, match="cannot be read"):
        next(open_refcocog(path))


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendUnavailableError, match="pip install pyarrow"):
        next(open_refcocog(tmp_path / "rows.parquet"))
