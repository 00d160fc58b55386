"""Batches of short clips of the demo world with exact masks, each a function of its generator alone.

Note [Variation]
    Clips vary more than the world they come from, so that the tracker does not depend on its rules:
    the time between two frames, direction of time, speed, size, objects that are led across each other
    or hidden for a while, contrast, colour balance, blur and grain. Boxes are as wrong as a grounder's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from omni_sdk.demo.render import object_map, render
from omni_sdk.demo.scene import Scene, SceneObject, draw_scene
from omni_sdk.demo.world import DURATION_SECONDS, STAGE
from omni_sdk.dus.boxes import mask_box
from omni_sdk.hf.sam2_checkpoint import IMAGENET_MEAN, IMAGENET_STD
from torch import Tensor

from omni_training.nano.tracker.config import CELL

FINE = 2
"""Points per pixel and axis at which masks are sampled."""

PRESENT_PIXELS = 8
"""Visible pixels of the input from which an object counts as present; below, but above 0, nothing is said."""

PROMPT_PIXELS = 30
"""Visible pixels from which an object can be prompted."""

Times = NDArray[np.float64]


@dataclass(frozen=True)
class TrackingBatch:
    """B clips of L frames with N objects.

    Attributes:
        pixels: (B * L, 3, S, S) float32, normalised, clip by clip.
        clip_of: (N,) int64, the clip of each object.
        coverage: (N, L, S/4, S/4) float32, the share of each cell that shows the object.
        present: (N, L) bool.
        judged: (N, L) bool: `present` is beyond doubt.
        boxes: {frame: (N, 4)} float32 xyxy pixels of the input, as they are prompted.
        max_pointers: of the session.
    """

    pixels: Tensor
    clip_of: Tensor
    coverage: Tensor
    present: Tensor
    judged: Tensor
    boxes: Mapping[int, Tensor]
    max_pointers: int

    def to(self, device: str | torch.device) -> TrackingBatch:
        """Return the batch on a device."""
        tensors = {
            name: getattr(self, name).to(device)
            for name in ("pixels", "clip_of", "coverage", "present", "judged")
        }
        return replace(self, **tensors, boxes={t: b.to(device) for t, b in self.boxes.items()})


@dataclass(frozen=True)
class _Clip:
    """Frames (L, S, S, 3) uint8, and which object each point shows, (L, FINE * S, FINE * S) uint8."""

    frames: NDArray[np.uint8]
    maps: NDArray[np.uint8]
    targets: list[int]


def draw_batch(
    rng: np.random.Generator,
    *,
    side: int,
    clips: int,
    objects: int,
    length: int,
    crossing_share: float = 0.0,
) -> TrackingBatch:
    """Draw clips and prompts.

    Args:
        rng: decides everything.
        side: S in pixels.
        clips: B.
        objects: per clip, at most.
        length: L in frames.
        crossing_share: see `TrackerStage`.
    """
    first = 0 if rng.random() < 0.6 else int(rng.integers(length))
    prompted = {first}
    if length > 2 and rng.random() < 0.3:
        prompted.add(int(rng.integers(length)))
    drawn = [
        _draw_clip(rng, side, objects, length, sorted(prompted), crossing_share)
        for _ in range(clips)
    ]
    owners = [(n, target) for n, clip in enumerate(drawn) for target in clip.targets]
    masks = np.stack([drawn[n].maps == target + 1 for n, target in owners])
    visible = masks.sum((2, 3)) / FINE**2
    boxes = {t: torch.from_numpy(_boxes(rng, masks[:, t], side)) for t in sorted(prompted)}
    frames = np.concatenate([_change_light(rng, clip.frames) for clip in drawn])
    # A clip shorter than the model's pointers bounds them; in a long one they are as many as it has.
    max_pointers = 16 if rng.random() < 0.7 else max(length, 2)
    return TrackingBatch(
        pixels=normalise(frames),
        clip_of=torch.tensor([n for n, _ in owners]),
        coverage=torch.from_numpy(_coverage(masks)),
        present=torch.from_numpy(visible >= PRESENT_PIXELS),
        judged=torch.from_numpy((visible >= PRESENT_PIXELS) | (visible == 0)),
        boxes=boxes,
        max_pointers=max_pointers,
    )


def normalise(frames: NDArray[np.uint8] | NDArray[np.float32]) -> Tensor:
    """Return (F, S, S, 3) frames of 0..255 as the model reads them: (F, 3, S, S) float32."""
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    scaled = frames.astype(np.float32) * (1 / (255 * std)) - mean / std
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))


def _draw_clip(
    rng: np.random.Generator,
    side: int,
    objects: int,
    length: int,
    prompted: list[int],
    crossing_share: float,
) -> _Clip:
    """Draw until an object can be seen on all prompted frames."""
    while True:
        crossing = crossing_share > 0 and rng.random() < crossing_share
        scene = draw_scene(rng, "occluded" if crossing else None)
        times = _draw_times(rng, length)
        if not crossing:
            scene = replace(scene, objects=tuple(_vary(rng, list(scene.objects), times)))
        hidden = _draw_hidden(rng, len(scene.objects), length)
        shown = [_without(scene, hidden[:, t]) for t in range(length)]
        fine = (FINE * side, FINE * side)
        maps = np.stack([object_map(s, t, fine) for s, t in zip(shown, times, strict=True)])
        visible = [
            i
            for i in range(len(scene.objects))
            if all((maps[t] == i + 1).sum() >= PROMPT_PIXELS * FINE**2 for t in prompted)
        ]
        if visible:
            grain = float(rng.uniform(0.3, 1.2))
            frames = [
                render(s, t, (side, side), grain=grain) for s, t in zip(shown, times, strict=True)
            ]
            targets = [visible[i] for i in rng.permutation(len(visible))[:objects]]
            return _Clip(np.stack(frames), maps, targets)


def _draw_times(rng: np.random.Generator, length: int) -> Times:
    """Return evenly spaced times, 1/10 to 1 s apart, forward or backward."""
    longest = min(1.0, 0.99 * DURATION_SECONDS / length)
    spacing = float(np.exp(rng.uniform(np.log(1 / 10), np.log(longest))))
    start = rng.uniform(0, DURATION_SECONDS - spacing * length)
    times: Times = start + spacing * np.arange(length, dtype=np.float64)
    return times[::-1].copy() if rng.random() < 0.5 else times


def _vary(rng: np.random.Generator, objects: list[SceneObject], times: Times) -> list[SceneObject]:
    """Change speeds and sizes, and lead an object across another."""
    middle = float(rng.uniform(times.min(), times.max()))
    for i, item in enumerate(objects):
        if rng.random() < 0.4:
            x, y = item.centre(middle)
            speed = 0.0 if rng.random() < 0.25 else float(np.exp(rng.uniform(0, np.log(4))))
            objects[i] = _moving(item, (x, y), speed, middle)
        if rng.random() < 0.3:
            objects[i] = replace(objects[i], radius=int(rng.integers(10, 22)))
    if len(objects) > 1 and rng.random() < 0.4:
        i, j = rng.permutation(len(objects))[:2]
        x, y = objects[i].centre(middle)
        off = rng.normal(0, 4, 2)
        meeting = (float(x + off[0]), float(y + off[1]))
        objects[j] = _moving(objects[j], meeting, float(rng.uniform(1, 3)), middle)
    if rng.random() < 0.1:  # into or out of the picture
        i = int(rng.integers(len(objects)))
        edge = (float(rng.choice([0, STAGE])), float(rng.uniform(0, STAGE)))
        objects[i] = _moving(objects[i], edge, float(rng.uniform(1, 4)), middle)
    return objects


def _moving(
    item: SceneObject, place: tuple[float, float], speed: float, seconds: float
) -> SceneObject:
    """Return the object `speed` times as fast, at `place` at a time."""
    vx, vy = speed * item.velocity_xy[0], speed * item.velocity_xy[1]
    start = (place[0] - vx * seconds, place[1] - vy * seconds)
    return replace(item, start_xy=start, velocity_xy=(vx, vy), stop=None)


def _draw_hidden(rng: np.random.Generator, count: int, length: int) -> NDArray[np.bool_]:
    """(count, length) bool: objects taken out of the clip for a while."""
    hidden = np.zeros((count, length), bool)
    if length > 1:
        for row in hidden:
            if rng.random() < 0.75:
                start = int(rng.integers(length))
                row[start : start + int(rng.integers(1, max(2, 2 * length // 3) + 1))] = True
    return hidden


def _without(scene: Scene, hidden: NDArray[np.bool_]) -> Scene:
    """Return the scene with some objects never on the stage; their numbers stay."""
    if not hidden.any():
        return scene
    objects = tuple(
        replace(item, enter=0, leave=0) if gone else item
        for item, gone in zip(scene.objects, hidden, strict=True)
    )
    return replace(scene, objects=objects)


def _change_light(rng: np.random.Generator, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Change contrast, brightness, colour balance and sharpness of a clip, 0..255 float32."""
    gain = rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3)
    images = frames * gain.astype(np.float32) + np.float32(rng.uniform(-10, 10))
    if rng.random() < 0.6:
        side = np.float32(rng.uniform(0, 0.25))
        for axis in (1, 2):
            near = np.roll(images, 1, axis) + np.roll(images, -1, axis)
            images = (1 - 2 * side) * images + side * near
    clipped: NDArray[np.float32] = np.clip(images, 0, 255).astype(np.float32)
    return clipped


def _coverage(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(N, L, H, W) bool -> the share of each cell of the mask logits."""
    count, length, height, width = masks.shape
    cell = CELL * FINE
    cells = masks.reshape(count, length, height // cell, cell, width // cell, cell)
    shares: NDArray[np.float32] = cells.mean((3, 5), dtype=np.float32)
    return shares


def _boxes(rng: np.random.Generator, masks: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """(N, 4) xyxy pixels of the input around (N, H, W) masks: exact, a little off, or far off."""
    exact = np.array([mask_box(mask) for mask in masks], np.float32) / FINE
    return np.stack([perturb_box(rng, box, _draw_error(rng), side) for box in exact])


def _draw_error(rng: np.random.Generator) -> float:
    kind = rng.random()
    return 0.0 if kind < 0.3 else float(rng.uniform(0, 0.04 if kind < 0.55 else 0.14))


def perturb_box(
    rng: np.random.Generator, box: NDArray[np.float32], error: float, side: int
) -> NDArray[np.float32]:
    """Shift the edges of an xyxy box.

    Args:
        rng: of the errors.
        box: (4,) pixels.
        error: deviation of each edge over the box's extent along its axis.
        side: of the image in pixels, beyond which no edge is moved.

    Returns:
        (4,) float32, at least a pixel wide and high.
    """
    extent = np.tile(box[2:] - box[:2], 2)
    moved = box + rng.normal(0, 1, 4).astype(np.float32) * error * extent
    low = np.clip(np.minimum(moved[:2], moved[2:] - 1), 0, side - 1)
    high = np.clip(np.maximum(moved[2:], low + 1), 1, side)
    return np.concatenate([low, high]).astype(np.float32)
