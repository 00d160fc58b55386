"""Frames one after the other, both ways, at bounded memory."""

from __future__ import annotations

from collections.abc import Callable

from omni_sdk.media.demux.decode import Frames, decode_linear, decode_span, decode_sure, in_order
from omni_sdk.media.demux.packets import PacketTable
from omni_sdk.media.demux.reader import PacketReader

OpenReader = Callable[["int | None"], PacketReader]


class Walker:
    """Decodes runs of frames in presentation order. A context manager that holds its containers.

    A decoder that flags damage late is used as long as it has no doubt; from the group on in which it has,
    one that decodes with a single thread takes over.
    """

    def __init__(
        self, open_reader: OpenReader, table: PacketTable | None, missing: set[int]
    ) -> None:
        """Open nothing yet.

        Args:
            open_reader: opens the file; its argument is `PacketReader`'s `reorder`.
            table: the packets, None where frames are counted.
            missing: frames that never come are added to it.
        """
        self._open = open_reader
        self._table = table
        self._reader: PacketReader | None = None
        self._trusts = table is not None
        self._missing = missing

    def __enter__(self) -> Walker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the container; safe to call twice."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def frames(self, start: int, stop: int) -> Frames:
        """Yield (index, frame) of [start, stop) in order; what never comes is noted in `missing`."""
        return in_order(self._decode(start, stop), start, self._lost, stop)

    def damaged(self) -> set[int]:
        """Return frames known to be decoded from damaged data, since the container was opened."""
        return set() if self._reader is None else self._reader.damaged(self._table)

    def _decode(self, start: int, stop: int) -> Frames:
        table = self._table
        if table is None:  # frames are counted from the start of a fresh container
            self.close()
            self._reader = self._open(None)
            yield from decode_linear(self._reader, range(start, stop), stop - 1)
            return
        if self._reader is None:
            self._reader = self._open(table.reorder_depth if self._trusts else None)
        skip = True
        if self._reader.flags_late:
            rows = _rows(table, start, stop)
            for index, frame in decode_sure(self._reader, table, rows, range(start, stop)):
                yield index, frame
                start = index + 1
            if not self._reader.has_doubt():
                return
            self.close()
            self._trusts = False
            self._reader = self._open(None)
            # What fills damage depends on the frames before: none is left out, as in a walk that
            # one thread made from its start.
            skip = False
        if start < stop:
            rows = _rows(table, start, stop)
            yield from decode_span(self._reader, table, rows, range(start, stop), skip=skip)

    def _lost(self, index: int) -> None:
        self._missing.add(index)
        if self._table is not None and self._reader is not None:
            self._reader.lost(self._table, index)


def _rows(table: PacketTable, start: int, stop: int) -> tuple[int, int]:
    """Return the first and last row that decoding frames [start, stop) takes."""
    rows = table.packet_of_frame[start:stop]
    # The first frames on screen may be stored after ones of an earlier group.
    return min(table.start_of(int(row)) for row in rows[:16]), int(rows.max())
