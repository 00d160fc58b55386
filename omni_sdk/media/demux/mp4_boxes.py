"""The boxes of an MP4 file (ISO/IEC 14496-12), read strictly: whatever is odd raises `OddFile`."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

_MAX_HEADER_BYTES = 256 << 20  # of a movie header; a million frames take some 40 MB
_TOP_LEVEL = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid", b"udta"})


class OddFile(Exception):  # not an error: it is read another way
    """The file is no MP4 file, or uses something that the fast index leaves to libavformat."""


def expect(condition: bool) -> None:
    """Raise `OddFile` unless the condition holds."""
    if not condition:
        raise OddFile


@dataclass(frozen=True, slots=True)
class Samples:
    """Where the samples of a track lie.

    Attributes:
        offsets: (N,) int64 file positions.
        sizes: (N,) int64 bytes, all positive.
    """

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]


def movie_box(file: BinaryIO, file_size: int) -> bytes:
    """Return the content of the one `moov` box of a plain (not fragmented) file.

    Args:
        file: the file.
        file_size: its bytes.
    """
    at, found = 0, None
    first = True
    while at < file_size:
        file.seek(at)
        head = file.read(16)
        expect(len(head) >= 8)
        size, kind = struct.unpack_from(">I4s", head)
        expect(kind == b"ftyp" if first else kind in _TOP_LEVEL)
        first = False
        skip = 8
        if size == 1:
            expect(len(head) == 16)
            size, skip = struct.unpack_from(">Q", head, 8)[0], 16
        elif size == 0:
            size = file_size - at
        expect(skip <= size <= file_size - at)
        if kind == b"moov":
            expect(found is None and size <= _MAX_HEADER_BYTES)
            file.seek(at + skip)
            found = file.read(size - skip)
            expect(len(found) == size - skip)
        at += size
    if found is None:
        raise OddFile
    return found


def children(content: bytes) -> list[tuple[bytes, bytes]]:
    """Return (kind, content) of each box in a box, which they must fill exactly."""
    boxes = []
    at = 0
    while at < len(content):
        expect(at + 8 <= len(content))
        size, kind = struct.unpack_from(">I4s", content, at)
        expect(8 <= size <= len(content) - at)  # 64-bit sizes have no place in a header
        boxes.append((kind, content[at + 8 : at + size]))
        at += size
    return boxes


def only(boxes: list[tuple[bytes, bytes]], kind: bytes) -> bytes:
    """Return the content of the one box of a kind."""
    found = optional(boxes, kind)
    if found is None:
        raise OddFile
    return found


def optional(boxes: list[tuple[bytes, bytes]], kind: bytes) -> bytes | None:
    """Return the content of the box of a kind, None where there is none; two are odd."""
    found = [content for name, content in boxes if name == kind]
    expect(len(found) <= 1)
    return found[0] if found else None


def unpack(layout: str, content: bytes, at: int = 0) -> tuple[int, ...]:
    """Unpack big-endian integers; a content that is too short is odd."""
    expect(at + struct.calcsize(">" + layout) <= len(content))
    return struct.unpack_from(">" + layout, content, at)


def table(content: bytes, columns: int, *, kind: str = ">u4", head: int = 4) -> NDArray[np.int64]:
    """Read a counted table that follows `head` bytes of version and flags and fills its box.

    Returns:
        (rows, columns) int64.
    """
    (count,) = unpack("I", content, head)
    size = count * columns * np.dtype(kind).itemsize
    expect(len(content) == head + 4 + size)
    values = np.frombuffer(content, kind, count * columns, head + 4)
    return values.astype(np.int64).reshape(count, columns)


def spread(runs: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Turn (count, value) rows into one value per sample; they must make exactly `total`."""
    expect(len(runs) <= total and bool((runs[:, 0] > 0).all()))
    expect(int(runs[:, 0].sum()) == total)
    return np.repeat(runs[:, 1], runs[:, 0])


def samples(boxes: list[tuple[bytes, bytes]], file_size: int) -> Samples:
    """Locate the samples of a track from its sample table; all must lie within the file.

    Args:
        boxes: the children of `stbl`.
        file_size: bytes in the file.
    """
    size_box = only(boxes, b"stsz")
    shared, count = unpack("II", size_box, 4)
    if shared:  # one size for all: a timecode, or PCM, which has rules of its own
        expect(count == 1)
        sizes = np.array([shared], np.int64)
    else:
        sizes = table(size_box, 1, head=8)[:, 0]
    expect(len(sizes) > 0 and bool((sizes > 0).all()) and int(sizes.max()) < 1 << 31)
    long_box, short_box = optional(boxes, b"co64"), optional(boxes, b"stco")
    if short_box is not None:
        expect(long_box is None)
        chunks = table(short_box, 1)[:, 0]
    else:
        chunks = table(only(boxes, b"co64"), 1, kind=">u8")[:, 0]
    runs = table(only(boxes, b"stsc"), 3)  # first chunk, samples in each, description
    expect(0 < len(runs) <= len(chunks) <= len(sizes))
    expect(runs[0, 0] == 1 and bool((np.diff(runs[:, 0]) > 0).all()))
    expect(bool((runs[:, 1] > 0).all()) and bool((runs[:, 2] == 1).all()))
    expect(int(runs[-1, 0]) <= len(chunks) and int(runs[:, 1].max()) <= len(sizes))
    in_chunk = np.repeat(runs[:, 1], np.diff(np.append(runs[:, 0], len(chunks) + 1)))
    expect(int(in_chunk.sum()) == len(sizes))
    before = np.cumsum(sizes) - sizes  # bytes of all earlier samples
    first = np.cumsum(in_chunk) - in_chunk
    offsets = before + np.repeat(chunks - before[first], in_chunk)
    expect(bool((chunks >= 0).all()) and bool((chunks <= file_size).all()))
    expect(int((offsets + sizes).max()) <= file_size)
    return Samples(offsets, sizes)
