"""Masks of all frames, gathered into one track per object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from omni_sdk.dus.masks import rle_decode

if TYPE_CHECKING:
    from omni_sdk.stages import ObjectMask


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


class MaskedFrame(Protocol):
    """A frame with its masks: `omni_sdk.stages.FrameMasks`, or the event `omni_sdk.events.Frame`."""

    @property
    def frame_index(self) -> int:
        """Presentation order in the source."""

    @property
    def pts_seconds(self) -> float:
        """Its time."""

    @property
    def masks(self) -> tuple[ObjectMask, ...]:
        """One per object."""


def build_tracks(
    frames: Sequence[MaskedFrame], labels: Mapping[int, str], size: tuple[int, int]
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
