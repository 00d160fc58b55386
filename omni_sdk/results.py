"""What a run returns: times in real seconds of the source, boxes and masks in its pixels.

`Result.to_dict()` is result.json, versioned by `schema_version`. Masks stay COCO RLE until asked for.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from omni_sdk.dus.tracks import MaskTrack
from omni_sdk.media.frames import VideoInfo
from omni_sdk.stages import Keyframe
from omni_sdk.utils.schema import to_dict
from omni_sdk.utils.timing import StageTimings

SCHEMA_VERSION = 1


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
        from omni_sdk.output.save import save_masks, save_overlay

        folder = Path(directory)
        self.save_json(folder / "result.json")
        if masks and self.tracks:
            save_masks(self.tracks, folder / "masks")
        if overlay:
            save_overlay(self.source, self.tracks, folder / "overlay.mp4")
        return folder

    def save_json(self, path: str | os.PathLike[str]) -> Path:
        """Write result.json and return its path."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(self.to_dict(), ensure_ascii=False) + "\n", encoding="utf-8")
        return target


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
