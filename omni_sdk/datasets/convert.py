"""`mask_dict.pkl` to `mask_dict.json`, without ever running a pickle.

Note [No unpickling]: a pickle is a program; loading one can run any code, and a restricted `Unpickler` still
runs the rest of its machine (memo tables of any size, REDUCE on what it finds). Here nothing is run: the
file is read as a list of instructions by the standard `pickletools.genops`, and the dozen instructions that
build plain dicts, lists, numbers and text are interpreted below. Any other instruction, among them all that
import, call or construct, ends the conversion with an error that names it. Then the result's shape is
checked, and what is written is JSON.
"""

from __future__ import annotations

import json
import os
import pickletools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omni_sdk.datasets.masks import rle_size
from omni_sdk.errors import DatasetError
from omni_sdk.utils.files import atomic_file

MAX_PICKLE_BYTES = 4 << 30
_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
}


def convert_mask_dict(
    source: str | os.PathLike[str], target: str | os.PathLike[str] | None = None
) -> int:
    """Convert a published `mask_dict.pkl` to JSON; nothing in the file is run (Note [No unpickling]).

    Args:
        source: the pickle: {key: [COCO RLE dict or None per frame]}.
        target: where to write; by default `mask_dict.json` beside it. Replaced only when complete.

    Returns:
        Number of annotations written.

    Raises:
        DatasetError: the file is missing, too large, no pickle, holds more than plain masks, or the
            target cannot be written.
    """
    path = Path(source)
    output = path.with_suffix(".json") if target is None else Path(target)
    try:
        size = path.stat().st_size
        if size > MAX_PICKLE_BYTES:
            raise DatasetError(f"{path}: expected at most {MAX_PICKLE_BYTES} bytes, got {size}")
        table = read_plain_pickle(path.read_bytes(), str(path))
    except OSError as e:
        raise DatasetError(f"{path}: cannot be read: {e.strerror or e}") from e
    if not isinstance(table, dict):
        raise DatasetError(f"{path}: expected a dict of masks, got {type(table).__name__}")
    # A list that is referred to many times would multiply on writing.
    budget = 4 * size + 1024
    try:
        with atomic_file(output) as file:
            for text in _json_parts(table, str(path)):
                budget -= len(text)
                if budget < 0:
                    raise DatasetError(f"{path}: its masks are far larger than the file itself")
                file.write(text.encode("ascii"))
    except OSError as e:
        raise DatasetError(f"{output}: cannot be written: {e.strerror or e}") from e
    return len(table)


def read_plain_pickle(data: bytes, where: str = "pickle") -> Any:
    """Build the dicts, lists, numbers, text and bytes of a pickle; refuse everything else.

    Args:
        data: the pickle, protocol 2 or later.
        where: for messages.

    Returns:
        The value.

    Raises:
        DatasetError: the data is no pickle, or holds an instruction that plain values do not need.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    handlers = _handlers(stack, memo)
    try:
        for opcode, argument, position in pickletools.genops(data):
            if opcode.name == "STOP":
                (value,) = stack
                return value
            if opcode.name in _VALUES:
                stack.append(argument)
            elif opcode.name in _CONSTANTS:
                stack.append(_CONSTANTS[opcode.name])
            elif opcode.name in handlers:
                handlers[opcode.name](argument)
            elif opcode.name not in ("PROTO", "FRAME"):
                raise DatasetError(
                    f"{where}: instruction {opcode.name} at byte {position} builds more than plain "
                    "masks and was not run; make the masks again from the published PNG annotations"
                )
    # genops raises ValueError on what is no pickle; the rest is a program that does not add up.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as e:
        if isinstance(e, DatasetError):
            raise
        raise DatasetError(f"{where}: not a valid pickle of plain values: {e}") from e
    raise DatasetError(f"{where}: the pickle ends early")


def _handlers(stack: list[Any], memo: dict[int, Any]) -> dict[str, Callable[[Any], None]]:
    """Return what each building instruction does to the stack (Python docs, `pickletools`)."""

    def since_mark() -> list[Any]:
        start = len(stack) - 1
        while stack[start] is not _MARK:
            if start == 0:
                raise ValueError("no mark on the stack")
            start -= 1
        items = stack[start + 1 :]
        del stack[start:]
        return items

    def append(_: Any) -> None:
        item = stack.pop()
        _of(stack[-1], list).append(item)

    def appends(_: Any) -> None:
        items = since_mark()
        _of(stack[-1], list).extend(items)

    def store(items: list[Any]) -> None:
        target = _of(stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a tuple nested a million times would exhaust the C stack.
            if type(key) not in (str, int):
                raise TypeError(f"expected text or a number as key, got {type(key).__name__}")
            target[key] = value

    def set_item(_: Any) -> None:
        value, key = stack.pop(), stack.pop()
        store([key, value])

    def remember(index: Any) -> None:
        memo[len(memo) if index is None else index] = stack[-1]

    def small_tuple(size: int) -> Callable[[Any], None]:
        def build(_: Any) -> None:
            items = [stack.pop() for _ in range(size)][::-1]
            stack.append(tuple(items))

        return build

    return {
        "MARK": lambda _: stack.append(_MARK),
        "EMPTY_DICT": lambda _: stack.append({}),
        "EMPTY_LIST": lambda _: stack.append([]),
        "EMPTY_TUPLE": lambda _: stack.append(()),
        "TUPLE1": small_tuple(1),
        "TUPLE2": small_tuple(2),
        "TUPLE3": small_tuple(3),
        "TUPLE": lambda _: stack.append(tuple(since_mark())),
        "APPEND": append,
        "APPENDS": appends,
        "SETITEM": set_item,
        "SETITEMS": lambda _: store(since_mark()),
        "MEMOIZE": remember,
        "BINPUT": remember,
        "LONG_BINPUT": remember,
        "BINGET": lambda index: stack.append(memo[index]),
        "LONG_BINGET": lambda index: stack.append(memo[index]),
    }


def _of(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"expected a {kind.__name__} on the stack, got {type(value).__name__}")
    return value


def _json_parts(table: dict[Any, Any], where: str) -> Iterator[str]:
    """Yield the JSON text piece by piece, checking every mask on the way."""
    separator = "{"
    for key, frames in table.items():
        if not isinstance(key, (str, int)) or not isinstance(frames, list):
            raise DatasetError(f"{where}: expected text -> list of masks, got {str(key)[:40]!r}")
        yield f"{separator}\n{json.dumps(str(key))}: ["
        for position, rle in enumerate(frames):
            text = "null" if rle is None else _rle_text(rle, f"{where}[{key!r}][{position}]")
            yield f", {text}" if position else text
        yield "]"
        separator = ","
    yield "}\n" if table else "{}\n"


def _rle_text(rle: Any, where: str) -> str:
    if isinstance(rle, dict) and isinstance(rle.get("size"), tuple):
        rle = {**rle, "size": list(rle["size"])}
    height, width = rle_size(rle, where)
    counts = rle.get("counts")
    if isinstance(counts, bytes) and counts.isascii():
        counts = counts.decode("ascii")
    if not isinstance(counts, str) or not counts.isascii():
        raise DatasetError(
            f"{where}['counts']: expected compressed text, got {type(counts).__name__}"
        )
    return json.dumps({"size": [height, width], "counts": counts})
