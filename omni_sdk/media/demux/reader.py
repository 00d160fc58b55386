"""One open container, read from any of its packets, and its decoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias, cast

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from omni_sdk.errors import MediaError
from omni_sdk.media.demux.container import (
    media_errors,
    open_container,
    read_only,
    video_stream,
)
from omni_sdk.media.demux.damage import (
    FRAME_THREADED,
    LinearDamage,
    damaged_frames,
    late_options,
    strict_options,
)
from omni_sdk.media.demux.h264 import empty_packet, is_unreferenced, nal_length_size
from omni_sdk.media.demux.packets import NO_TIME, PacketTable
from omni_sdk.media.limits import MediaLimits, WallClock

_NEAR_PACKETS = 64  # reading on over so few packets costs less than a seek

Packet: TypeAlias = "av.Packet[VideoStream]"


class PacketReader:
    """One open container, read from any packet of the table. Use as a context manager.

    Attributes:
        is_quick: as it was opened.
        threads: that were asked for.
        clock: stops reading that takes too long.
        flags_late: the decoder has frame threads and must not be trusted with damage: groups for which
            `has_doubt` says so are to be decoded again with one thread.
        damaged_ticks: presentation times of packets that were refused, or whose frames hold concealed
            damage (see Note [Damage]).
        num_refused: packets that the decoder refused.
        linear_damage: the same for frames that are counted.
    """

    def __init__(
        self,
        path: Path,
        limits: MediaLimits,
        clock: WallClock,
        *,
        threads: int,
        is_quick: bool = False,
        reorder: int | None = None,
    ) -> None:
        """Open a container.

        Args:
            path: a local file.
            limits: bounds.
            clock: stops reading that takes too long.
            threads: frame threads, for decoders that can have them.
            is_quick: see `open_container`.
            reorder: `PacketTable.reorder_depth`, for a caller that looks at `has_doubt`; None: decoders
                that flag damage late get one thread.

        Raises:
            MediaError: see `open_container`, `video_stream`.
            LimitError: see `open_container`, `video_stream`.
        """
        self.name = str(path)
        self.is_quick = is_quick
        self.threads = threads
        self.clock = clock
        self._path = path
        self._limits = limits
        self._reorder = reorder
        self._open()
        self._closed = False
        self._last_tick: int | None = None
        self._first_tick = NO_TIME
        self._expected: dict[int, int] = {}  # row by time of packets whose frame has not come
        self._is_strange = False  # a frame came that was not expected
        self.damaged_ticks: set[int] = set()
        self.num_refused = 0
        self.linear_damage = LinearDamage()

    def _open(self) -> None:
        self.container: InputContainer = open_container(
            self._path, self._limits, is_quick=self.is_quick
        )
        try:
            self.stream = video_stream(self.container, self.name, self._limits)
            read_only(self.stream)
            self.codec = self.stream.codec_context
            late = late_options(self.codec.name, self.threads, self._reorder)
            can_have = self.codec.name in FRAME_THREADED or bool(late)
            self._threads = self.threads if can_have else 1
            self.flags_late = bool(late)
            self.codec.thread_count = self._threads
            self.codec.thread_type = "FRAME" if self._threads > 1 else "NONE"
            self._strict = strict_options(self.codec.name)
            self._lenient: av.VideoCodecContext | None = None
            self.codec.options = {**self.codec.options, **self._strict, **late}
            self._nal_length = nal_length_size(self.codec.extradata)
        except BaseException:
            self.container.close()
            raise
        self._packets: Iterator[Packet] | None = None
        self._next_row = 0
        self._is_spoilt = False

    def __enter__(self) -> PacketReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the container; safe to call twice. Reading on then raises MediaError."""
        self._closed = True
        self.container.close()

    def read_all(self) -> Iterator[Packet]:
        """Yield the packets from the start of a fresh container."""
        return self._read()

    def read_from(self, table: PacketTable, row: int) -> Iterator[tuple[int, Packet]]:
        """Yield (row, packet) from `row` on; ends early where the file no longer fits the table.

        Opens the container anew where the decoder has met damage: see Note [Spoilt decoders].
        """
        if self._is_spoilt and not self._closed:
            self.container.close()
            self._open()
        if self._packets is not None and 0 <= row - self._next_row <= _NEAR_PACKETS:
            packet = next(self._packets, None)
            at = None if packet is None else table.row_of(packet.pts, packet.size)
            if packet is not None and at == self._next_row:
                yield from self._follow(table, row, at, packet)
                return
        yield from self._seek_and_follow(table, row)

    def _seek_and_follow(self, table: PacketTable, row: int) -> Iterator[tuple[int, Packet]]:
        earlier = row
        for attempt in range(3):
            if attempt and earlier:  # the seek landed late: aim at an earlier sync frame, then at 0
                earlier = table.sync_before(earlier) if attempt == 1 else 0
            self._seek(table, earlier)
            packet = next(self._packets, None) if self._packets else None
            while packet is not None:
                at = table.row_of(packet.pts, packet.size)
                if at is not None and at <= row:
                    yield from self._follow(table, row, at, packet)
                    return
                if at is not None:
                    break
                packet = next(self._packets, None) if self._packets else None

    def _seek(self, table: PacketTable, row: int) -> None:
        by_dts = self.container.format.name.startswith("mov") and table.dts[row] != NO_TIME
        target = int(table.dts[row] if by_dts else table.pts[row])
        if row == 0:
            target = min(target, int(table.pts.min()), int(table.dts[0]))
            target = max(target, -(1 << 62))
        with media_errors(self.name):
            self.container.seek(target, stream=self.stream, backward=True)
        self.codec.flush_buffers()
        self._packets = self._read()

    def _follow(
        self, table: PacketTable, row: int, at: int, packet: Packet
    ) -> Iterator[tuple[int, Packet]]:
        """Yield from `row` on, given that `packet` is the one of row `at` <= `row`."""
        following: Packet | None = packet
        while following is not None and at < len(table):
            if table.pts[at] != following.pts or table.size[at] != following.size:
                self._packets = None
                return
            self._next_row = at + 1
            if at >= row:
                yield at, following
            at += 1
            following = next(self._packets, None) if self._packets else None

    def _read(self) -> Iterator[Packet]:
        """Yield this stream's packets; an unreadable rest ends the iteration, as in the index."""
        packets = self.container.demux(self.stream)
        while True:
            if self._closed:  # while a walk was waiting for its consumer
                raise MediaError(f"{self.name!r} is closed")
            self.clock.check()  # also while reading up to where decoding starts
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, MemoryError, UnicodeError):
                return
            if packet is None:
                return
            if packet.size:
                yield packet

    def start_span(self, table: PacketTable, row: int) -> None:
        """Begin to decode at a sync row.

        Leading pictures of an open group refer to what is not decoded: what they look like, or that they
        do not come, is no damage. None of them is wanted, or decoding would start a group earlier.
        """
        self._first_tick = int(table.pts[row])
        self._expected.clear()
        self._is_strange = False

    def has_damage(self) -> bool:
        """Tell whether anything in the span so far was flagged, refused or odd; for `flags_late`."""
        return self._is_strange or self.num_refused > 0 or bool(self.damaged_ticks)

    def has_doubt(self) -> bool:
        """Tell the same of a span at its end: also a frame that did not come is a doubt."""
        return bool(self._expected) or self.has_damage()

    def oldest_expected(self) -> int:
        """Return the first row whose frame has not come yet; without one, a row beyond all."""
        return next(iter(self._expected.values()), 1 << 62)

    def forget_damage(self) -> None:
        """Forget what is noted, for it will be found again when its group is."""
        self.num_refused = 0
        self.damaged_ticks.clear()

    def leave_out(self, packet: Packet) -> bool:
        """Tell whether a packet whose frame is not wanted need not be sent to the decoder.

        Where the decoder itself can leave such frames out, it is told to, for this packet.
        """
        if self.codec.name == "h264":
            return is_unreferenced(bytes(packet), self._nal_length)
        self.codec.skip_frame = "NONREF"
        return False

    def send(self, packet: Packet | None, row: int = 0) -> list[av.VideoFrame]:
        """Decode a packet, or drain with None; a packet that cannot be decoded gives no frame.

        Args:
            packet: the next one.
            row: where it stands in the table, if there is one.
        """
        if packet is not None:
            self._last_tick = packet.pts
            if packet.pts is not None and packet.pts >= self._first_tick:
                self._expected[packet.pts] = row
        return self._decode(packet)

    def drain(self) -> list[av.VideoFrame]:
        """Take out what the decoder holds back; `flush_buffers` is due before the next packet.

        One thread gives out all of it, and only once it has waited its turn does it know what the others
        found: see Note [Flags under frame threads]. The turns are taken by packets without a picture.
        """
        frames: list[av.VideoFrame] = []
        if self.flags_late:
            self.codec.skip_frame = "NONREF"  # a packet without a picture is no error
            for _ in range(self._threads - 1):
                frames += self._decode(cast("Packet", av.Packet(empty_packet(self._nal_length))))
        return frames + self._decode(None)

    def _decode(self, packet: Packet | None) -> list[av.VideoFrame]:
        try:
            frames = list(self.codec.decode(packet))
        except av.error.EOFError:
            return []
        except (av.error.FFmpegError, MemoryError):
            self.num_refused += 1
            self._is_spoilt = not self._strict  # whose packets stand alone
            self._note(self._last_tick)
            return self._conceal(packet)
        if packet is not None and packet.is_corrupt:  # the container misses a part of it (MPEG-TS)
            self._note(packet.pts)
        for frame in frames:
            self._arrive(frame.pts)
            if frame.is_corrupt:
                self._is_spoilt = True
                self._note(frame.pts)
        return frames

    def _arrive(self, ticks: int | None) -> None:
        if ticks is None or ticks >= self._first_tick:
            self._is_strange |= ticks is None or self._expected.pop(ticks, None) is None

    def damaged(self, table: PacketTable | None) -> set[int]:
        """Return the frames decoded so far from damaged data; `table` as they were decoded with."""
        if table is None:
            return self.linear_damage.frames
        return damaged_frames(
            table, self.damaged_ticks, whole_groups=self._threads > 1 and not self.flags_late
        )

    def lost(self, table: PacketTable, index: int) -> None:
        """Note that a wanted frame never came: what refers to it is damaged."""
        self._note(int(table.frame_pts[index]))

    def _note(self, ticks: int | None) -> None:
        if ticks is not None and ticks >= self._first_tick:
            self.damaged_ticks.add(ticks)

    def _conceal(self, packet: Packet | None) -> list[av.VideoFrame]:
        """Decode what a strict decoder refused as well as may be, where every packet stands alone."""
        if packet is None or not self._strict:
            return []
        try:
            if self._lenient is None:
                context = cast(av.VideoCodecContext, av.CodecContext.create(self.codec.name, "r"))
                context.extradata = self.codec.extradata
                context.thread_type = "NONE"
                context.options = {k: v for k, v in self.codec.options.items() if k == "max_pixels"}
                self._lenient = context
            return list(self._lenient.decode(packet))
        except (av.error.FFmpegError, MemoryError, ValueError):
            return []
