"""Mutated movie headers through the MP4 index: no demuxer stands between a stranger's bytes and this parser.

    python tests/security/fuzz_moov.py [--count 20000] [--seconds 60] [--start 0]

Every input must be declined, end in one OmniError, or give a table that decoding can rely on: times that
differ, samples of positive size within the file, decoding that starts at row 0. Inputs follow from the
seed alone. Prints how they ended; exits with 1 and names those that broke a promise or took too long.
With atheris installed, `fuzz_parsers.py moov` does the same led by coverage.
"""

from __future__ import annotations

import argparse
import collections
import io
import random
import resource
import struct
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from mutations import MUTATIONS, SIZE, picture

from omni_sdk.errors import OmniError
from omni_sdk.media.demux.mp4_boxes import OddFile
from omni_sdk.media.demux.mp4_index import index_header
from omni_sdk.media.limits import MediaLimits, WallClock

LIMITS = MediaLimits(max_frames=100_000, max_wall_seconds=5.0)
SLOW_SECONDS = 2.0
MEMORY_BYTES = 200 << 20
KINDS = ("flip_header", "erase", "truncate", "cut_out", "boxes", "splice", "fields", "graft")
_X264 = {"g": "4", "bf": "2", "threads": "1", "preset": "veryfast"}
_FRONT = {"movflags": "faststart"}
# name -> (encoder, its options, container's options, ticks of frames, degrees turned, with sound)
_FILES: dict[str, tuple[str, dict[str, str], dict[str, str], list[int], int, bool]] = {
    "plain": ("libx264", _X264, _FRONT, list(range(12)), 0, False),
    "sound": ("libx264", _X264, _FRONT, list(range(12)), 0, True),
    "late": ("libx264", _X264, _FRONT, list(range(40, 52)), 90, False),
    "uneven": ("libx264", _X264, _FRONT, [0, 1, 3, 4, 9, 10, 30, 31, 32, 40, 41, 42], 0, False),
    "intra": ("libx264", {**_X264, "g": "1"}, {}, list(range(6)), 0, False),
    "fragments": (
        "libx264",
        _X264,
        {"movflags": "frag_keyframe+empty_moov"},
        list(range(12)),
        0,
        False,
    ),
    "no_edits": ("libx264", _X264, {**_FRONT, "use_editlist": "0"}, list(range(12)), 0, False),
    "vp9": ("libvpx-vp9", {"g": "4", "deadline": "realtime"}, _FRONT, list(range(8)), 0, False),
}


def make_corpus(folder: Path) -> dict[str, bytes]:
    """Encode the files that inputs are made from."""
    found = {}
    for name, (codec, options, container, ticks, degrees, sound) in _FILES.items():
        if codec not in av.codecs_available:
            continue
        path = folder / f"{name}.mp4"
        with av.open(str(path), "w", options=container) as sink:
            stream = sink.add_stream(codec, rate=25, options=options)
            stream.height, stream.width = SIZE
            stream.pix_fmt = "yuv420p"
            if degrees:
                stream.set_display_rotation(degrees)
            audio = sink.add_stream("aac", rate=16000, layout="mono") if sound else None
            for n, tick in enumerate(ticks):
                frame = av.VideoFrame.from_ndarray(picture(n), "rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = tick, Fraction(1, 25)
                sink.mux(stream.encode(frame))
            sink.mux(stream.encode(None))
            if audio is not None:
                block = av.AudioFrame.from_ndarray(np.zeros((1, 8192), np.float32), "fltp", "mono")
                block.sample_rate = 16000
                sink.mux([*audio.encode(block), *audio.encode(None)])
        found[name] = path.read_bytes()
    return found


def make_input(name: str, kind: str, seed: int, corpus: dict[str, bytes]) -> bytes:
    """Return file `name` spoiled in one way; the same arguments give the same bytes."""
    rng = random.Random(f"{name}/{kind}/{seed}")
    data = bytearray(corpus[name])
    if kind == "fields":
        return _fields(data, rng)
    if kind == "graft":
        return _graft(data, rng, corpus)
    return MUTATIONS[kind](data, rng, corpus)


_TABLES = (b"stts", b"ctts", b"stsc", b"stsz", b"stco", b"stss", b"elst", b"mdhd", b"mvhd", b"tkhd")


def _fields(data: bytearray, rng: random.Random) -> bytes:
    """Change 32-bit fields of the tables, also to values that nearly fit."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = data.find(rng.choice(_TABLES))
        if at < 0:
            continue
        where = at + 4 + 4 * rng.randrange(16)
        if where + 4 > len(data):
            continue
        (value,) = struct.unpack_from(">I", data, where)
        edges = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data), rng.randrange(1 << 32))
        changed = rng.choice(
            (value + 1, value - 1, value * 2, value ^ 1 << rng.randrange(32), *edges)
        )
        struct.pack_into(">I", data, where, changed & 0xFFFFFFFF)
    return bytes(data)


def _graft(data: bytearray, rng: random.Random, corpus: dict[str, bytes]) -> bytes:
    """Put a table of another file in the place of this one's, sizes around it mended."""
    other = corpus[rng.choice(sorted(corpus))]
    kind = rng.choice(_TABLES)
    at, there = data.find(kind) - 4, other.find(kind) - 4
    if at < 0 or there < 0:
        return bytes(data)
    size = int.from_bytes(data[at : at + 4], "big")
    new = other[there : there + int.from_bytes(other[there : there + 4], "big")]
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"):
        start = data.find(parent) - 4
        if 0 <= start < at < start + int.from_bytes(data[start : start + 4], "big"):
            grown = int.from_bytes(data[start : start + 4], "big") + len(new) - size
            data[start : start + 4] = (grown & 0xFFFFFFFF).to_bytes(4, "big")
    data[at : at + size] = new
    return bytes(data)


def judge(data: bytes) -> str:
    """Index one input; return how it ended.

    Raises:
        AssertionError: the table breaks a promise; anything else is an escape.
    """
    try:
        found = index_header(
            io.BytesIO(data), len(data), LIMITS, WallClock(LIMITS, "indexing an input")
        )
    except OddFile:
        return "declined"
    except OmniError:
        return "error"
    table = found.table
    assert table is not None
    assert 0 < len(table) <= LIMITS.max_frames, "count"
    assert len(np.unique(table.pts)) == len(table), "times that occur twice"
    assert bool((table.size > 0).all()), "empty samples"
    assert int(table.size.max()) <= len(data), "samples larger than the file"
    assert bool(table.is_sync[0]), "no place to start"
    assert bool((np.diff(table.dts) > 0).all()), "decode times that go back"
    assert found.time_base > 0, "time base"
    assert found.last_duration > 0, "duration"
    return "indexed"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--start", type=int, default=0, help="first seed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(Path(folder))
    assert judge(corpus["plain"]) == "indexed"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ends: collections.Counter[tuple[str, str]] = collections.Counter()
    broken: list[str] = []
    begin = time.monotonic()
    names = sorted(corpus)
    for number in range(arguments.count):
        name, kind = names[number % len(names)], KINDS[number // len(names) % len(KINDS)]
        seed = arguments.start + number // (len(names) * len(KINDS))
        start = time.monotonic()
        if start - begin > arguments.seconds:
            break
        try:
            ends[kind, judge(make_input(name, kind, seed, corpus))] += 1
        except Exception as error:
            broken.append(f"{name}/{kind}/{seed}: {type(error).__name__}: {error}")
        if time.monotonic() - start > SLOW_SECONDS:
            broken.append(f"{name}/{kind}/{seed}: took {time.monotonic() - start:.1f} s")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
    if grown > MEMORY_BYTES:
        broken.append(f"memory: {grown >> 20} MiB")
    for kind in KINDS:
        print(f"{kind:<12}", {e: ends[kind, e] for e in ("indexed", "declined", "error")})
    print(f"all {sum(ends.values())}")
    print(*(f"BROKEN {line}" for line in broken), sep="\n", end="\n" if broken else "")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
