"""Dense targets of the towers: what each token of a picture or a sound should know, free in a made world."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from omni_sdk.demo.render import object_map
from omni_sdk.demo.scene import Scene, draw_scene
from omni_sdk.demo.sound import waveform
from omni_sdk.demo.world import COLORS, SHAPES, STAGE, STEPS
from omni_sdk.dus.boxes import mask_box, whole_pixels
from omni_sdk.grs.mel import log_mel
from omni_sdk.grs.patches import patchify
from torch import Tensor, nn

from omni_training.nano.thinker.pictures import frames, step_seconds
from omni_training.nano.thinker.rows import RowMaker

_COLOR_NAMES = tuple(COLORS)
_MOTIONS = ("left", "right", "still")
_SLOT = 2 + len(SHAPES) + 4 + 4 + len(_MOTIONS)
BOX_WEIGHT = 8.0
MOTION_WEIGHT = 3.0
_MIN_COVER = 0.05
"""Share of a cell that an object must cover to count as present in it."""


@dataclass(frozen=True, slots=True)
class PictureTargets:
    """Targets of N tokens; a slot for each of the 6 colours.

    Attributes:
        present: (N, 6, 2) float, whether the colour is in the token's cell in either frame.
        shape: (N, 6) int64, or -1.
        box: (N, 6, 4) float, the whole object's box as shares of the picture.
        motion: (N, 6) int64 index into left, right, still between the two frames; -1 unknown.
        dominant: (N,) int64, the shape that covers most of the cell; -1: none.
        cell: (N, 2) float, x and y of the cell's centre as shares of the picture.
    """

    present: Tensor
    shape: Tensor
    box: Tensor
    motion: Tensor
    dominant: Tensor
    cell: Tensor

    def to(self, device: torch.device) -> PictureTargets:
        """Return the targets on a device."""
        return PictureTargets(*(getattr(self, f.name).to(device) for f in fields(self)))


class PictureHead(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """A linear read-out of a picture token; thrown away after training.

    A box is asked for twice, as places in the picture and as distances from the token's own cell, and so is
    the cell's own place. The tower's rotary positions tell it distances alone; places it must find out from
    the background. Asked for places alone, boxes are learnt more slowly: 5.6 units of error after 200 steps
    from one state, 5.25 with the cell's place, 4.9 with both.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, len(_COLOR_NAMES) * _SLOT + len(SHAPES) + 2)

    def loss(self, tokens: Tensor, truth: PictureTargets) -> tuple[Tensor, dict[str, float]]:
        """Return the loss over (N, hidden) tokens and what is right (shares; boxes in stage units)."""
        all_slots = len(_COLOR_NAMES) * _SLOT
        slots, dominant, cell = self.linear(tokens).split([all_slots, len(SHAPES), 2], dim=-1)
        slots = slots.view(len(tokens), len(_COLOR_NAMES), _SLOT)
        present, shape, box, offset, motion = slots.split(
            [2, len(SHAPES), 4, 4, len(_MOTIONS)], dim=-1
        )
        some, moved = truth.shape >= 0, truth.motion >= 0
        bce = F.binary_cross_entropy_with_logits(present, truth.present)
        distance = (box[some] - truth.box[some]).abs()
        away = truth.box - truth.cell.repeat(1, 2)[:, None]
        places = distance.mean() + F.l1_loss(offset[some], away[some]) + F.l1_loss(cell, truth.cell)
        loss = 12 * bce + F.cross_entropy(shape[some], truth.shape[some]) + BOX_WEIGHT * places
        loss = loss + F.cross_entropy(dominant, truth.dominant, ignore_index=-1)
        with torch.no_grad():
            hit, wanted = present > 0, truth.present > 0.5
            both = 2 * (hit & wanted).sum() / (hit.sum() + wanted.sum()).clamp(min=1)
            scores = {
                "present": float(both),
                "shape": float((shape.argmax(-1) == truth.shape)[some].float().mean()),
                "box": float(distance.mean() * STAGE),
            }
        if moved.any():
            loss = loss + MOTION_WEIGHT * F.cross_entropy(motion[moved], truth.motion[moved])
            right = (motion.argmax(-1) == truth.motion)[moved]
            scores["motion"] = float(right.float().mean())
        return loss, scores


class SoundHead(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """A linear read-out of a sound token: which shape's tone it holds, or none."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, len(SHAPES) + 1)

    def loss(self, tokens: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the loss over (B, STEPS, hidden) tokens and the share that is right."""
        out = self.linear(tokens)
        loss = F.cross_entropy(out.flatten(0, 1), truth.flatten())
        return loss, {"tone": float((out.argmax(-1) == truth).float().mean())}


def picture_targets(scene: Scene, steps: tuple[int, int], grid: int) -> PictureTargets:
    """Return the targets of a pair of frames cut into grid x grid tokens.

    Args:
        scene: shown.
        steps: of the two frames; the same twice for a still picture, whose motion is unknown.
        grid: tokens per side.
    """
    cell = -(-STAGE // grid)
    side = grid * cell
    maps = np.stack([object_map(scene, step_seconds(t), (side, side)) for t in steps])
    colors = len(_COLOR_NAMES)
    present = np.zeros((grid, grid, colors, 2), np.float32)
    shape = np.full((grid, grid, colors), -1)
    motion = np.full((grid, grid, colors), -1)
    box = np.zeros((grid, grid, colors, 4), np.float32)
    dominant, most = np.full((grid, grid), -1), np.zeros((grid, grid))
    for index, item in enumerate(scene.objects):
        pixels = maps == index + 1
        cover = pixels.reshape(2, grid, cell, grid, cell).sum((2, 4))
        here = cover > _MIN_COVER * cell * cell
        either = here.any(0)
        slot = _COLOR_NAMES.index(item.color)
        present[:, :, slot] = here.transpose(1, 2, 0)
        shape[either, slot] = SHAPES.index(item.shape)
        seen = pixels[1] if pixels[1].any() else pixels[0]
        if seen.any():
            box[either, slot] = _box(seen)
        if steps[0] != steps[1] and pixels[0].any() and pixels[1].any():
            start, end = item.moving
            moves = start <= steps[0] < end
            motion[either, slot] = _MOTIONS.index(item.direction if moves else "still")
        area = cover.sum(0)
        winner = either & (area > most)
        dominant[winner], most[winner] = SHAPES.index(item.shape), area[winner]
    return PictureTargets(
        torch.from_numpy(present).flatten(0, 1),
        torch.from_numpy(shape).flatten(0, 1),
        torch.from_numpy(box).flatten(0, 1),
        torch.from_numpy(motion).flatten(0, 1),
        torch.from_numpy(dominant).flatten(),
        _cells(grid),
    )


def join(targets: list[PictureTargets]) -> PictureTargets:
    """Concatenate the targets of several pictures."""
    names = [f.name for f in fields(PictureTargets)]
    return PictureTargets(*(torch.cat([getattr(t, name) for t in targets]) for name in names))


def pair_batch(
    rng: np.random.Generator, maker: RowMaker, count: int
) -> tuple[Tensor, int, PictureTargets]:
    """Draw pairs of the reasoner's frames: patches, patches per side, targets."""
    vision = maker.processor.spec.vision
    side = maker.processor.frame_size(STAGE, STAGE)[0]
    patches: list[NDArray[np.floating]] = []
    targets: list[PictureTargets] = []
    while len(patches) < count:
        scene = draw_scene(rng)
        for first in rng.permutation(STEPS // 2)[:4]:
            steps = (2 * int(first), 2 * int(first) + 1)
            patches.append(patchify(frames(scene, steps, side, rng), vision)[0])
            targets.append(
                picture_targets(scene, steps, side // vision.patch_size // vision.merge_size)
            )
    return (
        torch.from_numpy(np.concatenate(patches[:count])),
        side // vision.patch_size,
        join(targets[:count]),
    )


def image_batch(
    rng: np.random.Generator, maker: RowMaker, count: int
) -> tuple[Tensor, int, PictureTargets]:
    """Draw the grounder's frames: patches, patches per side, targets."""
    vision = maker.processor.spec.vision
    side = maker.processor.image_size(STAGE, STAGE)[0]
    patches: list[NDArray[np.floating]] = []
    targets: list[PictureTargets] = []
    while len(patches) < count:
        scene = draw_scene(rng)
        for step in rng.permutation(STEPS)[:2]:
            patches.append(patchify(frames(scene, [int(step)], side, rng), vision)[0])
            targets.append(
                image_targets(scene, int(step), side // vision.patch_size // vision.merge_size)
            )
    return (
        torch.from_numpy(np.concatenate(patches[:count])),
        side // vision.patch_size,
        join(targets[:count]),
    )


def image_targets(scene: Scene, step: int, grid: int) -> PictureTargets:
    """Return the targets of a still picture; `grid` as in `picture_targets`."""
    return picture_targets(scene, (step, step), grid)


def sound_batch(rng: np.random.Generator, maker: RowMaker, count: int) -> tuple[Tensor, Tensor]:
    """Draw sounds: (B, bins, frames) log-mel and (B, STEPS) int64 tone of each step, 0 for none."""
    audio = maker.processor.spec.audio
    mels, tones = [], np.zeros((count, STEPS), np.int64)
    for row in range(count):
        scene = draw_scene(rng)
        mels.append(log_mel(waveform(scene), audio))
        for tone in scene.tones:
            tones[row, tone.start : tone.end] = 1 + SHAPES.index(scene.tone_shape(tone))
    return torch.from_numpy(np.stack(mels)), torch.from_numpy(tones)


def _box(pixels: NDArray[np.bool_]) -> list[float]:
    """Return the box of a mask that has pixels, in units of the picture's side."""
    box = mask_box(pixels)
    assert box is not None
    return [v / len(pixels) for v in whole_pixels(box)]


def _cells(grid: int) -> Tensor:
    """Return (grid^2, 2) centres (x, y) of the cells, row by row, as shares of the picture."""
    y, x = torch.meshgrid(*[(torch.arange(grid) + 0.5) / grid] * 2, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)
