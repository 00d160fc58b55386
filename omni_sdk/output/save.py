"""Write a result beside its source: result.json, indexed PNGs and an overlay video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omni_sdk.media.source import open_source
from omni_sdk.output.writers import OverlayWriter, label_map, write_indexed_png

if TYPE_CHECKING:
    from omni_sdk.results import MaskTrack, Result

SOUND_HZ = 44_100
"""Sampling rate of an overlay's sound."""


def save_result(result: Result, directory: Path, *, masks: bool, overlay: bool) -> Path:
    """Write a result into a directory, frame by frame at bounded memory.

    Args:
        result: of a pipeline call.
        directory: made if missing.
        masks: write masks/NNNNN.png per frame, indexed by object id (0 background; where objects
            overlap the higher id is in front).
        overlay: write overlay.mp4, the source with its masks drawn on it.

    Raises:
        MediaError: the source cannot be read again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    result.save_json(directory / "result.json")
    if masks and result.tracks:
        (directory / "masks").mkdir(exist_ok=True)
        for index, found in _by_frame(result):
            labels = label_map(dict(found), result.tracks[0].size)
            write_indexed_png(directory / "masks" / f"{index:05d}.png", labels)
    if overlay:
        _write_overlay(result, directory / "overlay.mp4")
    return directory


def _by_frame(result: Result) -> Iterator[tuple[int, list[tuple[int, NDArray[np.bool_]]]]]:
    """Yield each frame index with its (object id, mask) pairs, by ascending id."""
    indices = sorted({int(i) for t in result.tracks for i in t.frame_indices})
    for index in indices:
        yield index, _masks_at(result.tracks, index)


def _masks_at(tracks: tuple[MaskTrack, ...], index: int) -> list[tuple[int, NDArray[np.bool_]]]:
    found = []
    for track in tracks:
        place = int(np.searchsorted(track.frame_indices, index))
        if place < len(track) and track.frame_indices[place] == index:
            found.append((track.object_id, track.mask_at(index)))
    return found


def _write_overlay(result: Result, path: Path) -> None:
    with open_source(result.source) as video:
        info = video.info
        size = (info.height, info.width)
        sound = video.audio(SOUND_HZ) if info.has_audio else None
        with OverlayWriter(path, size=size, fps=info.average_fps, sound=sound) as writer:
            for frame in video.forward(0, info.num_frames):
                masks = dict(_masks_at(result.tracks, frame.frame_index))
                writer.write(frame.image, masks, pts_seconds=frame.pts_seconds)
