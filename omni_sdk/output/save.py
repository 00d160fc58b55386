"""Write a result beside its source: result.json, indexed PNGs and an overlay video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omni_sdk.media.source import Source, open_source
from omni_sdk.output.writers import OverlayWriter, label_map, write_indexed_png

if TYPE_CHECKING:
    from omni_sdk.dus.tracks import MaskTrack

SOUND_HZ = 44_100
"""Sampling rate of an overlay's sound."""


def save_masks(tracks: Sequence[MaskTrack], directory: Path) -> None:
    """Write NNNNN.png per frame, indexed by object id, one frame in memory at a time.

    Background is 0; where objects overlap the higher id is in front.

    Args:
        tracks: of one source, at least one.
        directory: made if missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for index in sorted({int(i) for t in tracks for i in t.frame_indices}):
        labels = label_map(dict(_masks_at(tracks, index)), tracks[0].size)
        write_indexed_png(directory / f"{index:05d}.png", labels)


def save_overlay(source: Source, tracks: Sequence[MaskTrack], path: Path) -> None:
    """Write the source, with its sound and the masks drawn on it, as an mp4.

    Raises:
        MediaError: the source cannot be read again (a spent iterator, a camera).
    """
    with open_source(source) as video:
        info = video.info
        size = (info.height, info.width)
        sound = video.audio(SOUND_HZ) if info.has_audio else None
        with OverlayWriter(path, size=size, fps=info.average_fps, sound=sound) as writer:
            for frame in video.forward(0, info.num_frames):
                masks = dict(_masks_at(tracks, frame.frame_index))
                writer.write(frame.image, masks, pts_seconds=frame.pts_seconds)


def _masks_at(tracks: Sequence[MaskTrack], index: int) -> list[tuple[int, NDArray[np.bool_]]]:
    found = []
    for track in tracks:
        place = int(np.searchsorted(track.frame_indices, index))
        if place < len(track) and track.frame_indices[place] == index:
            found.append((track.object_id, track.mask_at(index)))
    return found
