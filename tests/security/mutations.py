"""Small files of many codecs and containers, and seeded ways to spoil them. No state, no randomness."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE = (48, 64)
FRAMES = 24
_X264 = {"g": "8", "bf": "2", "threads": "1", "preset": "veryfast"}
# name -> (encoder, pixel format, encoder's options, container's options, sound encoder)
CORPUS: dict[str, tuple[str, str, dict[str, str], dict[str, str], str | None]] = {
    "h264.mp4": ("libx264", "yuv420p", _X264, {}, "aac"),
    "h264_fast.mp4": ("libx264", "yuv420p", _X264, {"movflags": "faststart"}, None),
    "h264.mkv": ("libx264", "yuv420p", _X264, {}, "aac"),
    "h264.ts": ("libx264", "yuv420p", _X264, {}, "mp2"),
    "hevc.mp4": ("libx265", "yuv420p", {"x265-params": "keyint=8:log-level=none:pools=none"}, {}, None),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"g": "8", "deadline": "realtime", "cpu-used": "8"}, {}, None),
    "av1.mp4": ("libsvtav1", "yuv420p", {"g": "8", "preset": "12", "svtav1-params": "lp=1"}, {}, None),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"g": "8", "threads": "1"}, {}, "mp2"),
    "mpeg2.ts": ("mpeg2video", "yuv420p", {"g": "8", "bf": "2", "threads": "1"}, {}, None),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {"threads": "1"}, {}, "pcm_s16le"),
    "ffv1.mkv": ("ffv1", "yuv420p", {"level": "3", "slicecrc": "1", "g": "1"}, {}, None),
    "gif.gif": ("gif", "rgb8", {}, {}, None),
    "still.png": ("png", "rgb24", {}, {}, None),
    "still.jpg": ("mjpeg", "yuvj420p", {}, {}, None),
}  # fmt: skip
STILLS = frozenset({"still.png", "still.jpg"})


def picture(n: int) -> np.ndarray:
    """Return frame n of a moving, textured pattern, (H, W, 3) uint8; no two are alike."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    red, green = (x * 5 + n * 7) % 256, (y * 3 + n * 11 + (x // 8) * 20) % 256
    blue = ((x - 2 * n) ** 2 // 8 + (y + n) ** 2 // 8) % 256
    return np.stack([red, green, blue], -1).astype(np.uint8)


def write_corpus(folder: Path) -> list[str]:
    """Write every file whose encoder this PyAV has; return their names."""
    return [name for name in CORPUS if _write(folder / name, *CORPUS[name])]


def _write(path: Path, codec: str, pix_fmt: str, options, container_options, sound) -> bool:
    if codec not in av.codecs_available:
        return False
    still = path.name in STILLS
    image = {"format": "image2", "options": {"update": "1"}} if still else {}
    with av.open(str(path), "w", **(image or {"options": container_options})) as sink:
        stream = sink.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = SIZE
        stream.pix_fmt = pix_fmt
        audio = None if sound is None else sink.add_stream(sound, rate=16000, layout="mono")
        for n in range(1 if still else FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(n), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = n, Fraction(1, 25)
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
        if audio is not None:
            wave = 8000 * np.sin(np.arange(FRAMES * 640) * 2 * np.pi * 440 / 16000)
            resampler = av.AudioResampler(
                audio.format, audio.layout, audio.rate, audio.frame_size or 640
            )
            block = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
            block.sample_rate, block.pts, block.time_base = 16000, 0, Fraction(1, 16000)
            for part in [*resampler.resample(block), None]:
                sink.mux(audio.encode(part))
    return True


def mutate(name: str, kind: str, seed: int, corpus: dict[str, bytes]) -> bytes:
    """Return file `name` of the corpus spoiled in one way; the same arguments give the same bytes."""
    rng = random.Random(f"{name}/{kind}/{seed}")
    return MUTATIONS[kind](bytearray(corpus[name]), rng, corpus)


Corpus = dict[str, bytes]


def _flip(data: bytearray, rng: random.Random, _: Corpus) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 4, 8, 20, 60))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _flip_header(data: bytearray, rng: random.Random, _: Corpus) -> bytes:
    """Spoil where containers keep their tables: the first and last kilobyte."""
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(min(1024, len(data)))
        data[at if rng.random() < 0.5 else len(data) - 1 - at] = rng.randrange(256)
    return bytes(data)


def _erase(data: bytearray, rng: random.Random, _: Corpus) -> bytes:
    size = rng.randrange(1, max(2, len(data) // rng.choice((4, 16, 64))))
    at = rng.randrange(len(data))
    part = data[at : at + size]
    data[at : at + size] = rng.choice(
        (bytes(len(part)), b"\xff" * len(part), rng.randbytes(len(part)))
    )
    return bytes(data)


def _truncate(data: bytearray, rng: random.Random, _: Corpus) -> bytes:
    return bytes(data[: rng.randrange(1, len(data))])


def _cut_out(data: bytearray, rng: random.Random, _: Corpus) -> bytes:
    """Take a piece out, double it or move it: offsets in tables no longer fit."""
    start, stop = sorted(rng.randrange(len(data)) for _ in range(2))
    piece = data[start:stop]
    return bytes(data[:start] + rng.choice((b"", piece * 2, piece[::-1])) + data[stop:])


_BOXES = (
    *(b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"stts", b"ctts", b"stsc", b"stsz", b"stco"),
    *(b"elst", b"edts", b"mvhd", b"tkhd", b"mdhd", b"hdlr", b"mdat", b"ftyp", b"avcC", b"hvcC", b"stss"),
    *(b"RIFF", b"LIST", b"strh", b"strf", b"avih", b"movi", b"idx1", b"00dc", b"IHDR", b"IDAT", b"\xff\xc4"),
    *(b"\x1f\x43\xb6\x75", b"\x16\x54\xae\x6b", b"\x15\x49\xa9\x66", b"\x1c\x53\xbb\x6b", b"\xff\xda"),
)  # fmt: skip


def _boxes(data: bytearray, rng: random.Random, _: Corpus) -> bytes:
    """Surgery on named parts (mp4 boxes, RIFF chunks, EBML elements): sizes, counts, names."""
    places = [at for box in _BOXES if (at := data.find(box)) >= 4] or [4]
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.choice(places)
        what = rng.randrange(4)
        if what == 0:  # the size in front of the name, or behind it
            where = at - 4 if rng.random() < 0.7 else at + 4
            value = rng.choice((0, 1, 7, 8, 0x7FFFFFFF, 0xFFFFFFFF, rng.randrange(1 << 32)))
            data[where : where + 4] = struct.pack(rng.choice("<>") + "I", value)
        elif what == 1:  # a count or field within
            where = at + 4 + 4 * rng.randrange(12)
            data[where : where + 4] = struct.pack(
                ">I", rng.choice((0, 0xFFFFFFFF, rng.randrange(1 << 24)))
            )
        elif what == 2:  # another name: the part is gone, or is taken for another
            data[at : at + 4] = rng.choice(
                (b"free", b"skip", rng.choice(_BOXES)[:4].ljust(4, b"x"))
            )
        else:
            data[at + 4 : at + 4] = rng.randbytes(rng.randrange(1, 64))
    return bytes(data)


def _splice(data: bytearray, rng: random.Random, corpus: Corpus) -> bytes:
    """Join the head of one file to the tail of another: one container's tables, another's streams."""
    other = corpus[rng.choice(sorted(corpus))]
    cut = rng.randrange(len(data))
    return bytes(data[:cut] + other[min(cut, len(other) - 1) :])


def _swap_streams(data: bytearray, rng: random.Random, corpus: Corpus) -> bytes:
    """Overwrite the stream's bytes by another codec's: the tables promise what is not there."""
    other = corpus[rng.choice(sorted(corpus))]
    start = rng.randrange(len(data) // 4, len(data) // 2)
    size = min(len(data) - start, len(other) // 2, rng.randrange(64, max(65, len(data) // 2)))
    at = rng.randrange(max(len(other) - size, 1))
    data[start : start + size] = other[at : at + size]
    return bytes(data)


MUTATIONS: dict[str, Callable[[bytearray, random.Random, Corpus], bytes]] = {
    "flip": _flip,
    "flip_header": _flip_header,
    "erase": _erase,
    "truncate": _truncate,
    "cut_out": _cut_out,
    "boxes": _boxes,
    "splice": _splice,
    "swap_streams": _swap_streams,
}
