"""Reading what others wrote: JSON of a known shape, and names that stay inside their folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from omni_sdk.errors import DatasetError

T = TypeVar("T")

# The largest published file (masks of Ref-YouTube-VOS or ReVOS as JSON) is below 2 GB.
MAX_JSON_BYTES = 4 << 30


def read_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        DatasetError: the file is missing, larger than `max_bytes`, not JSON, or not an object.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise DatasetError(f"{path}: expected at most {max_bytes} bytes, got {size}")
        value = json.loads(path.read_bytes())
    except OSError as e:
        raise DatasetError(f"{path}: cannot be read: {e.strerror or e}") from e
    # A nesting bomb ends in RecursionError, bad UTF-8 in UnicodeDecodeError (a ValueError).
    except (ValueError, RecursionError) as e:
        if isinstance(e, DatasetError):
            raise
        raise DatasetError(f"{path}: not valid JSON: {e}") from e
    return expect(value, dict, str(path))


def expect(value: object, kind: type[T], where: str) -> T:
    """Return the value if it is of that type (a bool is no int).

    Raises:
        DatasetError: it is not; the message names the file and key in `where`.
    """
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DatasetError(f"{where}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def entry(table: dict[str, Any], key: str, kind: type[T], where: str) -> T:
    """Return `table[key]` of that type.

    Raises:
        DatasetError: it is absent or of another type.
    """
    if key not in table:
        raise DatasetError(f"{where}: expected a key {key!r}, found none")
    return expect(table[key], kind, f"{where}[{key!r}]")


def file_name(value: object, where: str) -> str:
    """Return a name that can only lie directly inside its folder.

    Raises:
        DatasetError: not text, empty, "." or "..", or with a separator.
    """
    name = expect(value, str, where)
    if name in ("", ".", "..") or any(c in name for c in "/\\\0") or len(name) > 255:
        raise DatasetError(f"{where}: expected a plain file name, got {name[:80]!r}")
    return name


def whole_number(value: object, where: str) -> int:
    """Return an id that some files write as a number and others as text.

    Raises:
        DatasetError: it is neither.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    return expect(value, int, where)
