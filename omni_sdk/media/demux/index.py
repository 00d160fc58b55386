"""The index of a file: what its frames are, from its header or a demux and with little decoding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from omni_sdk.errors import LimitError, MediaError
from omni_sdk.media.demux.decode import decode_linear
from omni_sdk.media.demux.exif import exif_orientation
from omni_sdk.media.demux.mp4_index import read_mp4_index
from omni_sdk.media.demux.packets import Demuxed, PacketTable, demux
from omni_sdk.media.demux.reader import PacketReader
from omni_sdk.media.demux.sound import SoundPackets
from omni_sdk.media.frames import VideoIndex
from omni_sdk.media.limits import MediaLimits, WallClock
from omni_sdk.media.pixels.convert import Orientation


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file ready for decoding.

    Attributes:
        index: the public part.
        table: its packets, or None where frames are found by decoding from the start.
        first_seconds: container time of frame 0; the sound is aligned with it.
        has_audio: whether there is a sound stream.
        orientation: of a still image; None: each frame says its own.
        is_quick: the header says all that decoding needs, so that containers can be opened without
            libavformat's own look at the first frames.
        codec: the decoder's name.
        sound: its sound, where a demux made the index and has met it.
        reader: the container that the first frame came from, ready to be read and decoded from any row;
            whoever has this closes it.
    """

    index: VideoIndex
    table: PacketTable | None
    first_seconds: float
    has_audio: bool
    orientation: Orientation | None
    is_quick: bool
    codec: str
    sound: SoundPackets | None = None
    reader: PacketReader | None = None


def index_file(path: Path, limits: MediaLimits, *, threads: int = 1) -> IndexedFile:
    """Index a file.

    Args:
        path: a local file.
        limits: bounds.
        threads: of the reader that is handed on, for a file of a single group; else it has one.

    Raises:
        MediaError: not a readable video or image, or nothing in it can be decoded.
        LimitError: a limit is exceeded.
    """
    clock = WallClock(limits, f"indexing {str(path)!r}")
    plain = read_mp4_index(path, limits, clock)
    if plain is not None:
        first = _first_frame(path, limits, plain, clock, threads)
        if first is not None and plain.table is not None:
            frame, reader = first
            try:
                indexed = _indexed(path, limits, plain, plain.table, frame, is_quick=True)
            except BaseException:
                reader.close()
                raise
            return replace(indexed, reader=reader)
    found = demux(path, limits, clock)
    if found.table is None:
        return _index_by_decoding(path, limits, found, clock)
    table, head = _decodable_head(path, limits, found.table, clock)
    if len(table.frame_pts) == 0:
        raise MediaError(f"{str(path)!r} holds no frame that can be decoded")
    return _indexed(path, limits, found, table, head, is_quick=False)


def _indexed(
    path: Path,
    limits: MediaLimits,
    found: Demuxed,
    table: PacketTable,
    first: av.VideoFrame,
    *,
    is_quick: bool,
) -> IndexedFile:
    ticks = table.frame_pts
    seconds = (ticks - ticks[0]) * float(found.time_base)
    # Decoding starts at a sync frame, or at the first shown frame after one that is not shown.
    sync = np.searchsorted(ticks, table.pts[table.sync_rows])
    sync = np.unique(np.append(sync[sync < len(ticks)], 0))
    return IndexedFile(
        _public_index(path, limits, seconds, sync, first, found),
        table,
        float(ticks[0] * found.time_base),
        found.has_audio,
        _still_orientation(path, found),
        is_quick,
        found.codec,
        found.sound,
    )


def _first_frame(
    path: Path, limits: MediaLimits, found: Demuxed, clock: WallClock, threads: int
) -> tuple[av.VideoFrame, PacketReader] | None:
    """Decode frame 0 of a file indexed from its header; None where libavformat sees another file."""
    table = found.table
    if table is None:
        return None
    several = len(table.sync_rows) > 1
    try:
        reader = PacketReader(
            path,
            limits,
            clock,
            threads=1 if several else threads,
            is_quick=True,
            reorder=table.reorder_depth,
        )
    except MediaError:  # the demux tells what is wrong
        return None
    frame: av.VideoFrame | None = None
    try:
        same = (
            reader.container.format.name.startswith("mov")
            and reader.codec.name == found.codec
            and reader.stream.time_base == found.time_base
            and bool(reader.container.streams.audio) == found.has_audio
        )
        packet = next(reader.read_all(), None) if same else None
        if packet is not None and table.row_of(packet.pts, packet.size) == 0:
            frame = next(iter(reader.send(packet) + reader.drain()), None)
            reader.codec.flush_buffers()
            reader.forget_damage()
    except MediaError:
        pass
    finally:
        if frame is None:
            reader.close()
    return None if frame is None else (frame, reader)


def _still_orientation(path: Path, found: Demuxed) -> Orientation | None:
    return Orientation.of_exif(exif_orientation(path)) if found.is_image else None


def _public_index(
    path: Path,
    limits: MediaLimits,
    seconds: NDArray[np.float64],
    sync: NDArray[np.intp],
    first: av.VideoFrame,
    found: Demuxed,
) -> VideoIndex:
    last = float(found.last_duration * found.time_base)
    if last <= 0 and len(seconds) > 1:
        last = float(np.median(np.diff(seconds)))
    if last <= 0:
        last = 1 / found.average_fps if found.average_fps > 0 else 0.04
    duration = float(seconds[-1]) + last
    if duration > limits.max_duration_seconds:
        raise LimitError(
            f"{str(path)!r} lasts {duration:.0f} s, more than "
            f"max_duration_seconds={limits.max_duration_seconds:g}"
        )
    orientation = _still_orientation(path, found) or Orientation.of(first)
    height, width = first.height, first.width
    return VideoIndex(
        pts_seconds=seconds,
        sync_frames=sync.astype(np.int64),
        height=width if orientation.transpose else height,
        width=height if orientation.transpose else width,
        rotation=orientation.rotation,
        duration_seconds=duration,
        truncated=found.truncated,
    )


def _decodable_head(
    path: Path, limits: MediaLimits, table: PacketTable, clock: WallClock
) -> tuple[PacketTable, av.VideoFrame]:
    """Decode the first frame, and the start of a file that was cut within a group.

    Frames before the first sync frame, in the file or on screen, refer to what was cut off: some
    decoders drop them. Whether each comes is tried; those that do not are no frames.
    """
    first_sync = int(table.sync_rows[0])
    rows = np.arange(len(table))
    doubtful = (rows < first_sync) | (table.pts < table.pts[first_sync])
    last = max(first_sync, int(rows[doubtful].max(initial=0)))
    seen: set[int] = set()
    first: av.VideoFrame | None = None
    with PacketReader(path, limits, clock, threads=1) as reader:
        packets = reader.read_all()
        for row, packet in enumerate(packets):
            frames = reader.send(packet)
            if row >= last and (doubtful.any() or row == len(table) - 1):
                frames += reader.send(None)
                reader.codec.flush_buffers()
            for frame in frames:
                first = frame if first is None else first
                if frame.pts is not None:
                    seen.add(frame.pts)
            if row >= last and first is not None:
                break
    if first is None:
        raise MediaError(f"{str(path)!r} holds no frame that can be decoded")
    came = np.isin(table.pts, np.fromiter(seen, np.int64, len(seen)))
    return replace(table, is_shown=table.is_shown & (~doubtful | came)), first


def _index_by_decoding(
    path: Path, limits: MediaLimits, found: Demuxed, clock: WallClock
) -> IndexedFile:
    ticks: list[int | None] = []
    sync: list[int] = []
    first: av.VideoFrame | None = None
    with PacketReader(path, limits, clock, threads=1) as reader:
        everything = range(limits.max_frames + 1)
        for index, frame in decode_linear(reader, everything, limits.max_frames):
            if index >= limits.max_frames:
                raise LimitError(
                    f"{str(path)!r} has more than max_frames={limits.max_frames} frames"
                )
            first = frame if first is None else first
            ticks.append(frame.pts)
            if frame.key_frame:
                sync.append(index)
        if reader.num_refused:  # frames that the packets promised and that are not in the count
            found = replace(found, truncated=True)
    if first is None:
        raise MediaError(f"{str(path)!r} holds no frame that can be decoded")
    step = 1 / found.average_fps if found.average_fps > 0 else 0.04
    start = ticks[0] or 0
    seconds = np.zeros(len(ticks))
    for n, tick in enumerate(ticks):
        if tick is not None:
            seconds[n] = (tick - start) * float(found.time_base)
        elif n:
            seconds[n] = seconds[n - 1] + step
    seconds = np.maximum.accumulate(seconds)
    index_ = _public_index(path, limits, seconds, np.unique([0, *sync]), first, found)
    orientation = _still_orientation(path, found)
    first_seconds = float(start * found.time_base)
    return IndexedFile(
        index_, None, first_seconds, found.has_audio, orientation, False, found.codec, found.sound
    )
