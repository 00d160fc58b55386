"""The packet table of an MP4 file from its movie header, without a demux.

Note [Fast index]
libavformat reads every packet of a file to tell their times; the header of an MP4 file has them all in a
few kilobytes. What libavformat makes of that header is plain only for plain files, so anything else
(fragments, edit lists that cut, negative composition offsets, several video tracks, samples outside the
file, tables that disagree) returns None and is left to the demux. The tests hold this index equal to the
demux's on every kind of file they make, whole and damaged, with one difference: libavformat also finds
sync frames that the header does not list, as it reads all packets. Those listed are checked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from omni_sdk.media.demux.container import check_file
from omni_sdk.media.demux.h264 import clean_start
from omni_sdk.media.demux.mp4_boxes import (
    OddFile,
    Samples,
    children,
    expect,
    movie_box,
    only,
    optional,
    samples,
    spread,
    table,
    unpack,
)
from omni_sdk.media.demux.packets import Demuxed, PacketTable
from omni_sdk.media.limits import MediaLimits, WallClock

_CODECS = {b"avc1": "h264", b"hvc1": "hevc", b"hev1": "hevc", b"vp09": "vp9"}
_SAMPLE_ENTRY_BYTES = 78  # of a VisualSampleEntry, before its own boxes
_HEAD_BYTES = 4096
_REAL_TIME = 0x10000  # media_rate 1.0
_MAX_TICKS = 1 << 40
Boxes = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class _Track:
    handler: bytes
    media: Boxes
    sample_table: Boxes
    edits: bytes | None
    where: Samples


def read_mp4_index(path: Path, limits: MediaLimits, clock: WallClock) -> Demuxed | None:
    """Index a plain MP4 file from its header; None for everything else, see Note [Fast index].

    Raises:
        MediaError: no such file, or no regular one.
        LimitError: a limit is exceeded.
    """
    check_file(path, limits)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            return index_header(file, size, limits, clock)
    except (OddFile, OSError):
        return None


def index_header(file: BinaryIO, file_size: int, limits: MediaLimits, clock: WallClock) -> Demuxed:
    """Index the open file; see `read_mp4_index`.

    Raises:
        OddFile: the file is not plain.
        LimitError: reading took too long.
    """
    movie = children(movie_box(file, file_size))
    expect(not {b"mvex", b"cmov"} & {kind for kind, _ in movie})
    header = only(movie, b"mvhd")
    movie_scale, movie_duration = _clock_of(header)
    expect(movie_duration <= limits.max_duration_seconds * movie_scale)
    tracks = [_track(children(c), file_size) for kind, c in movie if kind == b"trak"]
    expect({t.handler for t in tracks} <= {b"vide", b"soun", b"tmcd"})
    videos = [t for t in tracks if t.handler == b"vide"]
    expect(len(videos) == 1)
    video = videos[0]
    scale, duration = _clock_of(only(video.media, b"mdhd"))
    count = len(video.where.sizes)
    expect(count <= limits.max_frames)
    steps, dts, pts = _times(video.sample_table, count)
    expect(abs(duration - int(steps.sum())) <= int(steps.max()))
    shift = _edit_shift(video.edits, pts, int(steps.sum()), Fraction(scale, movie_scale))
    codec, length_size = _codec(only(video.sample_table, b"stsd"))
    is_sync = _sync_samples(video.sample_table, count)
    if codec == "h264":
        for row in np.flatnonzero(is_sync):
            clock.check()
            is_sync[row] = _starts_cleanly(file, video.where, int(row), length_size)
    # Whether frames ahead of the first sync frame can be decoded is found out by trying: not here.
    expect(bool(is_sync[0]) and int(pts.argmin()) == 0)
    last = int(pts.argmax())
    return Demuxed(
        table=PacketTable(
            pts=pts + shift,
            dts=dts + shift,
            size=video.where.sizes,
            is_sync=is_sync,
            is_shown=np.ones(count, bool),
            is_damaged=np.zeros(count, bool),  # MP4 marks no packet as such
        ),
        num_packets=count,
        time_base=Fraction(1, scale),
        last_duration=int(steps[last]),
        codec=codec,
        has_audio=any(t.handler == b"soun" for t in tracks),
        truncated=False,
        average_fps=count * scale / int(steps.sum()),
        is_image=False,
    )


def _clock_of(header: bytes) -> tuple[int, int]:
    """Return (ticks per second, duration in ticks) of an `mvhd` or `mdhd` box."""
    version = unpack("B", header)[0]
    expect(version in (0, 1))
    scale, duration = unpack("IQ", header, 20) if version else unpack("II", header, 12)
    expect(0 < scale < 1 << 31 and 0 <= duration < _MAX_TICKS)
    return scale, duration


def _track(boxes: Boxes, file_size: int) -> _Track:
    media = children(only(boxes, b"mdia"))
    information = children(only(media, b"minf"))
    sample_table = children(only(information, b"stbl"))
    kinds = {kind for kind, _ in sample_table}
    expect(not kinds & {b"stps", b"stz2", b"cslg", b"subs", b"saiz", b"saio", b"senc"})
    edit_box = optional(boxes, b"edts")
    edits = None if edit_box is None else only(children(edit_box), b"elst")
    handler = only(media, b"hdlr")[8:12]
    references = optional(boxes, b"tref")  # chapters are a track of pictures
    expect(references is None or {kind for kind, _ in children(references)} == {b"tmcd"})
    expect(handler != b"vide" or not kinds & {b"sbgp", b"sgpd", b"stsh"})
    return _Track(handler, media, sample_table, edits, samples(sample_table, file_size))


def _times(
    boxes: Boxes, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return each sample's duration, decode time and presentation time before edits, in ticks."""
    steps = spread(table(only(boxes, b"stts"), 2), count)
    expect(bool((steps > 0).all()) and int(steps.max()) < 1 << 31)
    expect(int(steps.sum()) < _MAX_TICKS)
    dts = np.cumsum(steps) - steps
    offset_box = optional(boxes, b"ctts")
    offsets = np.zeros(count, np.int64)
    if offset_box is not None:
        offsets = spread(table(offset_box, 2, kind=">i4"), count)
    expect(bool((offsets >= 0).all()))
    # Far ahead means damage, which libavformat corrects in ways of its own.
    expect(int(offsets.max()) <= 64 * int(steps.max()))
    pts = dts + offsets
    expect(len(np.unique(pts)) == count)
    return steps, dts, pts


def _edit_shift(
    edits: bytes | None, pts: NDArray[np.int64], media_ticks: int, ratio: Fraction
) -> int:
    """Return what an edit list that shows everything adds to all times, in ticks.

    Args:
        edits: content of the `elst` box, None where there is none.
        pts: times before edits.
        media_ticks: duration of the track's samples.
        ratio: the track's ticks per tick of the movie.
    """
    if edits is None:
        return 0
    version, entries = unpack("B", edits)[0], unpack("I", edits, 4)[0]
    expect(version in (0, 1) and entries in (1, 2))
    layout, size = ("QqI", 20) if version else ("IiI", 12)
    expect(len(edits) == 8 + entries * size)
    rows = [unpack(layout, edits, 8 + n * size) for n in range(entries)]
    expect(all(rate == _REAL_TIME for _, _, rate in rows))
    delay = 0
    if entries == 2:  # an empty edit: the track starts later
        duration, media_time, _ = rows.pop(0)
        expect(media_time == -1 and 0 < duration < _MAX_TICKS)
        exact = duration * ratio
        expect(exact.denominator == 1)  # else libavformat's rounding would have to be copied
        delay = int(exact)
    duration, media_time, _ = rows[0]
    expect(0 < duration < _MAX_TICKS and media_time == int(pts.min()))
    shown = duration * ratio
    end = media_time + shown
    expect(end > int(pts.max()) and shown <= media_ticks + ratio + 1)
    return delay - media_time


def _codec(description: bytes) -> tuple[str, int]:
    """Return the decoder's name, and the bytes of a NAL unit's length in H.264 samples."""
    expect(unpack("I", description, 4)[0] == 1)
    ((kind, entry),) = children(description[8:])[:1] or [(b"", b"")]
    expect(kind in _CODECS and len(entry) >= _SAMPLE_ENTRY_BYTES)
    codec = _CODECS[kind]
    if codec != "h264":
        return codec, 0
    configuration = only(children(entry[_SAMPLE_ENTRY_BYTES:]), b"avcC")
    expect(len(configuration) >= 7 and configuration[0] == 1)
    return codec, (configuration[4] & 3) + 1


def _sync_samples(boxes: Boxes, count: int) -> NDArray[np.bool_]:
    content = optional(boxes, b"stss")
    if content is None:
        return np.ones(count, bool)
    rows = table(content, 1)[:, 0] - 1
    expect(len(rows) > 0 and int(rows[0]) >= 0 and int(rows[-1]) < count)
    expect(bool((np.diff(rows) > 0).all()))
    is_sync = np.zeros(count, bool)
    is_sync[rows] = True
    return is_sync


def _starts_cleanly(file: BinaryIO, where: Samples, row: int, length_size: int) -> bool:
    """Check one sync sample's NAL units; its first bytes are nearly always enough."""
    size = int(where.sizes[row])
    for wanted in (min(size, _HEAD_BYTES), size):
        file.seek(int(where.offsets[row]))
        head = file.read(wanted)
        expect(len(head) == wanted)
        clean = clean_start(head, length_size, size)
        if clean is not None:
            return clean
    raise OddFile
