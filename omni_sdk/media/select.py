"""Which frames of a video are sampled: pure functions of its times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Strategy = Literal["linspace", "bins"]


def linspace_indices(num_frames: int, count: int) -> NDArray[np.int64]:
    """Return round(linspace(0, num_frames - 1, count)), half to even, as qwen-omni-utils.

    In exact integers: torch and numpy round some ties the wrong way in floating point.

    Args:
        num_frames: frames in the video, at least 1.
        count: frames wanted, at least 1.

    Returns:
        (count,) int64 indices.
    """
    whole, rest = np.divmod(np.arange(count) * (num_frames - 1), max(count - 1, 1))
    up = (2 * rest > count - 1) | ((2 * rest == count - 1) & (rest > 0) & (whole % 2 == 1))
    indices: NDArray[np.int64] = (whole + up).astype(np.int64)
    return indices


def frames_at(pts_seconds: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the frame on screen at each time: the last with pts <= time, the first before that.

    Times are compared with half a microsecond of slack, for they are sums of rounded fractions.
    """
    shown = np.searchsorted(pts_seconds, seconds + 5e-7, side="right") - 1
    return np.maximum(shown, 0).astype(np.int64)


def bin_indices(
    pts_seconds: NDArray[np.float64], duration_seconds: float, count: int
) -> NDArray[np.int64]:
    """Return the first frame of each of `count` equal spans of the duration.

    A span without a frame of its own gives the frame on screen at its start.
    """
    edges = np.arange(count + 1, dtype=np.float64) * (duration_seconds / count)
    first = np.searchsorted(pts_seconds, edges[:-1] - 5e-7, side="left")
    inside = first < np.searchsorted(pts_seconds, edges[1:] - 5e-7, side="left")
    return np.where(inside, first, frames_at(pts_seconds, edges[:-1])).astype(np.int64)


def select_frames(
    pts_seconds: NDArray[np.float64],
    duration_seconds: float,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    indices: Sequence[int] | NDArray[np.int64] | None = None,
    times_seconds: Sequence[float] | NDArray[np.float64] | None = None,
    strategy: Strategy = "linspace",
) -> NDArray[np.int64]:
    """Turn exactly one way of naming frames into indices.

    Args:
        pts_seconds: (N,) ascending times of the frames, N at least 1.
        duration_seconds: end of the last frame.
        num_frames: that many frames by `strategy`; no more than there are.
        fps: the frame on screen every 1 / fps seconds, each frame once.
        indices: these frames, in this order.
        times_seconds: the frames on screen then, in this order; each in [0, duration].
        strategy: "linspace" (index-uniform) or "bins" (time-uniform).

    Returns:
        (T,) int64 indices, T at least 1.

    Raises:
        ValueError: not exactly one way, or one out of range.
        IndexError: an index outside the video.
    """
    total = len(pts_seconds)
    given = [x for x in (num_frames, fps, indices, times_seconds) if x is not None]
    if len(given) != 1:
        raise ValueError(
            "give exactly one of num_frames, fps, indices and times_seconds, got "
            f"{num_frames=} {fps=} {indices=} {times_seconds=}"
        )
    if strategy not in get_args(Strategy):
        raise ValueError(f"strategy must be 'linspace' or 'bins', got {strategy!r}")
    if num_frames is not None:
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {num_frames}")
        count = min(num_frames, total)
        if strategy == "bins":
            return bin_indices(pts_seconds, duration_seconds, count)
        return linspace_indices(total, count)
    if fps is not None:
        if not 0 < fps <= 1000:
            raise ValueError(f"fps must be in (0, 1000], got {fps}")
        ticks = max(1, int(np.ceil(duration_seconds * fps - 1e-6)))
        return np.unique(frames_at(pts_seconds, np.arange(ticks) / fps))
    if indices is not None:
        wanted = np.asarray(indices, np.int64).reshape(-1)
        if len(wanted) == 0:
            raise ValueError("indices must not be empty")
        if wanted.min() < 0 or wanted.max() >= total:
            raise IndexError(
                f"frame indices must be in [0, {total - 1}], got {wanted.min()}..{wanted.max()}"
            )
        return wanted
    times = np.asarray(times_seconds, np.float64).reshape(-1)
    if len(times) == 0:
        raise ValueError("times_seconds must not be empty")
    if not (times.min() >= 0 and times.max() <= duration_seconds + 1e-6):
        raise ValueError(
            f"times_seconds must be in [0, {duration_seconds:g}], got {times.min():g}..{times.max():g}"
        )
    return frames_at(pts_seconds, times)
