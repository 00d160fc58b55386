"""The clips of the sampling benchmark: generated, and kept under a name that tells their content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 30
_X264 = {"preset": "superfast", "bf": "2", "crf": "26"}
_DRAWING = 1  # raise it when what is drawn changes


@dataclass(frozen=True)
class ClipPlan:
    """A generated clip: 1080p at 30 frames a second, moving texture with noise and squares.

    Attributes:
        name: what it is called, before the key of its content.
        seconds: how much is encoded.
        codec: encoder.
        options: of the encoder.
        suffix: container.
        size: (height, width) in pixels.
        repeats: how often the encoded packets follow each other in the file.
    """

    name: str
    seconds: int
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=dict)
    suffix: str = "mp4"
    size: tuple[int, int] = (1080, 1920)
    repeats: int = 1

    def file_name(self) -> str:
        """Return the name in the folder of clips; another plan has another one."""
        content = (self.seconds, self.codec, sorted(self.options.items()), self.size, self.repeats)
        key = hashlib.sha256(repr((_DRAWING, *content)).encode()).hexdigest()[:10]
        return f"{self.name}_{key}.{self.suffix}"


def h264(name: str, seconds: int, group: int, repeats: int = 1) -> ClipPlan:
    """Return an H.264 clip with B-frames and groups of `group` frames."""
    return ClipPlan(name, seconds, options={**_X264, "g": str(group)}, repeats=repeats)


TINY = ClipPlan("tiny", 2, options={**_X264, "g": "10"}, size=(96, 128))
H264_10S = h264("h264_10s_g30", 10, 30)
H264_60S = h264("h264_60s_g30", 60, 30)
H264_5MIN = h264("h264_300s_g30", 60, 30, repeats=5)
H264_LONG_GROUPS = h264("h264_60s_g250", 60, 250)
HEVC = ClipPlan(
    "hevc_60s_g30",
    60,
    "libx265",
    {"preset": "ultrafast", "crf": "28", "x265-params": "keyint=30:bframes=2:log-level=none"},
)
VP9 = ClipPlan(
    "vp9_60s_g30",
    60,
    "libvpx-vp9",
    {"g": "30", "deadline": "realtime", "cpu-used": "8", "row-mt": "1", "b": "4M"},
    suffix="webm",
)


def make(plan: ClipPlan, folder: Path) -> Path:
    """Return the clip's path in `folder`, encoding it where it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / plan.file_name()
    if path.exists():
        return path
    part = path.with_name(f"part-{path.name}")
    if plan.repeats > 1:
        once = ClipPlan(plan.name, plan.seconds, plan.codec, plan.options, plan.suffix, plan.size)
        _repeat(make(once, folder), part, plan)
    else:
        _encode(part, plan)
    part.rename(path)
    return path


def remux(source: Path, folder: Path, suffix: str) -> Path:
    """Return a copy of a file in another container: its pictures and its sound."""
    path = folder / f"{source.stem}.{suffix}"
    if not path.exists():
        part = path.with_name(f"part-{path.name}")
        with av.open(str(source)) as container, av.open(str(part), "w") as sink:
            kept = [*container.streams.video[:1], *container.streams.audio[:1]]
            streams = {s.index: sink.add_stream_from_template(s) for s in kept}
            for packet in container.demux(kept):
                if packet.dts is not None:
                    packet.stream = streams[packet.stream_index]
                    sink.mux(packet)
        part.rename(path)
    return path


def _encode(path: Path, plan: ClipPlan) -> None:
    height, width = plan.size
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream(plan.codec, rate=RATE, options=plan.options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.thread_count = 0
        texture = _texture(height + 256, width + 512)
        for n in range(plan.seconds * RATE):
            frame = _draw(texture, n, height, width)
            frame.pts, frame.time_base = n, Fraction(1, RATE)
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))


def _repeat(once: Path, path: Path, plan: ClipPlan) -> None:
    """Copy the packets of a clip one time after the other: long clips cost no encoding."""
    with av.open(str(path), "w") as sink:
        out = None
        for turn in range(plan.repeats):
            with av.open(str(once)) as source:
                stream = source.streams.video[0]
                if out is None:
                    out = sink.add_stream_from_template(stream)
                shift = round(turn * plan.seconds / stream.time_base)
                for packet in source.demux(stream):
                    if packet.pts is None or packet.dts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = out
                    sink.mux(packet)


def _texture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    waves = (np.sin(x / 37) + np.cos(y / 23) + np.sin((x + y) / 61)) * 40 + 128
    noise = np.random.default_rng(0).integers(-6, 7, waves.shape)
    return (waves + noise).clip(0, 255).astype(np.uint8)


def _draw(texture: np.ndarray, n: int, height: int, width: int) -> av.VideoFrame:
    """Return frame `n`: a camera that moves over the texture, and six squares."""
    dx, dy = int(256 + 200 * np.sin(n / 40)), int(128 + 100 * np.cos(n / 57))
    luma = texture[dy : dy + height, dx : dx + width].copy()
    side = height // 6
    for k in range(6):
        x = int((width - side) * (0.5 + 0.5 * np.sin(n / (30 + 7 * k) + k)))
        y = int((height - side) * (0.5 + 0.5 * np.cos(n / (41 + 5 * k) + 2 * k)))
        luma[y : y + side, x : x + side] = luma[y : y + side, x : x + side] // 2 + 40 * k % 128
    half_y, half_x = slice(dy // 2, dy // 2 + height // 2), slice(dx // 2, dx // 2 + width // 2)
    planes = (luma, texture[half_y, half_x], texture[half_y, half_x][::-1])
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.frombuffer(plane, np.uint8)[: values.shape[0] * plane.line_size]
        rows.reshape(-1, plane.line_size)[:, : values.shape[1]] = values
    return frame
