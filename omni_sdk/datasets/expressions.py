"""`meta_expressions*.json`: the one schema that ReVOS, MeViS, Ref-YouTube-VOS and Ref-DAVIS17 share.

    {"videos": {video_id: {"frames": [name..], "expressions": {expression_id: {"exp": text,
        "obj_id": int | str | [int..], "anno_id": [int..], "type_id": 0 | 1 | 2}}}}}

Everything but "frames", "expressions" and "exp" may be absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_sdk.datasets import _files
from omni_sdk.errors import DatasetError
from omni_sdk.metrics.revos import KINDS


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression as published; `kind` is "" where the file names no type."""

    expression_id: str
    text: str
    object_ids: tuple[int, ...]
    annotation_ids: tuple[str, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class VideoEntry:
    """One video: its frames in the file's order, which is that of its masks, and its expressions."""

    video_id: str
    frame_names: tuple[str, ...]
    expressions: tuple[Expression, ...]


def read_expressions(path: Path) -> list[VideoEntry]:
    """Read all videos of a file, in its order.

    Raises:
        DatasetError: the file is missing or departs from the schema; the message names the key.
    """
    videos = _files.entry(_files.read_json(path), "videos", dict, str(path))
    return [_video(key, value, f"{path}[{key!r}]") for key, value in videos.items()]


def _video(key: str, value: object, where: str) -> VideoEntry:
    video = _files.expect(value, dict, where)
    frames = _files.entry(video, "frames", list, where)
    expressions = _files.entry(video, "expressions", dict, where)
    return VideoEntry(
        _files.file_name(key, where),
        tuple(_files.file_name(frame, f"{where}['frames'][{k}]") for k, frame in enumerate(frames)),
        tuple(
            _expression(name, item, f"{where}['expressions'][{name!r}]")
            for name, item in expressions.items()
        ),
    )


def _expression(key: str, value: object, where: str) -> Expression:
    item = _files.expect(value, dict, where)
    return Expression(
        _files.file_name(key, where),
        _files.entry(item, "exp", str, where),
        _ids(item.get("obj_id"), f"{where}['obj_id']"),
        tuple(str(k) for k in _ids(item.get("anno_id"), f"{where}['anno_id']")),
        _kind(item.get("type_id"), f"{where}['type_id']"),
    )


def _ids(value: Any, where: str) -> tuple[int, ...]:
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    return tuple(_files.whole_number(k, where) for k in values)


def _kind(value: Any, where: str) -> str:
    if value is None:
        return ""
    number = _files.whole_number(value, where)
    if not 0 <= number < len(KINDS):
        raise DatasetError(f"{where}: expected 0 to {len(KINDS) - 1}, got {number}")
    return KINDS[number]
