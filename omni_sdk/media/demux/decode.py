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
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from typing import TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

from omni_sdk.media.demux.packets import PacketTable
from omni_sdk.media.demux.reader import PacketReader

_SKIP_NONREF = frozenset({"h264", "hevc"})  # emptied by benchmarks to see what it is worth
_REORDER_FRAMES = 16  # H.264 and HEVC reorder at most this far

Frames = Iterator[tuple[int, av.VideoFrame]]
Group: TypeAlias = tuple[int, int, list[int]]  # first row, last row, wanted frame indices


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
        if send:
            yield from _wanted(reader.send(packet, row), table, wanted)
        if row >= last:
            break
    yield from _wanted(reader.drain(), table, wanted)
    reader.codec.flush_buffers()


def _wanted(frames: list[av.VideoFrame], table: PacketTable, wanted: Container[int]) -> Frames:
    """Yield the wanted ones; none is held while the next is decoded, for that would be memory."""
    while frames:
        frame = frames.pop(0)
        index = table.frame_of(frame.pts)
        if index is not None and index in wanted:
            yield index, frame
        del frame


def decode_sure(
    reader: PacketReader, table: PacketTable, rows: tuple[int, int], wanted: Container[int]
) -> Frames:
    """As `decode_span`, for `flags_late`: only frames that no damage can have reached.

    A frame is held until every packet decoded before its own has given a frame without a flag. Ends early
    when there is doubt (`PacketReader.has_doubt`).
    """
    held: deque[tuple[int, av.VideoFrame]] = deque()
    for item in decode_span(reader, table, rows, wanted):
        if reader.has_damage():
            return
        held.append(item)
        while held and table.packet_of_frame[held[0][0]] < reader.oldest_expected():
            yield held.popleft()
    if not reader.has_doubt():
        yield from held


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
                del frame
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
                del frame
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
