"""numpy references of the warping kernels: the same bytes as the C++, slower. Here: points and tracking.

Every function equals its native namesake bit for bit: sums of pixels are integers, sums of points are taken
in the points' order in double, and nothing but + - * / and square roots is used. What each does and why is
said in csrc/include/omni/flow_image.h and flow_track.h.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omni_sdk.dus.flow.motion_numpy import flow_fit, flow_smooth, flow_warp

__all__ = ["flow_box", "flow_fit", "flow_match", "flow_select", "flow_smooth", "flow_warp"]

Bytes = NDArray[np.uint8]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Box = tuple[int, int, int, int]

PAD = 24
WINDOW = 16
_UNIT = 128
_NOISE = 256.0  # kNoise^2 in 1/16 grey values
_STOP = (1 / 32) ** 2
_CANDIDATES = 6
_REACH = 4
_BACKWARD_SCALE = 0.7  # pixels
_GREY_NOISE = 3.0
_TEXTURE_NOISE = 4.0  # (grey values per pixel)^2
_LOST = 0.05  # a point is given up where its belief falls below


def luma_pyramid(image: Bytes, box: Box, levels: int) -> list[Ints]:
    """Padded levels of a crop; see flow_image.h."""
    x0, y0, x1, y1 = box
    level = image[y0:y1, x0:x1].astype(np.int64)
    pyramid = [np.pad(level, PAD, mode="edge")]
    while len(pyramid) < levels:
        fine = np.pad(level, 2, mode="edge")
        height, width = level.shape
        down = _smooth(*(fine[i : i + height : 2] for i in range(5)))
        level = (_smooth(*(down[:, i : i + width : 2] for i in range(5))) + 128) >> 8
        pyramid.append(np.pad(level, PAD, mode="edge"))
    return pyramid


def _smooth(a: Ints, b: Ints, c: Ints, d: Ints, e: Ints) -> Ints:
    return a + 4 * b + 6 * c + 4 * d + e


def mask_pyramid(mask: Bytes, box: Box, levels: int) -> list[Ints]:
    """Padded levels of a mask's crop, 0 or 1."""
    x0, y0, x1, y1 = box
    level = (mask[y0:y1, x0:x1] != 0).astype(np.int64)
    pyramid: list[Ints] = []
    step = 1
    while len(pyramid) < levels:
        fine = np.pad(level, 1)
        height, width = level.shape
        level = np.maximum.reduce(
            [fine[i : i + height : step, j : j + width : step] for i in range(3) for j in range(3)]
        )
        pyramid.append(np.pad(level, PAD))
        step = 2
    return pyramid


def flow_box(mask: Bytes) -> Box:
    """x0, y0, x1, y1 around a mask's pixels; all 0 where there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def flow_select(luma: Bytes, mask: Bytes, box: Box, count: int) -> Doubles:
    """Points to follow, (N, 2) float64 xy; see Note [Points] in flow_track.h."""
    x0, y0, x1, y1 = box
    height, width = luma.shape
    ring = _REACH + 1
    crop = (max(x0 - ring, 0), max(y0 - ring, 0), min(x1 + ring, width), min(y1 + ring, height))
    picture, inside = luma_pyramid(luma, crop, 1)[0], mask_pyramid(mask, crop, 1)[0]
    gx, gy = np.zeros_like(picture), np.zeros_like(picture)
    gx[:, 1:-1] = picture[:, 2:] - picture[:, :-2]
    gy[1:-1] = picture[2:] - picture[:-2]
    gx, gy = gx * inside, gy * inside
    xx, xy, yy = (_box_sum(v).astype(np.float64) for v in (gx * gx, gx * gy, gy * gy))
    trace = xx + yy
    with np.errstate(invalid="ignore", divide="ignore"):
        score = np.where(trace == 0, 0.0, (xx * yy - xy * xy) / trace + trace / 256.0)
    area = int(np.count_nonzero(mask[y0:y1, x0:x1]))
    cell = max(3, int(np.ceil(np.sqrt(area / count))))
    step = (cell + _CANDIDATES - 1) // _CANDIDATES
    points = []
    for top in range(y0, y1, cell):
        for left in range(x0, x1, cell):
            rows = np.arange(top, min(top + cell, y1), step)
            columns = np.arange(left, min(left + cell, x1), step)
            here = score[rows[:, None] - crop[1] + PAD, columns - crop[0] + PAD]
            here = np.where(mask[rows[:, None], columns] != 0, here, 0.0)
            if here.max() > 0:
                i, j = np.unravel_index(int(here.argmax()), here.shape)
                points.append((float(columns[j]), float(rows[i])))
    return np.array(points, np.float64).reshape(-1, 2)


def _box_sum(values: Ints) -> Ints:
    """Sums over 9 x 9 pixels; 0 beyond the array."""
    padded = np.pad(values, ((_REACH + 1, _REACH), (_REACH + 1, _REACH))).cumsum(0).cumsum(1)
    side = 2 * _REACH + 1
    total: Ints = (
        padded[side:, side:]
        - padded[:-side, side:]
        - padded[side:, :-side]
        + padded[:-side, :-side]
    )
    return total


def _corners(shape: tuple[int, ...], at: Doubles) -> tuple[NDArray[np.bool_], Ints]:
    """Which windows around (N, 2) positions of a padded level fit, and their corners in 1/128 pixel."""
    reach = float(PAD - WINDOW // 2 - 2)
    last = np.array([shape[1] - 2 * PAD - 1, shape[0] - 2 * PAD - 1], np.float64)
    fits: NDArray[np.bool_] = np.all((at >= -reach) & (at <= last + reach), axis=1)
    safe = np.where(fits[:, None], at, 0.0)
    return fits, np.floor(safe * _UNIT + 0.5).astype(np.int64) - (WINDOW - 1) * _UNIT // 2


def _sample(level: Ints, corners: Ints, side: int) -> Ints:
    """(N, side, side) bilinear samples in 1/16 grey value."""
    whole, part = corners >> 7, corners & 127
    reach = np.arange(side + 1)
    rows = (whole[:, 1, None] + reach + PAD)[:, :, None]
    columns = (whole[:, 0, None] + reach + PAD)[:, None, :]
    pixels = level[rows, columns]
    a, b = part[:, 0, None, None], part[:, 1, None, None]
    lines = pixels[:, :, :-1] * (_UNIT - a) + pixels[:, :, 1:] * a
    samples: Ints = (lines[:, :-1] * (_UNIT - b) + lines[:, 1:] * b + 512) >> 10
    return samples


def _follow(
    start: list[Ints],
    end: list[Ints],
    masks: list[Ints],
    at: Doubles,
    mask_at: Doubles,
    guesses: Doubles,
    iterations: int,
) -> tuple[NDArray[np.bool_], Doubles, dict[str, Ints]]:
    """Coarse to fine; (N,) success, (N, 2) displacements, and the finest templates."""
    ok = np.ones(len(at), bool)
    moved = guesses.copy()
    patch: dict[str, Ints] = {}
    for index in range(len(start) - 1, -1, -1):
        scale = 1.0 / (1 << index)
        step = moved * scale
        patch, fits = _patch(start[index], masks[index], at * scale, mask_at * scale)
        ok &= fits
        ok &= _refine(patch, end[index], at * scale, step, ok, iterations)
        moved = np.where(ok[:, None], step / scale, moved)
    return ok, moved, patch


def _patch(
    level: Ints, mask: Ints, at: Doubles, mask_at: Doubles
) -> tuple[dict[str, Ints], NDArray[np.bool_]]:
    fits, corners = _corners(level.shape, at)
    mask_fits, mask_corners = _corners(mask.shape, mask_at)
    ring = _sample(level, corners - _UNIT, WINDOW + 2)
    nearest = (mask_corners >> 7) + ((mask_corners & 127) >= _UNIT // 2) + PAD
    reach = np.arange(WINDOW)
    weight = mask[
        (nearest[:, 1, None] + reach)[:, :, None], (nearest[:, 0, None] + reach)[:, None, :]
    ]
    gx = ((ring[:, 1:-1, 2:] - ring[:, 1:-1, :-2]) >> 1) * weight
    gy = ((ring[:, 2:, 1:-1] - ring[:, :-2, 1:-1]) >> 1) * weight
    patch = {"value": ring[:, 1:-1, 1:-1], "gx": gx, "gy": gy, "weight": weight}
    for name, product in (("xx", gx * gx), ("xy", gx * gy), ("yy", gy * gy), ("count", weight)):
        patch[name] = product.sum((1, 2))
    return patch, fits & mask_fits


def _refine(
    patch: dict[str, Ints],
    level: Ints,
    at: Doubles,
    moved: Doubles,
    wanted: NDArray[np.bool_],
    iterations: int,
) -> NDArray[np.bool_]:
    """Iterate `moved` in place; (N,) whether the windows stayed in the level."""
    damping = _NOISE * patch["count"] + 1.0
    xx, xy, yy = patch["xx"] + damping, patch["xy"].astype(np.float64), patch["yy"] + damping
    det = xx * yy - xy * xy
    ok, running = wanted.copy(), wanted.copy()
    for _ in range(iterations):
        fits, corners = _corners(level.shape, at + moved)
        ok &= fits | ~running
        running &= fits
        if not running.any():
            break
        r = np.flatnonzero(running)
        difference = patch["value"][r] - _sample(level, corners[r], WINDOW)
        bx = (patch["gx"][r] * difference).sum((1, 2)).astype(np.float64)
        by = (patch["gy"][r] * difference).sum((1, 2)).astype(np.float64)
        step_x = (yy[r] * bx - xy[r] * by) / det[r]
        step_y = (xx[r] * by - xy[r] * bx) / det[r]
        moved[r, 0] += step_x
        moved[r, 1] += step_y
        square = xx[r] * step_x * step_x + 2.0 * xy[r] * step_x * step_y + yy[r] * step_y * step_y
        running[r[square < _STOP * (xx[r] + yy[r])]] = False
    return ok


def flow_track(
    before: Bytes,
    after: Bytes,
    mask: Bytes,
    box: Box,
    points: Doubles,
    guesses: Doubles,
    levels: int,
    iterations: int,
) -> Doubles:
    """Follow points, (N, 8): x, y, backward, residual, contrast, xx, xy, yy; see flow_track.h."""
    start, end = luma_pyramid(before, box, levels), luma_pyramid(after, box, levels)
    masks = mask_pyramid(mask, box, levels)
    at = points - np.array(box[:2], np.float64)
    out = np.zeros((len(points), 8))
    out[:, :2] = points + guesses
    out[:, 2] = np.inf
    if not len(points):
        return out
    ok, moved, patch = _follow(start, end, masks, at, at, guesses, iterations)
    fits, corners = _corners(end[0].shape, at + moved)
    ok &= fits & (patch["count"] > 0)
    count = np.maximum(patch["count"], 1)
    now = _sample(end[0], corners, WINDOW)
    weight, value = patch["weight"], patch["value"]
    mean = (value * weight).sum((1, 2)) // count
    unit = 16.0 * count
    measured = out.copy()
    measured[:, :2] = points + moved
    measured[:, 3] = (np.abs(value - now) * weight).sum((1, 2)) / unit
    measured[:, 4] = (np.abs(value - mean[:, None, None]) * weight).sum((1, 2)) / unit
    for column, name in ((5, "xx"), (6, "xy"), (7, "yy")):
        measured[:, column] = patch[name] / (16.0 * unit)
    returned, back, _ = _follow(end, start, masks, at + moved, at, -guesses, iterations)
    x, y = (moved + back).T
    xx, xy, yy = measured[:, 5:].T
    half = (xx - yy) / 2.0
    largest = (xx + yy) / 2.0 + np.sqrt(half * half + xy * xy)
    square = np.maximum(xx * x * x + 2.0 * xy * x * y + yy * y * y, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = np.where(largest > 0, np.sqrt(square / largest), np.inf)
    measured[:, 2] = np.where(returned, seen, np.inf)
    return np.where(ok[:, None], measured, out)


def _believe(tracks: Doubles) -> tuple[Doubles, Doubles]:
    """(N,) belief in tracks, and (N, 3) by direction; see flow_track.h."""
    back, fit = tracks[:, 2] / _BACKWARD_SCALE, tracks[:, 3] / (_GREY_NOISE + 0.5 * tracks[:, 4])
    square = fit * fit
    belief: Doubles = 1.0 / (1.0 + back * back) / (1.0 + square * square)
    xx, xy, yy = tracks[:, 5:].T
    half = (xx - yy) / 2.0
    largest = (xx + yy) / 2.0 + np.sqrt(half * half + xy * xy)
    return belief, tracks[:, 5:] / (largest + _TEXTURE_NOISE)[:, None]


def flow_match(
    before: Bytes,
    after: Bytes,
    mask: Bytes,
    box: Box,
    anchors: Doubles,
    points: Doubles,
    guesses: Doubles,
    beliefs: Doubles,
    levels: int,
    iterations: int,
) -> tuple[Doubles, Doubles]:
    """Follow the points of some belief: (N, 8) matches, and the contrast of those followed.

    A match: anchor x, y, current x, y, belief by direction xx, xy, yy, belief; the least one so far.
    """
    alive = beliefs > 0
    tracks = flow_track(before, after, mask, box, points[alive], guesses[alive], levels, iterations)
    matches = np.zeros((len(anchors), 8))
    matches[:, :2], matches[:, 2:4] = anchors, points
    matches[alive, 2:4] = tracks[:, :2]
    belief, matches[alive, 4:7] = _believe(tracks)
    belief = np.minimum(beliefs[alive], belief)
    matches[alive, 7] = np.where(belief < _LOST, 0.0, belief)
    return matches, tracks[:, 4]
