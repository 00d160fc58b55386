from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_sdk.errors import DatasetError
from omni_sdk.evaluation.records import KeyframeRecord, Record, RecordLog, read_records
from omni_sdk.evaluation.scoring import ScoredExpression
from omni_sdk.metrics.expressions import ExpressionScore
from omni_sdk.metrics.refavs import RefavsScore
from omni_sdk.metrics.revos import PixelScore, RevosScore

SCORES = (
    ExpressionScore(0.1 + 0.2, 1 / 3, 7, 0),
    RevosScore(1, 0.5, 0.25, PixelScore(1.0, None), PixelScore(1.0, 0.5), PixelScore(0.0, 0.0), 3),
    RefavsScore(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 10),
    None,
)


def _record(number: int, text: str) -> Record:
    scored = ScoredExpression("v", str(number), "", SCORES[number % 4], text)
    keyframe = KeyframeRecord(0.0, 1.5, 3, text, 1)
    return Record(scored, text, "found", text, text, (keyframe,), {"total": 1.25})


@settings(deadline=None, max_examples=20)
@given(st.lists(st.text(), min_size=1, max_size=5), st.integers(0, 10_000))
def test_a_kill_at_any_byte_loses_the_last_line_only(texts: list[str], cut: int) -> None:
    """Whatever models wrote, lone surrogates and line ends included."""
    records = [_record(k, text + "\ud800\n") for k, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "0-of-1.jsonl"
        log = RecordLog(path)
        for record in records:
            log.append(record)
        log.close()
        whole = path.read_bytes()
        cut = min(cut, len(whole))
        path.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n")
        assert list(read_records(path.parent).values()) == records[:kept]
        log = RecordLog(path)
        for record in records[kept:]:
            log.append(record)
        log.close()
        assert path.read_bytes() == whole


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "a.jsonl")
    log.append(_record(0, ""))
    log.close()
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(b'{"scored": 1}\n')
    with pytest.raises(DatasetError, match=r"a\.jsonl line 2"):
        read_records(tmp_path)


def test_a_shard_has_one_writer(tmp_path: Path) -> None:
    log = RecordLog(tmp_path / "a.jsonl")
    with pytest.raises(DatasetError, match="another process"):
        RecordLog(tmp_path / "a.jsonl")
    log.close()
    RecordLog(tmp_path / "a.jsonl").close()
