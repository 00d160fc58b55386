"""What is kept of each answered expression: one line of JSON, written when its files are complete.

A run appends to `records/<shard>.jsonl`. A line counts once its newline is there, so a run can be killed at
any moment; what has no line is done again. Shards made on machines without a shared disk are joined by
copying their `records` and `predictions` into one folder.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from omni_sdk.errors import DatasetError
from omni_sdk.evaluation.scoring import ScoredExpression
from omni_sdk.utils.schema import SchemaError, from_dict, to_dict

Key = tuple[str, str]
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class KeyframeRecord:
    """A moment that the reasoner chose, and how many objects the grounder found there."""

    start_seconds: float
    end_seconds: float
    frame_index: int
    description: str
    num_objects: int


@dataclass(frozen=True, slots=True)
class Record:
    """One expression: the answer and its score.

    Attributes:
        scored: ids and score.
        expression: as asked.
        status: "found", "absent", "unparsed", or "failed" (see `scored.error`).
        thinking: the reasoner's reasoning.
        answer: its answer, or the raw text where that could not be parsed.
        keyframes: in time order.
        timings_ms: per stage.
    """

    scored: ScoredExpression
    expression: str
    status: str
    thinking: str = ""
    answer: str = ""
    keyframes: tuple[KeyframeRecord, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Video and expression."""
        return self.scored.video_id, self.scored.expression_id


class RecordLog:
    """Appends records to a file, which belongs to one process at a time."""

    def __init__(self, path: Path) -> None:
        """Open it and cut off a line that a killed run left unfinished.

        Raises:
            DatasetError: another process has it open.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+")
        if not _lock(self._file):
            self._file.close()
            raise DatasetError(
                f"{path}: another process is writing this shard; wait for it, or run another --shard"
            )
        self._file.seek(0)
        whole = self._file.read().rfind(b"\n") + 1
        self._file.truncate(whole)

    def append(self, record: Record) -> None:
        """Write a record; when this returns it survives the end of the process."""
        line = json.dumps(to_dict(record)) + "\n"
        self._file.write(line.encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _lock(file: BinaryIO) -> bool:
    """Lock a file until it is closed or its process ends; say whether it was free."""
    try:
        import fcntl
    except ImportError:  # not a Unix: there is no such guard
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_records(folder: Path) -> dict[Key, Record]:
    """Return the records of all shards; of two for one expression the later in name and line counts.

    Raises:
        DatasetError: a whole line is not a record.
    """
    records: dict[Key, Record] = {}
    for path in sorted(folder.glob("*.jsonl")):
        lines = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is unfinished
            try:
                record = from_dict(Record, json.loads(line))
            except (SchemaError, ValueError, RecursionError) as e:
                raise DatasetError(
                    f"{path} line {number}: not a record of an evaluation ({e}); delete the line to have "
                    "the expression done again"
                ) from e
            records[record.key] = record
    return records
