"""Generated clips with exact masks: one textured object before a textured, panning background.

Six kinds: "rigid" (moves and turns), "scaling" (turns and grows), "articulated" (a body with two arms that
swing), "deforming" (a smooth wave runs through it), "occluded" (a bar passes in front) and "blurred" (fast,
with an open shutter). Frames go through x264 (or the first encoder that PyAV has), so that the luma is what
a decoder gives.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import av
import numpy as np
from numpy.typing import NDArray

KINDS = ("rigid", "scaling", "articulated", "deforming", "occluded", "blurred")
SIZE = (360, 640)
FRAMES = 25
SHUTTER = 5  # pictures averaged to one blurred frame

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Clip:
    """Decoded grey frames (T, H, W) uint8 and the visible mask of the object in each, (T, H, W) bool."""

    name: str
    kind: str
    luma: NDArray[np.uint8]
    masks: NDArray[np.bool_]


def texture(rng: np.random.Generator, size: tuple[int, int], roughness: float) -> Floats:
    """(H, W, 3) of 0..255 with a spectrum that falls as frequency ** -roughness, as natural pictures do."""
    fy, fx = np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])[None, :]
    amplitude = 1 / np.maximum(np.hypot(fy, fx), 4 / max(size)) ** roughness
    grey, *tint = (
        np.fft.ifft2(np.fft.fft2(rng.normal(size=size)) * amplitude).real for _ in range(4)
    )
    planes = [grey / grey.std() * 45 + t / t.std() * 12 + rng.uniform(80, 170) for t in tint]
    return np.clip(np.stack(planes, -1), 0, 255)


def bilinear(image: Floats, x: Floats, y: Floats) -> Floats:
    """Sample (N, 3) colours of a picture that repeats itself."""
    height, width = image.shape[:2]
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    a, b = (x - left)[:, None], (y - top)[:, None]
    rows, columns = (top % height, (top + 1) % height), (left % width, (left + 1) % width)
    upper = image[rows[0], columns[0]] * (1 - a) + image[rows[0], columns[1]] * a
    lower = image[rows[1], columns[0]] * (1 - a) + image[rows[1], columns[1]] * a
    return upper * (1 - b) + lower * b


class Scene:
    """One random scene; everything is a function of time in frames."""

    def __init__(self, kind: str, seed: int) -> None:
        self.kind = kind
        rng = np.random.default_rng((KINDS.index(kind), seed))
        self.background = texture(rng, (SIZE[0], SIZE[1]), rng.uniform(0.9, 1.4))
        self.skin = texture(rng, (256, 256), rng.uniform(0.7, 1.3))
        self.bar = texture(rng, (128, 128), 1.0)
        speed = rng.uniform(8, 14) if kind == "blurred" else rng.uniform(2, 7)
        angle = rng.uniform(-0.4, 0.4) + (np.pi if rng.random() < 0.5 else 0)
        self.velocity = speed * np.array([np.cos(angle), np.sin(angle)])
        self.start = np.array(SIZE[::-1]) / 2 - self.velocity * FRAMES / 2
        self.pan = rng.uniform(-3, 3, 2)
        turns = kind in ("rigid", "scaling", "blurred")
        self.spin = rng.uniform(0.01, 0.05) * rng.choice([-1, 1]) if turns else 0.0
        self.growth = rng.uniform(0.01, 0.025) * rng.choice([-1, 1]) if kind == "scaling" else 0.0
        self.radius = rng.uniform(45, 75)
        self.lobes = rng.uniform(0.05, 0.16, 3), rng.uniform(0, 2 * np.pi, 3)
        self.wave = rng.uniform(4, 8), rng.uniform(0.2, 0.4), rng.uniform(0, 2 * np.pi)
        self.swing = rng.uniform(0.4, 0.7), rng.uniform(0.15, 0.3), rng.uniform(0, 2 * np.pi)

    def inside(self, t: float, x: Floats, y: Floats) -> tuple[NDArray[np.bool_], Floats, Floats]:
        """Whether positions show the object at a time, and their places on its skin."""
        centre = self.start + self.velocity * t
        scale = np.exp(self.growth * (t - FRAMES / 2))
        c, s = np.cos(self.spin * t), np.sin(self.spin * t)
        dx, dy = (x - centre[0]) / scale, (y - centre[1]) / scale
        u, v = dx * c + dy * s, dy * c - dx * s
        if self.kind == "articulated":
            return self._figure(t, u, v)
        if self.kind == "deforming":
            size, rate, phase = self.wave
            wave = 2 * np.pi / (2.5 * self.radius)
            u, v = (
                u + size * np.sin(wave * v + rate * t + phase),
                v + size * np.sin(wave * u + 0.8 * rate * t),
            )
        around = np.arctan2(v, u)
        rim = sum(
            a * np.cos((k + 2) * around + p)
            for k, (a, p) in enumerate(zip(*self.lobes, strict=True))
        )
        return np.hypot(u, v) < self.radius * (1 + rim), u, v

    def _figure(self, t: float, u: Floats, v: Floats) -> tuple[NDArray[np.bool_], Floats, Floats]:
        half = self.radius * 0.55
        body = (np.abs(u) < half) & (np.abs(v) < 1.3 * half)
        skin_u, skin_v = u.copy(), v.copy()
        size, rate, phase = self.swing
        inside = body.copy()
        for side in (-1, 1):
            angle = side * (0.5 + size * np.sin(rate * t + phase + side))
            c, s = np.cos(angle), np.sin(angle)
            au, av = u - side * half, v + half
            pu, pv = (
                au * c + av * s,
                av * c - au * s,
            )  # along the arm: pu * side from 0 to its length
            arm = (pu * side > -8) & (pu * side < 1.6 * half) & (np.abs(pv) < 0.28 * half) & ~body
            skin_u[arm], skin_v[arm] = pu[arm] + 128, pv[arm] + 97 * side
            inside |= arm
        return inside, skin_u, skin_v

    def occluder(self, t: float, x: Floats) -> NDArray[np.bool_]:
        """Whether positions are behind the bar, which the object meets half-way."""
        if self.kind != "occluded":
            return np.zeros(x.shape, bool)
        middle = SIZE[1] / 2 - self.velocity[0] * 0.6 * (t - FRAMES / 2)
        return np.abs(x - middle) < self.radius * 0.3

    def picture(self, t: float) -> Floats:
        """(H, W, 3) at a time, edges smoothed by four samples per pixel."""
        rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)
        x, y = columns.ravel(), rows.ravel()
        image = bilinear(self.background, x + self.pan[0] * t, y + self.pan[1] * t)
        centre, reach = self.start + self.velocity * t, 3 * self.radius
        near = np.flatnonzero(np.hypot(x - centre[0], y - centre[1]) < reach)
        total = np.zeros((len(near), 3))
        for sx, sy in ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25)):
            inside, u, v = self.inside(t, x[near] + sx, y[near] + sy)
            colour = image[near]
            colour[inside] = bilinear(self.skin, u[inside], v[inside])
            total += colour / 4
        image[near] = total
        bar = self.occluder(t, x)
        image[bar] = bilinear(self.bar, x[bar], y[bar])
        return image.reshape(*SIZE, 3)

    def frame(self, t: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8: the picture, or with an open shutter the mean of several around it."""
        if self.kind != "blurred":
            return np.rint(self.picture(t)).astype(np.uint8)
        times = t + (np.arange(SHUTTER) - SHUTTER // 2) / (2 * SHUTTER)  # half of the interval
        return np.rint(np.mean([self.picture(s) for s in times], 0)).astype(np.uint8)

    def mask(self, t: int) -> NDArray[np.bool_]:
        """(H, W) bool: pixels whose centres show the object, unhidden."""
        rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)
        inside, _, _ = self.inside(t, columns, rows)
        return inside & ~self.occluder(t, columns)


def through_codec(frames: list[NDArray[np.uint8]], crf: int = 23) -> NDArray[np.uint8]:
    """Encode RGB frames as H.264 and return the decoder's luma, (T, H, W) uint8."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "medium", "threads": "1"}
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as container:
        planes = [frame.reformat(format="gray").to_ndarray() for frame in container.decode(video=0)]
    return np.stack(planes)


def make_clip(kind: str, seed: int) -> Clip:
    """Make one clip."""
    scene = Scene(kind, seed)
    luma = through_codec([scene.frame(t) for t in range(FRAMES)])
    return Clip(f"{kind}-{seed}", kind, luma, np.stack([scene.mask(t) for t in range(FRAMES)]))
