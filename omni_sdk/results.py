"""What a run returns: times in real seconds of the source, boxes and masks in its pixels.

`Result.to_dict()` is result.json, versioned by `schema_version`. Masks stay COCO RLE until asked for.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omni_sdk.dus.tracks import MaskTrack
from omni_sdk.errors import ResultError
from omni_sdk.media.frames import VideoInfo
from omni_sdk.output.result_json import (
    KeyframeRow,
    TrackRow,
    keyframe_dict,
    keyframe_of,
    track_dict,
    track_of,
)
from omni_sdk.stages import Keyframe
from omni_sdk.utils.files import write_text
from omni_sdk.utils.schema import SchemaError, from_dict, to_dict
from omni_sdk.utils.timing import StageTimings

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

    from omni_sdk.media.source import Source

SCHEMA_VERSION = 1
RESULT_JSON = "result.json"


@dataclass(frozen=True, slots=True)
class BundleInfo:
    """Which models answered, where, and which variants of their graphs."""

    name: str
    version: str
    backend: str
    device: str
    variants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to one query.

    Attributes:
        query: as asked.
        thinking: the reasoner's reasoning.
        answer: the reasoner's answer, raw.
        status: "found", "absent" (a real answer: nothing matches) or "unparsed".
        video: the source.
        keyframes: in time order.
        tracks: by object id.
        timings_ms: per stage.
        bundle: which models.
        thinking_cut: the reasoner outlasted `GenerationConfig.thinking_budget` and was made to answer, so
            the answer is a guess.
        source: the source as it was given, so that `save` can draw on it.
    """

    query: str
    thinking: str
    answer: str
    status: str
    video: VideoInfo
    keyframes: tuple[Keyframe, ...] = ()
    tracks: tuple[MaskTrack, ...] = ()
    timings_ms: StageTimings = field(default_factory=StageTimings)
    bundle: BundleInfo | None = None
    thinking_cut: bool = False
    source: Any = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return result.json as plain values."""
        value: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
        value |= {k: getattr(self, k) for k in ("query", "thinking", "answer", "status")}
        value["thinking_cut"] = self.thinking_cut
        value["video"] = to_dict(self.video)
        value["keyframes"] = [keyframe_dict(k) for k in self.keyframes]
        value["tracks"] = [track_dict(t) for t in self.tracks]
        value["timings_ms"] = {k: round(v, 3) for k, v in to_dict(self.timings_ms).items()}
        value["bundle"] = to_dict(self.bundle)
        return value

    @classmethod
    def from_dict(cls, value: object) -> Result:
        """Read what `to_dict` returned, or `json.loads` of result.json; nothing is coerced.

        The result has no `source`.

        Raises:
            ResultError: unknown schema_version; unknown or missing key; a value of another type or out of
                range; an object with two tracks; a mask that is malformed or does not fit the video.
        """
        try:
            _check_version(value)
            row = from_dict(_ResultRow, value)
            ids = [track.object_id for track in row.tracks]
            if len(set(ids)) < len(ids):
                raise SchemaError(f"tracks: expected one of each object, got ids {ids}")
            size = (row.video.height, row.video.width)
            keyframes = (keyframe_of(k, f"keyframes[{n}]") for n, k in enumerate(row.keyframes))
            tracks = (track_of(t, size, f"tracks[{n}]") for n, t in enumerate(row.tracks))
            return cls(
                query=row.query,
                thinking=row.thinking,
                answer=row.answer,
                status=row.status,
                video=row.video,
                keyframes=tuple(keyframes),
                tracks=tuple(tracks),
                timings_ms=row.timings_ms,
                bundle=row.bundle,
                thinking_cut=row.thinking_cut,
            )
        except (ValueError, RecursionError) as e:  # the latter: too deep to be quoted in a message
            raise ResultError(f"not a result: {e}") from e

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, source: Source | None = None) -> Result:
        """Read a result.json, or the one in a directory that `save` wrote.

        Args:
            path: the file or the directory.
            source: what the result was made from, so that `save` can draw on it; None: `save` needs
                `overlay=False`.

        Raises:
            ResultError: it cannot be read, or is malformed; see `from_dict`.
        """
        file = Path(path)
        try:
            file = file / RESULT_JSON if file.is_dir() else file
            value = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as e:
            raise ResultError(f"{str(path)!r} cannot be read as a result: {e}") from e
        try:
            return replace(cls.from_dict(value), source=source)
        except ResultError as e:
            raise ResultError(f"{str(path)!r}: {e}") from e

    def save(
        self, directory: str | os.PathLike[str], *, masks: bool = True, overlay: bool = True
    ) -> Path:
        """Write result.json, masks/NNNNN.png (indexed by object id) and overlay.mp4; return the directory.

        All of them are written, or none: a failure leaves what was in the directory before.

        Raises:
            ResultError: the masks were streamed and are not here, or the directory cannot be written.
            MediaError: the source cannot be read again for the overlay: there is none (see `load`), it was
                an iterator, or it is gone.
        """
        from omni_sdk.output.save import check_redrawable, save_masks, save_overlay, written_beside

        if self.status == "found" and not self.tracks:
            raise ResultError(
                "this result says found, but holds no masks: Finished of Pipeline.stream comes without "
                "them, they were in its Frame events; call the pipeline instead, or write save_json"
            )
        if overlay:
            check_redrawable(self.source)
        target = Path(directory)
        with written_beside(target) as folder:
            (folder / RESULT_JSON).write_text(self._json(), encoding="utf-8")
            if masks and self.tracks:
                save_masks(self.tracks, folder / "masks")
            if overlay:
                save_overlay(self.source, self.tracks, folder / "overlay.mp4")
        return target

    def save_json(self, path: str | os.PathLike[str]) -> Path:
        """Write result.json and return its path; ResultError if it cannot be written."""
        from omni_sdk.output.save import write_errors

        target = Path(path)
        with write_errors(target):
            write_text(target, self._json())
        return target

    def _json(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False) + "\n"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> CoreSchema:
        """Let pydantic and FastAPI write a result by `to_dict` and read it by `from_dict`."""
        from pydantic_core import core_schema

        values = core_schema.dict_schema(core_schema.str_schema())
        read = core_schema.no_info_after_validator_function(cls.from_dict, values)
        ours = core_schema.is_instance_schema(cls)
        return core_schema.json_or_python_schema(
            json_schema=read,
            python_schema=core_schema.union_schema([ours, read]),
            serialization=core_schema.plain_serializer_function_ser_schema(
                cls.to_dict, return_schema=values
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _ResultRow:
    """result.json as `to_dict` writes it; what has a default was not always written."""

    schema_version: int
    query: str
    thinking: str
    answer: str
    status: Literal["found", "absent", "unparsed"]
    thinking_cut: bool = False
    video: VideoInfo
    keyframes: tuple[KeyframeRow, ...]
    tracks: tuple[TrackRow, ...]
    timings_ms: StageTimings
    bundle: BundleInfo | None


def _check_version(value: object) -> None:
    version = value.get("schema_version") if isinstance(value, dict) else SCHEMA_VERSION
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise SchemaError(
            f"schema_version {version!r:.80} is not known: this omni-sdk reads {SCHEMA_VERSION}"
        )
