"""Decoding named frames exactly: sync-frame groups, matched by time, always drained.

Note [Exactness]
A frame is right when its time is, and its pixels are those of a decode of the whole file. Decoding starts
at a sync frame that the wanted frame does not reach back over (`PacketTable.start_of`), goes in decode
order up to the wanted packet and then drains the decoder, which gives the frames it still holds back for
reordering. Frames are recognised by their time, never counted. Where a seek lands is checked packet by
packet (time and size) against the table; when it does not fit, reading starts again further ahead.
Frames that no other frame refers to are not decoded unless wanted, for the codecs where that was measured
to be bit-exact (H.264, HEVC; with AV1 frames got lost). H.264's are recognised here and never reach the
decoder: told to skip them, it would also pass over a damaged packet without a word.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias, cast

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from omni_sdk.errors import MediaError
from omni_sdk.media.container import media_errors, open_container, video_stream
from omni_sdk.media.damage import (
    FRAME_THREADED,
    LinearDamage,
    damaged_frames,
    late_options,
    strict_options,
)
from omni_sdk.media.h264 import empty_packet, is_unreferenced, nal_length_size
from omni_sdk.media.limits import MediaLimits, WallClock
from omni_sdk.media.packets import NO_TIME, PacketTable

_SKIP_NONREF = frozenset({"h264", "hevc"})  # emptied by benchmarks to see what it is worth
_NEAR_PACKETS = 64  # reading on over so few packets costs less than a seek
_REORDER_FRAMES = 16  # H.264 and HEVC reorder at most this far

Frames = Iterator[tuple[int, av.VideoFrame]]
Group: TypeAlias = tuple[int, int, list[int]]  # first row, last row, wanted frame indices
Packet: TypeAlias = "av.Packet[VideoStream]"


class PacketReader:
    """One open container, read from any packet of the table. Use as a context manager.

    Attributes:
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
        self._clock = clock
        self.container: InputContainer = open_container(path, limits, is_quick=is_quick)
        try:
            self.stream = video_stream(self.container, self.name, limits)
            self.codec = self.stream.codec_context
            late = late_options(self.codec.name, threads, reorder)
            can_have = self.codec.name in FRAME_THREADED or bool(late)
            self._threads = threads if can_have else 1
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
        self._closed = False
        self._last_tick: int | None = None
        self._first_tick = NO_TIME
        self._num_expected = 0  # frames that the packets of the span should still give
        self.damaged_ticks: set[int] = set()
        self.num_refused = 0
        self.linear_damage = LinearDamage()

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
        """Yield (row, packet) from `row` on; ends early where the file no longer fits the table."""
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
            self._clock.check()  # also while reading up to where decoding starts
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
        self._num_expected = 0

    def has_doubt(self) -> bool:
        """Tell whether anything in the span may be damaged, its end included; for `flags_late`."""
        return self._num_expected != 0 or self.num_refused > 0 or bool(self.damaged_ticks)

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

    def send(self, packet: Packet | None) -> list[av.VideoFrame]:
        """Decode a packet, or drain with None; a packet that cannot be decoded gives no frame."""
        if packet is not None:
            self._last_tick = packet.pts
            self._expect(packet.pts, 1)
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
            self._note(self._last_tick)
            return self._conceal(packet)
        if packet is not None and packet.is_corrupt:  # the container misses a part of it (MPEG-TS)
            self._note(packet.pts)
        for frame in frames:
            self._expect(frame.pts, -1)
            if frame.is_corrupt:
                self._note(frame.pts)
        return frames

    def _expect(self, ticks: int | None, count: int) -> None:
        if ticks is None or ticks >= self._first_tick:
            self._num_expected += count

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


def decode_span(
    reader: PacketReader,
    table: PacketTable,
    rows: tuple[int, int],
    wanted: Container[int],
    *,
    skip: bool = True,
) -> Frames:
    """Decode packets rows[0]..rows[1] and yield the wanted frames with their index, as they come.

    Args:
        reader: an open container.
        table: its packets.
        rows: first (a sync packet) and last row, inclusive.
        wanted: frame indices to yield.
        skip: leave frames out that nothing needs.
    """
    first, last = rows
    skip = skip and reader.codec.name in _SKIP_NONREF
    packets = reader.read_from(table, first)
    reader.start_span(table, first)
    for row, packet in packets:
        if skip and table.frame_of(packet.pts) not in wanted:
            send = not reader.leave_out(packet)
        else:
            send, reader.codec.skip_frame = True, "DEFAULT"
        for frame in reader.send(packet) if send else ():
            index = table.frame_of(frame.pts)
            if index is not None and index in wanted:
                yield index, frame
        if row >= last:
            break
    for frame in reader.drain():
        index = table.frame_of(frame.pts)
        if index is not None and index in wanted:
            yield index, frame
    reader.codec.flush_buffers()


def decode_linear(reader: PacketReader, wanted: Container[int], stop: int) -> Frames:
    """Decode a fresh container from its start and count frames: for files without usable times."""
    index = 0
    packets = reader.read_all()
    while True:
        packet = next(packets, None)
        refused = reader.num_refused
        frames = reader.send(packet)
        refused = reader.num_refused - refused
        if refused and not frames:
            reader.linear_damage.lost(index)
        for frame in frames:
            damaged = frame.is_corrupt or refused > 0 or (packet is not None and packet.is_corrupt)
            reader.linear_damage.saw(index, is_key=frame.key_frame, is_damaged=damaged)
            if index in wanted:
                yield index, frame
            index += 1
        if packet is None or index > stop:
            return


def plan_groups(
    table: PacketTable, frame_indices: Sequence[int] | NDArray[np.int64]
) -> list[Group]:
    """Gather wanted frames by the sync frame they are decoded from.

    Returns:
        (first row, last row, frame indices) of each group, in decode order.
    """
    groups: dict[int, list[int]] = {}
    for index in sorted({int(i) for i in frame_indices}):
        groups.setdefault(table.start_of(int(table.packet_of_frame[index])), []).append(index)
    return [
        (start, int(table.packet_of_frame[members].max()), members)
        for start, members in sorted(groups.items())
    ]


def decode_groups(
    reader: PacketReader,
    table: PacketTable,
    groups: Sequence[Group],
    emit: Callable[[int, av.VideoFrame], None],
) -> list[Group]:
    """Decode groups and hand each wanted frame to `emit` once; a second try starts a group earlier.

    Returns:
        What never came. Of a reader that flags damage late: the groups that are to be decoded again with
        one thread, whole; frames of theirs may have been handed out already.
    """
    left: list[Group] = []
    for start, last, members in groups:
        if reader.flags_late:
            waiting = set(members)
            for index, frame in decode_span(reader, table, (start, last), frozenset(members)):
                waiting.discard(index)
                emit(index, frame)
            if waiting or reader.has_doubt():
                left.append((start, last, members))
                reader.forget_damage()
            continue
        first = start
        waiting = set(members)
        for attempt in range(2):
            if attempt:
                first = table.sync_before(first)
            for index, frame in decode_span(
                reader, table, (first, last), frozenset(waiting), skip=attempt == 0
            ):
                if index in waiting:
                    waiting.discard(index)
                    emit(index, frame)
            if not waiting:
                break
        if waiting:
            left.append((start, last, sorted(waiting)))
    return left


def in_order(frames: Frames, start: int, missing: Callable[[int], None], stop: int) -> Frames:
    """Put frames in presentation order and report the ones in [start, stop) that never come.

    Decoders give frames in order except in damaged streams or before they have learned how far a
    stream reorders; a frame that is more than 16 frames late is taken to be lost.
    """
    held: list[tuple[int, int, av.VideoFrame]] = []
    expected = start

    def release() -> tuple[int, av.VideoFrame] | None:
        nonlocal expected
        index, _, frame = heapq.heappop(held)
        if index < expected:  # came too late, or twice
            return None
        for lost in range(expected, index):
            missing(lost)
        expected = index + 1
        return index, frame

    for serial, (index, frame) in enumerate(frames):  # the serial: frames cannot be compared
        heapq.heappush(held, (index, serial, frame))
        while held and (held[0][0] <= expected or len(held) > _REORDER_FRAMES):
            item = release()
            if item is not None:
                yield item
    while held:
        item = release()
        if item is not None:
            yield item
    for lost in range(expected, stop):
        missing(lost)
