"""The parts of result.json: keyframes and tracks as rows of plain values, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omni_sdk.dus.masks import check_size, rle_area
from omni_sdk.dus.tracks import MaskTrack
from omni_sdk.stages import GroundedObject, Keyframe
from omni_sdk.utils.schema import SchemaError


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """A `GroundedObject`; the box in pixels, to a hundredth."""

    object_id: int
    box_xyxy: tuple[float, float, float, float]
    label: str


@dataclass(frozen=True, slots=True)
class KeyframeRow:
    """A `Keyframe`."""

    start_seconds: float
    end_seconds: float
    frame_index: int
    pts_seconds: float
    description: str
    objects: tuple[ObjectRow, ...]


@dataclass(frozen=True, slots=True)
class RleRow:
    """A mask as pycocotools reads it: (height, width) and COCO's compressed counts."""

    size: tuple[int, int]
    counts: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRow:
    """A track's mask on one frame; what has a default was not always written."""

    frame_index: int
    pts_seconds: float
    score: float
    source: Literal["tracked", "propagated"] = "tracked"
    confidence: float = 1.0
    rle: RleRow


@dataclass(frozen=True, slots=True)
class TrackRow:
    """A `MaskTrack`."""

    object_id: int
    label: str
    size: tuple[int, int]
    frames: tuple[FrameRow, ...]


def keyframe_dict(keyframe: Keyframe) -> dict[str, object]:
    """Return a `KeyframeRow` as plain values."""
    return {
        "start_seconds": keyframe.start_seconds,
        "end_seconds": keyframe.end_seconds,
        "frame_index": keyframe.frame_index,
        "pts_seconds": keyframe.pts_seconds,
        "description": keyframe.description,
        "objects": [
            {
                "object_id": o.object_id,
                "box_xyxy": [round(float(v), 2) for v in o.box_xyxy],
                "label": o.label,
            }
            for o in keyframe.objects
        ],
    }


def track_dict(track: MaskTrack) -> dict[str, object]:
    """Return a `TrackRow` as plain values."""
    size = list(track.size)
    sources = track.sources or ("tracked",) * len(track)
    confidences = track.confidences if len(track.confidences) else np.ones(len(track), np.float32)
    rows = zip(
        track.frame_indices,
        track.pts_seconds,
        track.scores,
        sources,
        confidences,
        track.rles,
        strict=True,
    )
    return {
        "object_id": track.object_id,
        "label": track.label,
        "size": size,
        "frames": [
            {
                "frame_index": int(index),
                "pts_seconds": float(pts),
                "score": float(score),
                "source": source,
                "confidence": round(float(confidence), 4),
                "rle": {"size": size, "counts": counts.decode("ascii")},
            }
            for index, pts, score, source, confidence, counts in rows
        ],
    }


def keyframe_of(row: KeyframeRow, where: str) -> Keyframe:
    """Return the keyframe of a row; SchemaError where a number is out of range."""
    _check(row.frame_index >= 0, f"{where}.frame_index must be at least 0, got {row.frame_index}")
    objects = tuple(
        GroundedObject(o.object_id, _float32(o.box_xyxy, f"{where}.objects[{n}].box_xyxy"), o.label)
        for n, o in enumerate(row.objects)
    )
    return Keyframe(
        row.start_seconds,
        row.end_seconds,
        row.frame_index,
        row.pts_seconds,
        row.description,
        objects,
    )


def track_of(row: TrackRow, size: tuple[int, int], where: str) -> MaskTrack:
    """Return the track of a row.

    Args:
        row: untrusted.
        size: (height, width) of the source.
        where: path of the row for messages.

    Raises:
        SchemaError: an id, index, score, confidence or size is out of range, frames are out of order, or a
            mask is malformed.
        LimitError: the size is more than a mask may have.
    """
    _check(row.object_id >= 1, f"{where}.object_id must be at least 1, got {row.object_id}")
    check_size(row.size)
    _check(row.size == size, f"{where}.size: {list(row.size)}, but the video is {list(size)}")
    before = -1
    for n, frame in enumerate(row.frames):
        at = f"{where}.frames[{n}]"
        _check(
            before < frame.frame_index < 2**63,
            f"{at}.frame_index must ascend from 0, got {frame.frame_index} after {before}",
        )
        before = frame.frame_index
        _check(
            0 <= frame.confidence <= 1,
            f"{at}.confidence must be in [0, 1], got {frame.confidence}",
        )
        _check(
            frame.rle.size == size, f"{at}.rle.size: {list(frame.rle.size)}, expected {list(size)}"
        )
        try:
            rle_area(frame.rle.counts.encode("ascii"), size)
        except ValueError as e:
            raise SchemaError(f"{at}.rle.counts: {e}") from e
    return MaskTrack(
        object_id=row.object_id,
        label=row.label,
        size=size,
        frame_indices=np.array([f.frame_index for f in row.frames], np.int64),
        pts_seconds=np.array([f.pts_seconds for f in row.frames], np.float64),
        rles=tuple(f.rle.counts.encode("ascii") for f in row.frames),
        scores=_float32([f.score for f in row.frames], f"{where}: scores"),
        sources=tuple(f.source for f in row.frames),
        confidences=np.array([f.confidence for f in row.frames], np.float32),
    )


def _float32(values: tuple[float, ...] | list[float], where: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        array = np.array(values, np.float32)
    _check(bool(np.isfinite(array).all()), f"{where} must be within float32, got {list(values)}")
    return array


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise SchemaError(message)
