"""The clips of the sampling benchmark: made once, kept in the temporary directory."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 30
_X264 = {"preset": "superfast", "bf": "2", "crf": "26"}


@dataclass(frozen=True)
class ClipPlan:
    """A generated clip: 1080p at 30 frames a second, moving texture with noise and squares."""

    name: str
    seconds: int
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=dict)
    suffix: str = "mp4"
    size: tuple[int, int] = (1080, 1920)


def h264(name: str, seconds: int, group: int) -> ClipPlan:
    """Return an H.264 clip with B-frames and groups of `group` frames."""
    return ClipPlan(name, seconds, options={**_X264, "g": str(group)})


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
TINY = ClipPlan("tiny", 2, options={**_X264, "g": "10"}, size=(96, 128))


def directory() -> Path:
    """Return the folder that keeps the clips."""
    folder = Path(tempfile.gettempdir()) / "omni-benchmark-clips"
    folder.mkdir(exist_ok=True)
    return folder


def make(plan: ClipPlan) -> Path:
    """Return the clip's path, encoding it where it is not there yet."""
    path = directory() / f"{plan.name}.{plan.suffix}"
    if path.exists():
        return path
    part = path.with_name(f"part-{path.name}")
    height, width = plan.size
    with av.open(str(part), "w") as sink:
        stream = sink.add_stream(plan.codec, rate=RATE, options=plan.options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.thread_count = 0
        texture = _texture(height + 256, width + 512)
        for n in range(plan.seconds * RATE):
            frame = _draw(texture, n, height, width)
            frame.pts, frame.time_base = n, Fraction(1, RATE)
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
    part.rename(path)
    return path


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
