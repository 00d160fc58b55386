"""Numpy references of the mask kernels: the same results, bit for bit, as the native module.

They serve where the native module was not built, and they define what it must return. Arguments are
already checked by `omni_sdk.dus.masks`; masks here are (H, W) bool, sizes are (height, width).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from omni_sdk.errors import MaskError

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

_MAX_GROUPS = 7  # characters of a run: 35 bits, more than any accepted mask needs


def rle_encode(mask: BoolArray) -> bytes:
    """Encode a mask in COCO's compressed form (pycocotools' maskApi.c, rleEncode and rleToString)."""
    pixels = mask.T.ravel()  # column-major
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    first = [0, 0] if pixels[0] else [0]
    return _format_runs(np.diff(np.concatenate([first, changes, [pixels.size]])))


def rle_decode(counts: bytes, size: tuple[int, int]) -> BoolArray:
    """Decode COCO's compressed form into a C-contiguous mask."""
    runs = parse_runs(counts, size)
    pixels = np.repeat(np.arange(runs.size) % 2 == 1, runs)
    return np.ascontiguousarray(pixels.reshape(size[::-1]).T)


def parse_runs(counts: bytes, size: tuple[int, int]) -> IntArray:
    """Decode the text into run lengths; they add up to height * width.

    Raises:
        MaskError: the text is malformed, or its runs do not add up.
    """
    pixels = size[0] * size[1]
    if len(counts) > _MAX_GROUPS * (pixels + 2):
        raise MaskError(f"malformed RLE counts: too long for a mask of {pixels} pixels")
    groups = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if groups.size and (groups.min() < 0 or groups.max() > 63):
        raise MaskError("malformed RLE counts: a byte is outside 48..111")
    more = (groups & 0x20) != 0
    if groups.size and more[-1]:
        raise MaskError("malformed RLE counts: the last run is cut off")
    starts = np.flatnonzero(np.concatenate([[True], ~more[:-1]])) if groups.size else groups
    lengths = np.diff(np.concatenate([starts, [groups.size]]))
    if lengths.size and lengths.max() > _MAX_GROUPS:
        raise MaskError(f"malformed RLE counts: a run has more than {_MAX_GROUPS} characters")
    shifts = 5 * (np.arange(groups.size) - np.repeat(starts, lengths))
    terms = (groups & 0x1F) << shifts
    terms -= np.where(~more & ((groups & 0x10) != 0), np.int64(1) << (shifts + 5), 0)
    runs = np.add.reduceat(terms, starts) if groups.size else groups
    # From the fourth on, each was stored minus the run two places before it.
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    if runs.size and runs.min() < 0:
        raise MaskError("malformed RLE counts: a run is negative")
    if (runs.size and runs.max() > pixels) or int(runs.sum()) != pixels:
        raise MaskError(f"malformed RLE counts: runs cover {int(runs.sum())} of {pixels} pixels")
    return runs


def _format_runs(runs: IntArray) -> bytes:
    rest = runs.astype(np.int64)
    rest[3:] -= runs[1:-2]
    groups = np.zeros((runs.size, _MAX_GROUPS), np.uint8)
    used = np.zeros((runs.size, _MAX_GROUPS), np.bool_)
    live = np.ones(runs.size, np.bool_)
    for k in range(_MAX_GROUPS):
        group = rest & 0x1F
        rest = rest >> 5
        more = np.where(group & 0x10, rest != -1, rest != 0)
        groups[:, k] = (group | np.where(more, 0x20, 0)) + 48
        used[:, k] = live
        live = live & more
    return groups[used].tobytes()


def logits_to_mask(logits: FloatArray, size: tuple[int, int], threshold: float) -> BoolArray:
    """Upsample (h, w) logits bilinearly and threshold them; rounding as torch's fused kernel."""
    y0, y1, v0, v1 = _axis(logits.shape[0], size[0])
    x0, x1, u0, u1 = _axis(logits.shape[1], size[1])
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are background or IEEE
        across = _weigh(logits[:, x0], u0, logits[:, x1], u1)
        values = _weigh(across[y0], v0[:, None], across[y1], v1[:, None])
        return values > np.float32(threshold)


def _axis(inner: int, outer: int) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    """Return, for each output coordinate, its two source indices and their weights."""
    scale = np.float32(inner) / np.float32(outer)
    exact = np.float64(scale) * (np.arange(outer) + 0.5) - 0.5  # rounded once, below
    source = np.maximum(exact.astype(np.float32), np.float32(0))
    low = np.minimum(source.astype(np.int64), inner - 1)
    weight = np.minimum(source - low.astype(np.float32), np.float32(1))
    return low, np.minimum(low + 1, inner - 1), np.float32(1) - weight, weight


def _weigh(a: FloatArray, wa: FloatArray, b: FloatArray, wb: FloatArray) -> FloatArray:
    """Return fma(a, wa, b * wb) in single precision.

    In double the product a * wa is exact; rounding its sum to odd (S. Boldo and G. Melquiond, 2008)
    before rounding to single gives the fused result.
    """
    product = a.astype(np.float64) * wa
    addend = (b * wb).astype(np.float64)
    total = product + addend
    back = total - product
    error = (product - (total - back)) + (addend - back)
    even = (total.view(np.int64) & 1) == 0
    inexact = np.isfinite(total) & (error != 0) & even
    odd = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
    return np.where(inexact, odd, total).astype(np.float32)


def rle_box(counts: bytes, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Bounding box of a compressed mask: x0, y0, x1, y1, half-open; zeros where it is empty."""
    mask = rle_decode(counts, size)
    xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if xs.size == 0:
        return 0, 0, 0, 0
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def rle_iou(a: Sequence[bytes], b: Sequence[bytes], size: tuple[int, int]) -> NDArray[np.float64]:
    """Pairwise intersection over union of compressed masks."""
    masks_a, masks_b = [rle_decode(c, size) for c in a], [rle_decode(c, size) for c in b]
    values = [mask_iou(p, q) for p in masks_a for q in masks_b]
    return np.array(values, np.float64).reshape(len(a), len(b))


def rle_union(counts: Sequence[bytes], size: tuple[int, int]) -> bytes:
    """Union of compressed masks."""
    union = np.zeros(size, np.bool_)
    for text in counts:
        union |= rle_decode(text, size)
    return rle_encode(union)


def mask_iou(a: BoolArray, b: BoolArray) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    either = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / either if either else 1.0


def clean_mask(mask: BoolArray, min_area: int, max_hole: int) -> BoolArray:
    """Remove components below `min_area`, then fill holes up to `max_hole`."""
    out = mask.copy()
    if min_area > 1:
        labels, areas, _ = _components(out, 1)
        out &= (areas >= min_area)[labels]
    if max_hole > 0:
        labels, areas, at_border = _components(~out, 0)
        out |= ((areas <= max_hole) & ~at_border)[labels] & ~out
    return out


def _components(mask: BoolArray, reach: int) -> tuple[IntArray, IntArray, NDArray[np.bool_]]:
    """Label a mask's components: (H, W) labels, and each label's area and contact with the border.

    Background pixels have label 0, whose area and contact mean nothing. `reach` is 1 where diagonal
    neighbours connect, else 0.
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    steps = np.diff(padded, axis=1)
    rows, begins = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    parent = list(range(rows.size))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first = np.searchsorted(rows, np.arange(height + 1))
    for y in range(1, height):
        above, here = int(first[y - 1]), int(first[y])
        while above < first[y] and here < first[y + 1]:
            if begins[above] < ends[here] + reach and begins[here] < ends[above] + reach:
                a, b = root(above), root(here)
                parent[max(a, b)] = min(a, b)
            if ends[above] < ends[here]:
                above += 1
            else:
                here += 1
    run_labels = np.array([root(i) + 1 for i in range(rows.size)], np.int64)
    lengths = ends - begins
    areas = np.bincount(run_labels, lengths, rows.size + 1).astype(np.int64)
    edge = (rows == 0) | (rows == height - 1) | (begins == 0) | (ends == width)
    at_border = np.bincount(run_labels, edge, rows.size + 1) > 0
    labels = np.zeros(mask.shape, np.int64)
    labels[mask] = np.repeat(run_labels, lengths)
    return labels, areas, at_border


def boundary(mask: BoolArray) -> BoolArray:
    """Boundary map by the rule of DAVIS (davis2017/metrics.py, _seg2bmap)."""
    out = np.zeros_like(mask)
    out[:-1, :-1] = (
        (mask[:-1, :-1] ^ mask[:-1, 1:])
        | (mask[:-1, :-1] ^ mask[1:, :-1])
        | (mask[:-1, :-1] ^ mask[1:, 1:])
    )
    out[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    out[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return out


def boundary_match(a: BoolArray, b: BoolArray, radius: int) -> tuple[int, int, int, int]:
    """Count boundary pixels of each mask, and those within `radius` of the other's boundary."""
    edge_a, edge_b = boundary(a), boundary(b)
    reach = min(radius, sum(a.shape))
    return (
        int(np.count_nonzero(edge_a)),
        int(np.count_nonzero(edge_b)),
        _count_near(edge_a, edge_b, reach),
        _count_near(edge_b, edge_a, reach),
    )


def _count_near(source: BoolArray, target: BoolArray, radius: int) -> int:
    """Count `source` pixels with a `target` pixel in the disk around them, by rows of the disk."""
    height, width = source.shape
    sums = np.zeros((height, width + 1), np.int64)
    np.cumsum(target, axis=1, out=sums[:, 1:])
    ys, xs = np.nonzero(source)
    found = np.zeros(ys.size, np.bool_)
    for dy in range(-min(radius, height - 1), min(radius, height - 1) + 1):
        half = math.isqrt(radius * radius - dy * dy)
        rows = ys + dy
        inside = np.flatnonzero((rows >= 0) & (rows < height))
        y, x = rows[inside], xs[inside]
        right, left = np.minimum(x + half + 1, width), np.maximum(x - half, 0)
        found[inside] |= sums[y, right] > sums[y, left]
    return int(np.count_nonzero(found))
