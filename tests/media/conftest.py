"""Small real files, made on the fly, and the oracle: a plain decode of everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest


def picture(n: int, height: int, width: int) -> np.ndarray:
    """Return frame n of a moving, textured pattern, (H, W, 3) uint8; no two are alike."""
    y, x = np.mgrid[0:height, 0:width]
    r = (x * 5 + n * 7) % 256
    g = (y * 3 + n * 11 + (x // 8) * 20) % 256
    b = ((x - 2 * n) ** 2 // 8 + (y + n) ** 2 // 8) % 256
    return np.stack([r, g, b], -1).astype(np.uint8)


@dataclass(frozen=True)
class Oracle:
    """Every frame of a file as a plain decode gives it: decoders put out presentation order."""

    pts: list[int | None]
    seconds: np.ndarray
    images: list[np.ndarray]


def _write(
    path: Path,
    *,
    codec: str = "libx264",
    frames: int = 40,
    size: tuple[int, int] = (48, 64),
    rate: int = 25,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    format: str | None = None,
    ticks: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rotation: int = 0,
    color: tuple[int, int] | None = None,
    audio_seconds: float = 0.0,
    audio_start: float = 0.0,
    audio_rate: int = 44100,
    audio_codec: str = "aac",
) -> Path:
    """Encode `frames` pictures, with a 440 Hz tone where `audio_seconds` > 0."""
    with av.open(str(path), "w", format=format, options=container_options or {}) as sink:
        if codec == "libx265":
            options = {"x265-params": "log-level=none:pools=none", **(options or {})}
        stream = sink.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        if time_base is not None:
            stream.codec_context.time_base = time_base
        if color is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = color
        if rotation:
            stream.set_display_rotation(rotation)
        sound = None
        if audio_seconds:
            sound = sink.add_stream(audio_codec, rate=audio_rate, layout="mono")
        for n in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(n, *size), format="rgb24")
            if color is not None:
                frame = frame.reformat(
                    format=pix_fmt, dst_colorspace=color[0], dst_color_range=color[1]
                )
                frame.colorspace, frame.color_range = color
            else:
                frame = frame.reformat(format=pix_fmt)
            frame.pts = n if ticks is None else ticks[n]
            frame.time_base = time_base or Fraction(1, rate)
            for packet in stream.encode(frame):
                sink.mux(packet)
        for packet in stream.encode(None):
            sink.mux(packet)
        if sound is not None:
            count = int(audio_seconds * audio_rate)
            tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(count) / audio_rate)
            step = 1024
            for at in range(0, count, step):
                block = tone[None, at : at + step].astype(np.float32)
                chunk = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                chunk.sample_rate = audio_rate
                chunk.pts = at + round(audio_start * audio_rate)
                chunk.time_base = Fraction(1, audio_rate)
                for packet in sound.encode(chunk):
                    sink.mux(packet)
            for packet in sound.encode(None):
                sink.mux(packet)
    return path


def _decode_all(path: Path) -> Oracle:
    found: list[tuple[int | None, np.ndarray]] = []
    with av.open(str(path), metadata_errors="ignore") as source:
        stream = source.streams.video[0]
        context = stream.codec_context
        context.thread_type = "NONE"
        packets = source.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.error.FFmpegError:
                packet = None
            done = packet is None or packet.size == 0
            try:
                for frame in context.decode(None if done else packet):
                    found.append((frame.pts, frame.to_ndarray(format="rgb24")))
            except av.error.FFmpegError:
                pass
            if done:
                break
        base = float(stream.time_base)
    start = found[0][0] or 0 if found else 0
    seconds = np.array([np.nan if p is None else (p - start) * base for p, _ in found])
    return Oracle([p for p, _ in found], seconds, [i for _, i in found])


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Return a function (name, **options of `_write`) -> path."""

    def make(name: str = "clip.mp4", **options: Any) -> Path:
        return _write(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def decode_all() -> Callable[[Path], Oracle]:
    """Return the oracle."""
    return _decode_all


@pytest.fixture(scope="session")
def draw() -> Callable[..., np.ndarray]:
    """Return the picture function."""
    return picture


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small H.264 clip with B-frames, groups of 10 and a tone."""
    return _write(
        tmp_path_factory.mktemp("clip") / "clip.mp4",
        options={"g": "10", "bf": "2"},
        audio_seconds=1.6,
    )


@pytest.fixture(scope="session")
def shared_media(shared: Path) -> Path:
    """Return the folder of real clips."""
    return shared / "media"
