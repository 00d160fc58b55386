"""numpy references of the warping kernels, as in `points_numpy`: motion and warping (flow_motion.h)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Box = tuple[int, int, int, int]

_PULL = np.array([0.0001, 0.01, 0.01] * 2)
_FEW = np.array([0.02, 0.1, 0.1] * 2)
_RIGID = 0.6 * 0.6


def _solve(system: Doubles, right: Doubles) -> Doubles:
    """Gaussian elimination of (..., 6, 6) systems without pivoting, in the kernels' order."""
    s = np.concatenate([system, right[..., None]], -1)
    for k in range(6):
        for i in range(k + 1, 6):
            factor = s[..., i, k] / s[..., k, k]
            s[..., i, k:] = s[..., i, k:] - factor[..., None] * s[..., k, k:]
    x = np.zeros_like(right)
    for i in range(5, -1, -1):
        total = s[..., i, 6]
        for j in range(i + 1, 6):
            total = total - s[..., i, j] * x[..., j]
        x[..., i] = total / s[..., i, i]
    return x


def _ordered_sum(values: Doubles) -> Doubles:
    """Sum over the first axis, one after the other (numpy's own sum goes by pairs)."""
    if not len(values):
        return np.zeros(values.shape[1:])
    total: Doubles = np.add.accumulate(np.concatenate([np.zeros_like(values[:1]), values]), 0)[-1]
    return total


def _square(matches: Doubles, x: Doubles, y: Doubles) -> Doubles:
    xx, xy, yy = matches[..., 4], matches[..., 5], matches[..., 6]
    value: Doubles = xx * x * x + 2.0 * xy * x * y + yy * y * y
    return value


def _kernel(distance: Doubles, reach: float) -> Doubles:
    share = distance / reach
    k = (1.0 - share) / (1.0 + 9.0 * share)
    return np.where(distance < reach, k * k, 0.0)


def flow_fit(matches: Doubles, prior: Doubles, radius: float) -> tuple[Doubles, Doubles]:
    """Affine (2, 3) and weights (N,) of matches; see Note [Motion] in flow_motion.h."""
    affine, weights = prior.copy(), np.zeros(len(matches))
    m = matches[matches[:, 7] > 0]
    if not len(m):
        return affine, weights
    affine = _fit_affine(m, prior)
    x, y = _left(matches, affine)
    believed = np.flatnonzero(matches[:, 7] > 0)
    trace = m[:, 4] + m[:, 6]
    for i in believed:
        dx, dy = matches[i, 0] - m[:, 0], matches[i, 1] - m[:, 1]
        distance = dx * dx + dy * dy
        k = _kernel(distance, radius * radius) * m[:, 7] * trace
        k[np.flatnonzero(believed == i)] = 0.0
        apart_x, apart_y = x[i] - x[believed], y[i] - y[believed]
        allowed = 1.0 + 0.25 * 0.25 * distance
        apart = np.minimum(_square(matches[i], apart_x, apart_y), _square(m, apart_x, apart_y))
        soft = allowed / (allowed + apart)
        agreed, all_ = _ordered_sum(k * (soft * soft)), _ordered_sum(k)
        share = min(float(agreed / all_ / 0.35), 1.0) if all_ > 0 else 0.5
        weights[i] = matches[i, 7] * (share * share)
    return affine, weights


def _fit_affine(m: Doubles, prior: Doubles) -> Doubles:
    total = _ordered_sum(m[:, 7])
    cx, cy = _ordered_sum(m[:, 7] * m[:, 0]) / total, _ordered_sum(m[:, 7] * m[:, 1]) / total
    dx, dy = m[:, 0] - cx, m[:, 1] - cy
    spread = max(float(np.sqrt(_ordered_sum(m[:, 7] * (dx * dx + dy * dy)) / total)), 1.0)
    (a, b, tx), (c, d, ty) = prior
    start = np.array(
        [a * cx + b * cy + tx, a * spread, b * spread, c * cx + d * cy + ty, c * spread, d * spread]
    )
    u, v = dx / spread, dy / spread
    basis = np.stack([np.ones_like(u), u, v], 1)

    def left(p: Doubles) -> tuple[Doubles, Doubles]:
        return (
            m[:, 2] - (p[0] + p[1] * u + p[2] * v),
            m[:, 3] - (p[3] + p[4] * u + p[5] * v),
        )

    p = start.copy()
    scale = max(float(_square(m, *left(p)).max()), 0.0)
    floor = 0.5 + 0.02 * spread
    for _ in range(10):
        scale = max(scale, floor * floor)
        x, y = left(p)
        soft = scale / (scale + _square(m, x, y))
        w = m[:, 7] * soft * soft
        outer = w[:, None, None] * (basis[:, :, None] * basis[:, None, :])
        xx, xy, yy = (m[:, 4 + k, None, None] for k in range(3))
        blocks = [_ordered_sum(part * outer) for part in (xx, xy, yy)]
        system = np.block([[blocks[0], blocks[1]], [blocks[1], blocks[2]]])
        rx, ry = w * (m[:, 4] * x + m[:, 5] * y), w * (m[:, 5] * x + m[:, 6] * y)
        right = np.concatenate([_ordered_sum(r[:, None] * basis) for r in (rx, ry)])
        pull = _ordered_sum(w) * _PULL + 1e-9
        system[np.arange(6), np.arange(6)] += pull
        right += pull * (start - p)
        p = p + _solve(system, right)
        scale = scale / 3.0
    a, b, c, d = p[1] / spread, p[2] / spread, p[4] / spread, p[5] / spread
    return np.array([[a, b, p[0] - (a * cx + b * cy)], [c, d, p[3] - (c * cx + d * cy)]])


def _left(matches: Doubles, affine: Doubles) -> tuple[Doubles, Doubles]:
    x, y = matches[:, 0], matches[:, 1]
    (a, b, tx), (c, d, ty) = affine
    return matches[:, 2] - (a * x + b * y + tx), matches[:, 3] - (c * x + d * y + ty)


def _smooth(
    matches: Doubles, affine: Doubles, weights: Doubles, radius: float, places: Doubles, column: int
) -> Doubles:
    """Moving least squares at (M, 2) places; `column` is 0 for places of the anchor, 2 for now."""
    x, y = _left(matches, affine)
    count = len(places)
    sums = np.zeros((3, count, 6))
    right = np.zeros((2, count, 3))
    total = np.zeros(count)
    for i in np.flatnonzero(weights > 0):
        m = matches[i]
        dx, dy = places[:, 0] - m[column], places[:, 1] - m[column + 1]
        distance = dx * dx + dy * dy
        w = _kernel(distance, radius * radius) * weights[i]
        u, v = (m[column] - places[:, 0]) / radius, (m[column + 1] - places[:, 1]) / radius
        vv = np.stack([w, w * u, w * v, w * (u * u), w * (u * v), w * (v * v)], 1)
        for k in range(3):
            sums[k] += m[4 + k] * vv
        right[0] += (m[4] * x[i] + m[5] * y[i]) * vv[:, :3]
        right[1] += (m[5] * x[i] + m[6] * y[i]) * vv[:, :3]
        total += w
    order = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])
    xx, xy, yy = (part[:, order] for part in sums)
    system = np.concatenate([np.concatenate([xx, xy], 2), np.concatenate([xy, yy], 2)], 1)
    system[:, np.arange(6), np.arange(6)] += total[:, None] * _FEW + 1e-6
    p = _solve(system, np.concatenate([right[0], right[1]], 1))
    found = p[:, (0, 3)]
    size = found[:, 0] * found[:, 0] + found[:, 1] * found[:, 1]
    kept = size / (size + _RIGID)
    return np.where((total > 0)[:, None], kept[:, None] * found, 0.0)


def flow_smooth(
    matches: Doubles,
    affine: Doubles,
    weights: Doubles,
    radius: float,
    box: Box,
    size: tuple[int, int],
) -> tuple[Doubles, Box]:
    """Where the motion puts the matches, (N, 2), and the part of a frame that `box` may have come to."""
    residuals = _smooth(matches, affine, weights, radius, matches[:, :2], 0)
    x0, y0, x1, y1 = box
    corners = _moved(affine, np.array([(x0, y0), (x1, y0), (x0, y1), (x1, y1)], np.float64))
    far = np.abs(residuals).max(0, initial=0.0) + 2.0
    height, width = size
    low = np.clip(np.floor(corners.min(0) - far), 0, (width, height)).astype(int).tolist()
    high = np.clip(np.ceil(corners.max(0) + far), 0, (width, height)).astype(int).tolist()
    return _moved(affine, matches[:, :2]) + residuals, (*low, *high)


def _moved(affine: Doubles, points: Doubles) -> Doubles:
    x, y = points.T
    (a, b, tx), (c, d, ty) = affine
    return np.stack([a * x + b * y + tx, c * x + d * y + ty], 1)


def flow_warp(
    mask: Bytes,
    anchor: Bytes,
    current: Bytes,
    matches: Doubles,
    affine: Doubles,
    weights: Doubles,
    radius: float,
    box: Box,
    cell: int,
) -> NDArray[np.bool_]:
    """The anchor's mask in `box` of the current frame, hidden parts left out, (h, w) bool."""
    x0, y0, x1, y1 = box
    (a, b, tx), (c, d, ty) = affine
    det = a * d - b * c
    if not abs(det) > 1e-9:
        raise ValueError("the motion cannot be inverted")
    rows, columns = -(-(y1 - y0) // cell) + 1, -(-(x1 - x0) // cell) + 1
    ny, nx = np.divmod(np.arange(rows * columns), columns)
    nodes = np.stack([x0 + cell * nx, y0 + cell * ny], 1).astype(np.float64)
    residual = _smooth(matches, affine, weights, radius, nodes, 2)
    x, y = nodes[:, 0] - residual[:, 0] - tx, nodes[:, 1] - residual[:, 1] - ty
    where = np.stack([(d * x - b * y) / det, (a * y - c * x) / det], 1)
    fixed = np.floor(np.clip(where, -64.0, 16384.0 + 64.0) * 256.0 + 0.5).astype(np.int64)
    at = _interpolate(fixed.reshape(rows, columns, 2), cell, (y1 - y0, x1 - x0))
    warped = _covered(mask, at)
    return warped & ~_hidden(anchor, current[y0:y1, x0:x1], at, warped)


def _interpolate(nodes: Ints, cell: int, size: tuple[int, int]) -> Ints:
    """(h, w, 2) positions in 1/256 pixel."""
    i, fy = np.divmod(np.arange(size[0]), cell)
    j, fx = np.divmod(np.arange(size[1]), cell)
    fy, fx = fy[:, None, None], fx[None, :, None]
    lines = (nodes[i] * (cell - fy) + nodes[i + 1] * fy) // cell
    return np.asarray((lines[:, j] * (cell - fx) + lines[:, j + 1] * fx) // cell)


def _covered(mask: Bytes, at: Ints) -> NDArray[np.bool_]:
    height, width = mask.shape
    framed = np.pad((mask != 0).astype(np.int64), 1)
    x, y = at[..., 0] >> 8, at[..., 1] >> 8
    a, b = at[..., 0] & 255, at[..., 1] & 255

    def look(dx: int, dy: int) -> Ints:
        seen: Ints = framed[np.clip(y + dy + 1, 0, height + 1), np.clip(x + dx + 1, 0, width + 1)]
        return seen

    total = (look(0, 0) * (256 - a) + look(1, 0) * a) * (256 - b)
    total = total + (look(0, 1) * (256 - a) + look(1, 1) * a) * b
    return np.asarray(total >= 32768)


def _hidden(
    anchor: Bytes, current: Bytes, at: Ints, warped: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Blocks where the two frames do not show the same; see Note [Hidden parts] in flow_motion.h."""
    height, width = warped.shape
    rows = np.clip((at[..., 1] + 128) >> 8, 0, anchor.shape[0] - 1)
    columns = np.clip((at[..., 0] + 128) >> 8, 0, anchor.shape[1] - 1)
    was = anchor[rows, columns].astype(np.int64)
    difference = np.abs(was - current)
    looks = [_blocks(v * warped) for v in (np.ones_like(was), difference, was, was * was)]
    seen = looks[0] > 0
    count, apart, total, squares = (_three_by_three(v) for v in looks)
    excess = apart - 12 * count
    spread = 16 * (count * squares - total * total)
    hidden = seen & (excess > 0) & (25 * excess * excess > spread)
    return np.asarray(hidden.repeat(4, 0).repeat(4, 1)[:height, :width])


def _blocks(values: Ints) -> Ints:
    """Sums over blocks of 4 x 4."""
    height, width = values.shape
    padded = np.pad(values, ((0, -height % 4), (0, -width % 4)))
    sums: Ints = padded.reshape(padded.shape[0] // 4, 4, padded.shape[1] // 4, 4).sum((1, 3))
    return sums


def _three_by_three(values: Ints) -> Ints:
    padded = np.pad(values, 1)
    height, width = values.shape
    parts = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    total: Ints = np.add.reduce(parts)
    return total
