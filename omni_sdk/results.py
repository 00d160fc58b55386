"""What a run returns: times in real seconds of the source, boxes and masks in its pixels.

`Result.to_dict()` is result.json, versioned by `schema_version`. Masks stay COCO RLE until asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from omni_sdk.stages import FrameMasks

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of the source.

    Attributes:
        path: as given, or a name such as "<frames>".
        width: in pixels, after rotation.
        height: in pixels, after rotation.
        num_frames: frames that can be decoded.
        average_fps: frames per second.
        duration_seconds: from the first frame to the end of the last.
        has_audio: whether there is a sound stream.
        truncated: whether the container promised more than could be read.
        missing_frames: frames that were wanted and could not be decoded.
        corrupt_frames: frames that were decoded from damaged data.
    """

    path: str
    width: int
    height: int
    num_frames: int
    average_fps: float
    duration_seconds: float
    has_audio: bool
    truncated: bool = False
    missing_frames: int = 0
    corrupt_frames: int = 0


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no truth value to compare by
class GroundedObject:
    """An object on a keyframe: its id in the tracks, (4,) float32 xyxy pixels, and its label."""

    object_id: int
    box_xyxy: NDArray[np.float32]
    label: str


@dataclass(frozen=True, slots=True)
class Keyframe:
    """A moment that the reasoner chose.

    Attributes:
        start_seconds: start of the moment, real time.
        end_seconds: its end.
        frame_index: the frame that was grounded, presentation order.
        pts_seconds: its time.
        description: the question rewritten for that frame.
        objects: what the grounder found there.
    """

    start_seconds: float
    end_seconds: float
    frame_index: int
    pts_seconds: float
    description: str
    objects: tuple[GroundedObject, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no truth value to compare by
class MaskTrack:
    """One object's masks over the source.

    Attributes:
        object_id: as in `GroundedObject`.
        label: the description that it was found by.
        size: (height, width) of the masks in pixels.
        frame_indices: (T,) int64 ascending.
        pts_seconds: (T,) float64.
        rles: T COCO compressed RLE strings; an absent object has an empty mask.
        scores: (T,) float32 object score (logit; > 0 means present).
        sources: T times "tracked" by the model or "propagated" from a frame near by; empty: all tracked.
        confidences: (T,) float32 in [0, 1], of propagated masks (1 for tracked ones); empty: all 1.
    """

    object_id: int
    label: str
    size: tuple[int, int]
    frame_indices: NDArray[np.int64]
    pts_seconds: NDArray[np.float64]
    rles: tuple[bytes, ...]
    scores: NDArray[np.float32]
    sources: tuple[str, ...] = ()
    confidences: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))

    def __len__(self) -> int:
        return len(self.rles)

    def __repr__(self) -> str:
        return (
            f"MaskTrack(object_id={self.object_id}, label={self.label!r}, size={self.size}, "
            f"frames={len(self)})"
        )

    def mask_at(self, frame_index: int) -> NDArray[np.bool_]:
        """Decode the mask of a frame of the source, (H, W) bool; IndexError if it has none."""
        from omni_sdk.dus.masks import rle_decode

        position = int(np.searchsorted(self.frame_indices, frame_index))
        if position == len(self) or self.frame_indices[position] != frame_index:
            raise IndexError(
                f"track {self.object_id} has no frame {frame_index}; it has {len(self)} frames from "
                f"{self.frame_indices[0] if len(self) else '-'}"
            )
        return rle_decode(self.rles[position], self.size)

    def masks(self) -> Iterator[NDArray[np.bool_]]:
        """Decode all masks in order, one at a time."""
        return (self.mask_at(int(index)) for index in self.frame_indices)


@dataclass(frozen=True, slots=True)
class StageTimings:
    """Wall time of each stage in milliseconds; stages that did not run are 0.

    Stages add up to `total` less what none of them claims. `overlapped` is no part of the sum: decoding that
    went on beside the tracker (`decode` is then what the tracker had to wait for).
    """

    index: float = 0.0
    decode: float = 0.0
    audio: float = 0.0
    prefill: float = 0.0
    generate: float = 0.0
    ground: float = 0.0
    encode: float = 0.0
    propagate: float = 0.0
    carry: float = 0.0
    mask: float = 0.0
    total: float = 0.0
    overlapped: float = 0.0


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
        from omni_sdk.utils.schema import to_dict

        value: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
        value |= {k: getattr(self, k) for k in ("query", "thinking", "answer", "status")}
        value["thinking_cut"] = self.thinking_cut
        value["video"] = to_dict(self.video)
        value["keyframes"] = [_keyframe_dict(k) for k in self.keyframes]
        value["tracks"] = [_track_dict(t) for t in self.tracks]
        value["timings_ms"] = {k: round(v, 3) for k, v in to_dict(self.timings_ms).items()}
        value["bundle"] = to_dict(self.bundle)
        return value

    def save(
        self, directory: str | os.PathLike[str], *, masks: bool = True, overlay: bool = True
    ) -> Path:
        """Write result.json, masks/NNNNN.png (indexed by object id) and overlay.mp4; return the directory.

        Raises:
            MediaError: the source cannot be read again for the overlay (a spent iterator, a camera).
        """
        from omni_sdk.output.save import save_result

        return save_result(self, Path(directory), masks=masks, overlay=overlay)

    def save_json(self, path: str | os.PathLike[str]) -> Path:
        """Write result.json and return its path."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(self.to_dict(), ensure_ascii=False) + "\n", encoding="utf-8")
        return target


def build_tracks(
    frames: list[FrameMasks], labels: dict[int, str], size: tuple[int, int]
) -> tuple[MaskTrack, ...]:
    """Gather per-frame masks, in any order, into one track per object."""
    ordered = sorted(frames, key=lambda f: f.frame_index)
    ids = sorted({m.object_id for f in ordered for m in f.masks})
    tracks = []
    for object_id in ids:
        rows = [(f, m) for f in ordered for m in f.masks if m.object_id == object_id]
        tracks.append(
            MaskTrack(
                object_id=object_id,
                label=labels.get(object_id, ""),
                size=size,
                frame_indices=np.array([f.frame_index for f, _ in rows], np.int64),
                pts_seconds=np.array([f.pts_seconds for f, _ in rows], np.float64),
                rles=tuple(m.counts for _, m in rows),
                scores=np.array([m.score for _, m in rows], np.float32),
                sources=tuple(m.source for _, m in rows),
                confidences=np.array([m.confidence for _, m in rows], np.float32),
            )
        )
    return tuple(tracks)


def _keyframe_dict(keyframe: Keyframe) -> dict[str, Any]:
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


def _track_dict(track: MaskTrack) -> dict[str, Any]:
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
