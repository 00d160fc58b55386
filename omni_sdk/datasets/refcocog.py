"""refCOCOg_2k_840 (Ricky06662 on the Hugging Face hub): 2,000 images with one object each.

Rows have id, problem (the expression), solution, image (840x840), img_height and img_width; the solution
is "<box>(x1,y1),(x2,y2)</box><points>(x,y),(x,y)</points>" in pixels of the image. Rows come from a JSONL
file, a parquet file (needs pyarrow), or any iterable of dicts such as an opened `datasets` split.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_sdk.datasets import _files
from omni_sdk.errors import BackendUnavailableError, DatasetError

NAME = "refcocog_2k_840"
MAX_LINE_CHARS = 64 << 20
_NUMBER = r"\s*(-?\d{1,6}(?:\.\d{1,6})?)\s*"
_PAIR = rf"\({_NUMBER},{_NUMBER}\)"
_SOLUTION = re.compile(
    rf"\s*<box>\s*{_PAIR}\s*,\s*{_PAIR}\s*</box>\s*<points>\s*{_PAIR}\s*,\s*{_PAIR}\s*</points>\s*"
)


@dataclass(frozen=True, slots=True)
class RefcocogRow:
    """One image and its object.

    Attributes:
        row_id: as published.
        expression: what to find.
        box_xyxy: x1, y1, x2, y2 in pixels of the image.
        points_xy: two points on the object, in pixels.
        size: (height, width) of the image that the coordinates refer to.
        image: as the row has it: a picture object, encoded bytes, a path, or None.
    """

    row_id: str
    expression: str
    box_xyxy: tuple[float, float, float, float]
    points_xy: tuple[tuple[float, float], tuple[float, float]]
    size: tuple[int, int]
    image: Any = None


def open_refcocog(
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
) -> Iterator[RefcocogRow]:
    """Yield rows one at a time.

    Args:
        source: a .jsonl or .parquet file, or rows.

    Raises:
        DatasetError: a row departs from the schema, or the file is missing or of another kind.
        BackendUnavailableError: a parquet file without pyarrow installed.
    """
    where = str(source) if isinstance(source, (str, os.PathLike)) else NAME
    return (parse_row(row, f"{where} row {k}") for k, row in enumerate(read_rows(source)))


def read_rows(
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
) -> Iterator[Mapping[str, Any]]:
    """Yield rows as they are, unchecked.

    Args:
        source: as in `open_refcocog`.

    Raises:
        DatasetError: the file is missing, of another kind, or not what its name says.
        BackendUnavailableError: a parquet file without pyarrow installed.
    """
    if not isinstance(source, (str, os.PathLike)):
        return iter(source)
    path = Path(source)
    if path.suffix not in (".jsonl", ".parquet"):
        raise DatasetError(f"{path}: expected a .jsonl or .parquet file")
    return _parquet(path) if path.suffix == ".parquet" else _jsonl(path)


def parse_row(row: Mapping[str, Any], where: str = NAME) -> RefcocogRow:
    """Check and convert one row.

    Raises:
        DatasetError: a field is missing, of another type, or a box without area or outside the image.
    """
    table = dict(row)
    identity = table.get("id")
    if not isinstance(identity, (str, int)):
        raise DatasetError(f"{where}['id']: expected text or a number, got {identity!r}")
    box, points = parse_solution(
        _files.entry(table, "solution", str, where), f"{where}['solution']"
    )
    height = _files.entry(table, "img_height", int, where)
    width = _files.entry(table, "img_width", int, where)
    if not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
        raise DatasetError(
            f"{where}['solution']: expected a box with area inside {width}x{height}, got {box}"
        )
    problem = _files.entry(table, "problem", str, where)
    return RefcocogRow(str(identity), problem, box, points, (height, width), table.get("image"))


def parse_solution(
    text: str, where: str = "solution"
) -> tuple[tuple[float, float, float, float], tuple[tuple[float, float], tuple[float, float]]]:
    """Return (box xyxy, two points) in pixels of a solution string.

    Raises:
        DatasetError: it is not "<box>(x1,y1),(x2,y2)</box><points>(x,y),(x,y)</points>".
    """
    match = _SOLUTION.fullmatch(text)
    if match is None:
        raise DatasetError(
            f"{where}: expected <box>(x1,y1),(x2,y2)</box><points>(x,y),(x,y)</points>, "
            f"got {text[:120]!r}"
        )
    x1, y1, x2, y2, ax, ay, bx, by = (float(value) for value in match.groups())
    return (x1, y1, x2, y2), ((ax, ay), (bx, by))


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open(encoding="utf-8") as lines:
            number = 0
            while line := lines.readline(MAX_LINE_CHARS + 1):
                number += 1
                if len(line) > MAX_LINE_CHARS:
                    raise DatasetError(f"{path} line {number}: over {MAX_LINE_CHARS} characters")
                if line.strip():
                    yield _files.expect(json.loads(line), dict, f"{path} line {number}")
    except OSError as e:
        raise DatasetError(f"{path}: cannot be read: {e.strerror or e}") from e
    except (ValueError, RecursionError) as e:
        if isinstance(e, DatasetError):
            raise
        raise DatasetError(f"{path}: not valid JSON lines: {e}") from e


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as e:
        raise BackendUnavailableError(
            f"{path}: a parquet file needs pyarrow: pip install pyarrow, or save the rows as JSONL"
        ) from e
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=16):
            yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as e:
        raise DatasetError(f"{path}: cannot be read: {e}") from e
