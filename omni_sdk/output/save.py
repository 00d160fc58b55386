"""Write a result beside its source: result.json, indexed PNGs and an overlay video."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omni_sdk.errors import MediaError, ResultError
from omni_sdk.media.source import Source, is_live, open_source
from omni_sdk.output.writers import OverlayWriter, label_map, write_indexed_png

if TYPE_CHECKING:
    from omni_sdk.dus.tracks import MaskTrack

SOUND_HZ = 44_100
"""Sampling rate of an overlay's sound."""


@contextmanager
def written_beside(directory: Path) -> Iterator[Path]:
    """Give a folder to write into; at the end its files move into `directory`, after a failure none does.

    Args:
        directory: made if missing; files of the same names are replaced, others stay.

    Raises:
        ResultError: it cannot be written.
    """
    made = not directory.exists()
    with write_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".saving-", dir=directory))
        try:
            yield beside
            _move(beside, directory)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            if made:
                with suppress(OSError):
                    directory.rmdir()
            raise


def _move(source: Path, target: Path) -> None:
    moves = [(f, target / f.relative_to(source)) for f in sorted(source.rglob("*")) if f.is_file()]
    for _, place in moves:  # before the first one moves
        if place.is_dir() or place.parent.is_file():
            raise ResultError(
                f"{str(place)!r} cannot be written: a file or folder of that name is in the way"
            )
    for file, place in moves:
        place.parent.mkdir(exist_ok=True)
        file.replace(place)
    for folder in sorted(source.rglob("*"), reverse=True):
        folder.rmdir()
    source.rmdir()


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into one ResultError that names `path`."""
    try:
        yield
    except OSError as e:
        raise ResultError(f"{str(path)!r} cannot be written: {e.strerror or e}") from e


def check_redrawable(source: Source | None) -> None:
    """Check that the frames of a source can be read once more, for the overlay.

    Raises:
        MediaError: there is no source, it can be read only once, or it is live.
    """
    if source is None:
        raise MediaError(
            "this result has no source to draw on: give source= to Result.load, or save with overlay=False"
        )
    if isinstance(source, Iterator):
        raise MediaError(
            f"the frames came from a {type(source).__name__}, which can be read only once: give the pipeline "
            "a list of frames or a path, or save with overlay=False"
        )
    if is_live(source):
        raise MediaError(
            f"{source!r} shows other frames by now than those that were masked: save with overlay=False, or "
            "record to a file first"
        )


def save_masks(tracks: Sequence[MaskTrack], directory: Path) -> None:
    """Write NNNNN.png per frame, indexed by object id, one frame in memory at a time.

    Background is 0; where objects overlap the higher id is in front.

    Args:
        tracks: of one source, at least one.
        directory: made if missing.

    Raises:
        ResultError: an object id that an indexed PNG cannot hold.
    """
    if beyond := [t.object_id for t in tracks if not 1 <= t.object_id <= 255]:
        raise ResultError(
            f"an indexed PNG holds object ids 1 to 255, got {beyond}: save with masks=False"
        )
    directory.mkdir(parents=True, exist_ok=True)
    for index in sorted({int(i) for t in tracks for i in t.frame_indices}):
        labels = label_map(dict(_masks_at(tracks, index)), tracks[0].size)
        write_indexed_png(directory / f"{index:05d}.png", labels)


def save_overlay(source: Source, tracks: Sequence[MaskTrack], path: Path) -> None:
    """Write the source, with its sound and the masks drawn on it, as an mp4.

    Raises:
        MediaError: the source cannot be read again, or its frames have another size than the masks.
    """
    with open_source(source) as video:
        info = video.info
        size = (info.height, info.width)
        if tracks and tracks[0].size != size:
            height, width = tracks[0].size
            raise MediaError(
                f"the source has frames of {info.width} x {info.height} pixels, but the masks {width} x "
                f"{height}: give the source that the result was made from"
            )
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
