"""The packets of a video stream in decode order, read by a demux without decoding."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from omni_sdk.errors import LimitError, MediaError
from omni_sdk.media.demux.container import (
    media_errors,
    open_container,
    tagged_seconds,
    video_stream,
)
from omni_sdk.media.demux.h264 import nal_length_size, starts_cleanly
from omni_sdk.media.demux.sound import SoundGatherer, SoundPackets
from omni_sdk.media.limits import MediaLimits, WallClock

# Codecs whose every packet gives exactly one frame (or none when damaged), checked against a full decode
# in the tests. Others may hide frames (VP8), repeat them or pack two in a packet (MPEG-4 in AVI): their
# frames are counted by decoding.
ONE_FRAME_PER_PACKET = frozenset(
    {"h264", "hevc", "vp9", "av1", "mjpeg", "ffv1", "prores", "png", "bmp", "tiff", "webp"}
)

NO_TIME = np.iinfo(np.int64).min
Row: TypeAlias = tuple[int | None, int | None, int, int, bool, bool, bool]
"""Presentation and decode time, duration, bytes, is_sync, is_shown, is_damaged of a packet."""


@dataclass(frozen=True, eq=False)
class PacketTable:
    """One row per packet, in decode order; times in ticks of the stream's time base.

    Attributes:
        pts: (P,) int64 presentation times, all different.
        dts: (P,) int64 decode times, NO_TIME where unknown.
        size: (P,) int64 bytes.
        is_sync: (P,) bool, decoding can start here.
        is_shown: (P,) bool, False for packets that an edit list or a cut start only decodes.
        is_damaged: (P,) bool, the container misses a part of the packet (MPEG-TS).
    """

    pts: NDArray[np.int64]
    dts: NDArray[np.int64]
    size: NDArray[np.int64]
    is_sync: NDArray[np.bool_]
    is_shown: NDArray[np.bool_]
    is_damaged: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.pts)

    @functools.cached_property
    def packet_of_frame(self) -> NDArray[np.int64]:
        """(N,) decode-order row of each shown frame, in presentation order."""
        shown = np.flatnonzero(self.is_shown)
        return shown[np.argsort(self.pts[shown], kind="stable")]

    @functools.cached_property
    def frame_pts(self) -> NDArray[np.int64]:
        """(N,) ascending ticks of the shown frames."""
        return self.pts[self.packet_of_frame]

    @functools.cached_property
    def sync_rows(self) -> NDArray[np.int64]:
        """(K,) decode-order rows of the sync packets."""
        return np.flatnonzero(self.is_sync)

    @functools.cached_property
    def reorder_depth(self) -> int:
        """At most this many frames are decoded before a frame and shown after it."""
        before = np.zeros(len(self), np.int64)
        for distance in range(1, min(len(self), 33)):  # 16 frames of two fields
            before[distance:] += self.pts[:-distance] > self.pts[distance:]
        return int(before.max())

    @functools.cached_property
    def _by_pts(self) -> NDArray[np.int64]:
        return np.argsort(self.pts, kind="stable")

    def row_of(self, pts: int | None, size: int) -> int | None:
        """Return the row of a packet that was just read, or None for one that is not in the table."""
        if pts is None:
            return None
        at = int(np.searchsorted(self.pts, pts, sorter=self._by_pts))
        if at == len(self):
            return None
        row = int(self._by_pts[at])
        return row if self.pts[row] == pts and self.size[row] == size else None

    def frame_of(self, pts: int | None) -> int | None:
        """Return the index of the frame shown at a time in ticks, or None."""
        if pts is None:
            return None
        at = int(np.searchsorted(self.frame_pts, pts))
        return at if at < len(self.frame_pts) and self.frame_pts[at] == pts else None

    def start_of(self, row: int) -> int:
        """Return the sync row from which decoding gives the packet at `row`, 0 where there is none.

        A leading picture of an open group (shown before the sync frame that it follows in the file)
        also needs the group before.
        """
        at = int(np.searchsorted(self.sync_rows, row, side="right")) - 1
        while at > 0 and self.pts[self.sync_rows[at]] > self.pts[row]:
            at -= 1
        return int(self.sync_rows[at]) if at >= 0 else 0

    def sync_before(self, row: int) -> int:
        """Return the last sync row before `row`, 0 where there is none."""
        at = int(np.searchsorted(self.sync_rows, row)) - 1
        return int(self.sync_rows[at]) if at >= 0 else 0


@dataclass(frozen=True, slots=True)
class Demuxed:
    """What one pass over the packets of a file found.

    Attributes:
        table: the packets, or None where frames can only be counted by decoding.
        num_packets: video packets read.
        time_base: seconds per tick.
        last_duration: ticks that the last frame is shown, 0 where unknown.
        codec: the decoder's name.
        has_audio: whether there is a sound stream.
        truncated: whether the file holds less than it promises.
        average_fps: the container's figure, 0 where unknown.
        is_image: whether it is a still image.
        sound: its sound, where it was met on the way.
    """

    table: PacketTable | None
    num_packets: int
    time_base: Fraction
    last_duration: int
    codec: str
    has_audio: bool
    truncated: bool
    average_fps: float
    is_image: bool
    sound: SoundPackets | None = None


def demux(path: Path, limits: MediaLimits, clock: WallClock) -> Demuxed:
    """Read all packets of a file.

    Raises:
        MediaError: not a readable video, or without any video packet.
        LimitError: a limit is exceeded.
    """
    name = str(path)
    container = open_container(path, limits)
    try:
        stream = video_stream(container, name, limits)
        seconds = (container.duration or 0) / 1e6
        _check_duration(name, seconds, limits)
        length_size = nal_length_size(stream.codec_context.extradata)
        is_h264 = stream.codec_context.name == "h264"
        rows: list[Row] = []
        end_seconds = 0.0  # of any stream
        skipped = 0  # AVI repeats a picture with an empty packet
        damaged = False
        last_is_corrupt = False
        start = (container.start_time or 0) / 1e6
        sound = SoundGatherer(container)
        packets = container.demux()
        while True:
            clock.check()
            try:
                with media_errors(name):
                    packet = next(packets, None)
            except MediaError:  # the rest of the file cannot be read
                damaged = True
                break
            if packet is None:
                break
            sound.add(packet)
            if packet.size == 0:
                skipped += packet.stream_index == stream.index and packet.pts is not None
                continue
            if packet.pts is not None and packet.time_base is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - start
                end_seconds = max(end_seconds, end)
            if packet.stream_index != stream.index:
                continue
            is_sync = packet.is_keyframe
            if is_sync and is_h264:
                is_sync = starts_cleanly(bytes(packet), length_size)
            rows.append(
                (
                    *(packet.pts, packet.dts, packet.duration or 0, packet.size),
                    *(is_sync, not packet.is_discard, packet.is_corrupt),
                )
            )
            last_is_corrupt = packet.is_corrupt
            if len(rows) > limits.max_frames:
                raise LimitError(f"{name!r} has more than max_frames={limits.max_frames} frames")
        gathered = sound.result(ended_early=damaged)
        if last_is_corrupt:  # cut within the packet: there is no such frame
            rows.pop()
            damaged = True
        if not rows:
            raise MediaError(f"{name!r}: its video stream holds no frame")
        table, last_duration = _table(rows, stream.codec_context.name)
        short = _is_short(container, stream, rows, end_seconds)
        if container.format.name == "avi":
            short = short or stream.frames > len(rows) + skipped
            if stream.codec_context.has_b_frames:  # AVI knows no presentation times
                table = None
        return Demuxed(
            table=table,
            num_packets=len(rows),
            time_base=stream.time_base or Fraction(1, 1000),
            last_duration=last_duration,
            codec=stream.codec_context.name,
            has_audio=bool(container.streams.audio),
            truncated=damaged or short,
            average_fps=float(stream.average_rate or 0),
            is_image=container.format.name.endswith("_pipe"),
            sound=gathered,
        )
    finally:
        container.close()


def _check_duration(name: str, seconds: float, limits: MediaLimits) -> None:
    if seconds > limits.max_duration_seconds:
        raise LimitError(
            f"{name!r} lasts {seconds:.0f} s, more than "
            f"max_duration_seconds={limits.max_duration_seconds:g}"
        )


def _table(rows: list[Row], codec: str) -> tuple[PacketTable | None, int]:
    last = max((r for r in rows if r[0] is not None), key=lambda r: r[0] or 0, default=None)
    last_duration = last[2] if last else 0
    if codec not in ONE_FRAME_PER_PACKET or any(r[0] is None for r in rows):
        return None, last_duration
    pts = np.array([r[0] for r in rows], np.int64)
    table = PacketTable(
        pts=pts,
        dts=np.array([NO_TIME if r[1] is None else r[1] for r in rows], np.int64),
        size=np.array([r[3] for r in rows], np.int64),
        is_sync=np.array([r[4] for r in rows], bool),
        is_shown=np.array([r[5] for r in rows], bool),
        is_damaged=np.array([r[6] for r in rows], bool),
    )
    # Without different times, packets and frames cannot be matched; without sync frames, nothing is won.
    if len(np.unique(pts)) < len(pts) or not table.is_sync.any() or not table.is_shown.any():
        return None, last_duration
    return table, last_duration


def _is_short(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    rows: list[Row],
    end_seconds: float,
) -> bool:
    """Tell whether the container promised more frames or a later end than was read.

    Edit lists make fewer frames than the sample table legitimately, so a smaller count alone is no
    evidence: the missing frames must be missing at the end as well. MPEG-TS and PS promise nothing (their
    duration is an estimate).
    """
    if container.format.name in ("mpegts", "mpeg"):
        return False
    times = [r[0] for r in rows if r[0] is not None]
    if stream.duration and stream.time_base and times:
        step = (max(times) - min(times)) / max(len(times) - 1, 1)
        end = max(r[0] + max(r[2], 1) for r in rows if r[0] is not None)
        promised = (stream.start_time or 0) + stream.duration
        return promised - end > 2 * step + 1
    if container.format.name.startswith("matroska") and times and stream.time_base:
        # Its muxers write each stream's end as a tag; the container's duration is that of any stream.
        step = (max(times) - min(times)) / max(len(times) - 1, 1)
        end = max(r[0] + max(r[2], 1) for r in rows if r[0] is not None)
        promised_end = tagged_seconds(stream)
        if promised_end is not None:
            return promised_end - float(end * stream.time_base) > float(2 * step * stream.time_base)
    promised_seconds = (container.duration or 0) / 1e6
    return promised_seconds - end_seconds > 0.5
