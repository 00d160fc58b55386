"""Pictures of a scene at any size and time, and the exact masks and boxes that belong to them.

The stage is a square of 96 units. A frame of H x W pixels shows it centred at min(H, W) / 96 pixels per
unit; in a frame that is not square the background goes on beyond the stage. Shapes are analytic: edges are
anti-aliased by the area that a shape covers of each pixel, so a larger frame is a sharper one.

Note [Grain]
Grain is a field in stage units, the sum of two layers with one cell per unit and per two units, fresh in
every frame: by area means its standard deviation is 6 at 96 pixels and 4 at 48, where that of white noise
would halve. Antialiased bicubic resizing of a 384-pixel frame, as the pipeline does it, leaves 4.7 and 3.0.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from omni_sdk.demo.scene import Scene, SceneObject
from omni_sdk.demo.world import COLORS, STAGE
from omni_sdk.dus.boxes import mask_box, whole_pixels

Size = tuple[int, int]
"""(height, width) in pixels."""

BAR_THICKNESS = 0.42
"""Half thickness of a bar or pole over its radius, before rounding down to whole units."""
CROSS_THICKNESS = 0.33

GRADIENT = 70.0
"""How much green rises down the stage, and blue to its right: tells the model where it looks."""

GRAIN_FINE, GRAIN_COARSE = 5.2, 3.0
"""Standard deviations of the layers with cells of 1 and 2 units; see Note [Grain]."""

MAX_SIDE = 8192
MAX_ASPECT = 8

_Image = NDArray[np.float32]


def render(scene: Scene, seconds: float, size: Size, *, grain: float = 1.0) -> NDArray[np.uint8]:
    """Return the picture of a scene at a time.

    Args:
        scene: a scene.
        seconds: any finite time; the same time gives the same picture, noise included.
        size: (height, width) in pixels, 1..8192 each, up to 8 to 1.
        grain: factor on the picture noise; 0 turns it off.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: size or time out of range.
    """
    view = _View(size)
    _check_time(seconds)
    image = _background(scene, view)
    for item in scene.objects:
        if item.visible(seconds):
            color = np.array(COLORS[item.color], np.float32)[:, None, None]
            image += _coverage(item, seconds, view) * (color - image)
    if grain:
        _add_grain(image, scene, seconds, view, grain)
    np.clip(image, 0, 255, out=image)
    image += 0.5  # so that the cast below rounds
    return np.ascontiguousarray(image.astype(np.uint8).transpose(1, 2, 0))


def object_map(scene: Scene, seconds: float, size: Size) -> NDArray[np.uint8]:
    """Return which object each pixel shows: 0 for none, i + 1 for `scene.objects[i]`.

    A pixel belongs to the front-most shape that contains its centre.

    Args:
        scene: a scene.
        seconds: any finite time.
        size: (height, width) in pixels, 1..8192 each, up to 8 to 1.

    Returns:
        (H, W) uint8.

    Raises:
        ValueError: size or time out of range.
    """
    view = _View(size)
    _check_time(seconds)
    ids = np.zeros(size, np.uint8)
    for index, item in enumerate(scene.objects):
        if item.visible(seconds):
            ids[_contains(item, seconds, view)] = index + 1
    return ids


def mask(scene: Scene, seconds: float, size: Size, index: int) -> NDArray[np.bool_]:
    """Return the visible part of `scene.objects[index]`, (H, W) bool; see `object_map`.

    Raises:
        ValueError: size or time out of range.
        IndexError: no such object.
    """
    if not 0 <= index < len(scene.objects):
        raise IndexError(f"the scene has objects 0..{len(scene.objects) - 1}, got {index}")
    return np.equal(object_map(scene, seconds, size), index + 1)


def box(scene: Scene, seconds: float, size: Size, index: int) -> tuple[int, int, int, int] | None:
    """Return the box of `mask`, (x1, y1, x2, y2) in pixels with x2, y2 exclusive; None if empty.

    Raises:
        ValueError: size or time out of range.
        IndexError: no such object.
    """
    found = mask_box(mask(scene, seconds, size, index))
    return None if found is None else whole_pixels(found)


class _View:
    """A frame over the stage: pixel edges in stage units, and pixels per unit."""

    def __init__(self, size: Size) -> None:
        height, width = size
        if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
            raise ValueError(f"size must be (height, width) within 1..{MAX_SIDE}, got {size}")
        if max(size) > MAX_ASPECT * min(size):
            raise ValueError(f"size may be up to {MAX_ASPECT} times as long as wide, got {size}")
        self.size = size
        self.scale = min(height, width) / STAGE
        self.y_edges = _edges(height, self.scale)
        self.x_edges = _edges(width, self.scale)
        self.y = (self.y_edges[:-1] + self.y_edges[1:]) / 2
        self.x = (self.x_edges[:-1] + self.x_edges[1:]) / 2


def _edges(pixels: int, scale: float) -> NDArray[np.float64]:
    """(pixels + 1,) edges in units, the stage in the middle."""
    return (np.arange(pixels + 1, dtype=np.float64) - pixels / 2) / scale + STAGE / 2


def _check_time(seconds: float) -> None:
    if not math.isfinite(seconds):
        raise ValueError(f"seconds must be finite, got {seconds}")


def _parts(item: SceneObject) -> list[tuple[float, float]]:
    """Half (width, height) in units of the boxes whose union is the shape; none for a circle."""
    long = item.radius + 0.5
    if item.shape == "circle":
        return []
    if item.shape == "cross":
        short = math.floor(item.radius * CROSS_THICKNESS) + 0.5
        return [(short, long), (long, short)]
    short = math.floor(item.radius * BAR_THICKNESS) + 0.5
    return [(long, short)] if item.shape == "bar" else [(short, long)]


def _centre(item: SceneObject, seconds: float) -> tuple[float, float]:
    """Centre in continuous stage units: unit i spans [i, i + 1)."""
    x, y = item.centre(seconds)
    return x + 0.5, y + 0.5


def _contains(item: SceneObject, seconds: float, view: _View) -> NDArray[np.bool_]:
    """(H, W) bool: whether pixel centres lie inside the shape."""
    x, y = _centre(item, seconds)
    dx, dy = np.abs(view.x - x), np.abs(view.y - y)
    if item.shape == "circle":
        disk: NDArray[np.bool_] = (dy**2)[:, None] + (dx**2)[None, :] <= item.radius**2
        return disk
    inside = np.zeros(view.size, bool)
    for half_width, half_height in _parts(item):
        inside |= (dy < half_height)[:, None] & (dx < half_width)[None, :]
    return inside


def _coverage(item: SceneObject, seconds: float, view: _View) -> _Image:
    """(H, W) float32 in [0, 1]: the share of each pixel that the shape covers.

    Exact for boxes and their union; for a circle, linear in the distance of the rim from the pixel's
    centre, which is right to a few percent of a pixel.
    """
    x, y = _centre(item, seconds)
    if item.shape == "circle":
        distance = np.sqrt(((view.y - y) ** 2)[:, None] + ((view.x - x) ** 2)[None, :])
        rim = (item.radius - distance) * view.scale
        return np.clip(rim + 0.5, 0, 1).astype(np.float32)
    parts = _parts(item)
    total = np.zeros(view.size, np.float32)
    for half_width, half_height in parts:
        total += _box_coverage(x, y, half_width, half_height, view)
    if len(parts) == 2:  # the two arms of a cross share their middle
        (short, _), (_, other) = parts
        total -= _box_coverage(x, y, short, other, view)
    return total


def _box_coverage(x: float, y: float, half_width: float, half_height: float, view: _View) -> _Image:
    rows = _overlap(view.y_edges, y - half_height, y + half_height)
    columns = _overlap(view.x_edges, x - half_width, x + half_width)
    return np.outer(rows, columns).astype(np.float32)


def _overlap(edges: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Share of each interval between consecutive edges that lies in [low, high]."""
    inner = np.clip(edges, low, high)
    share: NDArray[np.float64] = np.diff(inner) / (edges[1] - edges[0])
    return share


def _background(scene: Scene, view: _View) -> _Image:
    """(3, H, W) float32: planes are cheaper to blend than pixels."""
    image = np.full((3, *view.size), scene.background, np.float32)
    image[1] += (view.y / STAGE * GRADIENT).astype(np.float32)[:, None]
    image[2] += (view.x / STAGE * GRADIENT).astype(np.float32)[None, :]
    return image


def _add_grain(image: _Image, scene: Scene, seconds: float, view: _View, amount: float) -> None:
    """Add noise to (3, H, W), fresh at every microsecond and the same whenever it is asked for."""
    rng = np.random.default_rng((scene.noise_seed, abs(round(seconds * 1e6))))
    for cell, deviation in ((1, GRAIN_FINE), (2, GRAIN_COARSE)):
        rows, columns = (_cells(pixels, view.scale, cell) for pixels in view.size)
        lattice = rng.standard_normal((3, rows.shape[1], columns.shape[1]), np.float32)
        lattice *= amount * deviation
        image += rows @ lattice @ columns.T


@lru_cache(maxsize=16)
def _cells(pixels: int, scale: float, cell: int) -> _Image:
    """(pixels, cells) weights that spread lattice values over pixels.

    Each pixel takes the area mean of the cells it covers, so white noise on the lattice is blocky grain
    in a large frame and shrinks as it should in a small one.
    """
    edges = _edges(pixels, scale) / cell
    first = math.floor(edges[0])
    count = math.ceil(edges[-1]) - first
    weights = np.stack([_overlap(edges, first + i, first + i + 1) for i in range(count)], axis=1)
    return weights.astype(np.float32)
