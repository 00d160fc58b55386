"""Masks warped from one frame to the next without the tracker.

`MaskWarper` follows points of an object from frame to frame, fits the object's motion since the anchor,
and warps the anchor's mask by it: once, whatever the number of frames, so that nothing wears off. Motion is
taken from the object's own pixels only. The kernels are native; without them `points_numpy` gives the same
bits.

    warper = MaskWarper(luma, mask)          # a frame whose mask is known
    for luma in following_frames:
        warped = warper.step(luma)           # warped.mask, warped.confidence
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_sdk import native
from omni_sdk.dus.flow import points_numpy
from omni_sdk.errors import MediaError
from omni_sdk.media.frames import VideoFrame

MAX_SIDE = 16384
"""Longest side of a frame, in pixels."""

DEFAULT_POINTS = 96
"""Points followed per object, about; fewer on objects of fewer than 9 pixels per point."""

_ITERATIONS = 8  # per level of the pyramid
_COARSEST = 80  # pixels of the longer side at the coarsest level, at least
_MAX_LEVELS = 6
_MARGIN = 32  # pixels around an object in which it is looked for, at least
_NEIGHBOURS = 3.0  # reach of a point's influence, in distances between points
_MIN_REACH = 8.0
_GRAIN = 10.0  # windows of less contrast, in grey values, count little: grain is no texture
_LATER_LEVELS = 3  # once the motion is known
_ENOUGH = 12  # fewer points lower the confidence

Luma = NDArray[np.uint8]
Doubles = NDArray[np.float64]
_Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class WarpedMask:
    """A warped mask.

    Attributes:
        mask: (H, W) bool.
        confidence: in [0, 1]: the share of the anchor's points that are still followed, each weighted by
            how well tracking back returns to it, how well its pixels fit, and how well it agrees with its
            neighbours. 0 where nothing is known.
    """

    mask: NDArray[np.bool_]
    confidence: float


class MaskWarper:
    """Warps one object's mask forward (or, given frames in that order, backward) from an anchor.

    The same frames and mask give the same result on every machine, to the last bit.
    """

    def __init__(
        self,
        luma: Luma,
        mask: NDArray[np.bool_] | NDArray[np.uint8],
        *,
        points: int = DEFAULT_POINTS,
    ) -> None:
        """Start from a frame whose mask is known.

        Args:
            luma: (H, W) uint8 grey values, rows of any stride; kept (not copied) until the next step.
            mask: (H, W) bool or uint8 of the same size, non-zero on the object; kept.
            points: points to follow, in [1, 4096].

        Raises:
            TypeError: not uint8, or not bool.
            ValueError: sizes differ or are outside 1..MAX_SIDE, or `points` is out of range.
        """
        self._frame = self._anchor_frame = _check_luma(luma)
        if mask.dtype not in (np.bool_, np.uint8):
            raise TypeError(f"mask must be bool or uint8, got {mask.dtype}")
        if mask.shape != luma.shape:
            raise ValueError(f"mask and luma must have one size, got {mask.shape} and {luma.shape}")
        if not 1 <= points <= 4096:
            raise ValueError(f"points must be in [1, 4096], got {points}")
        self._kernels = _kernels()
        self._anchor = np.ascontiguousarray(mask, np.bool_).view(np.uint8)
        self._mask = self._anchor
        self._anchor_box = self._box = self._box_of(self._anchor)
        self._affine = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        area = int(np.count_nonzero(self._anchor.view(np.bool_)))  # much faster than of bytes
        self._start = np.zeros((0, 2))
        if self._box is not None:
            self._start = self._kernels.flow_select(self._frame, self._anchor, self._box, points)
        spacing = math.sqrt(area / max(len(self._start), 1))
        self._reach = max(_MIN_REACH, _NEIGHBOURS * spacing)
        self._cell = next((c for c in (8, 16, 32) if spacing < 1.25 * c), 64)
        self._now = self._start.copy()
        self._smooth = self._start.copy()  # where the fitted motion puts the points
        self._velocity = np.zeros_like(self._start)
        self._belief = np.ones(len(self._start))
        self._contrast: Doubles | None = None  # how much each point counts for the confidence

    def step(self, luma: Luma) -> WarpedMask:
        """Warp the mask to the next frame.

        Args:
            luma: (H, W) uint8, the frame after the one of the last step; kept until the next step.

        Raises:
            TypeError: not uint8.
            ValueError: another size than the anchor's.
        """
        _check_luma(luma)
        if luma.shape != self._frame.shape:
            raise ValueError(f"frames must keep their size {self._frame.shape}, got {luma.shape}")
        alive = self._belief > 0
        if self._box is None or not alive.any():
            self._frame = luma
            return WarpedMask(self._mask.view(np.bool_).copy(), 0.0)
        matches = self._follow(luma, alive)
        affine, weights = self._kernels.flow_fit(matches, self._affine, self._reach)
        smooth, box = self._kernels.flow_smooth(
            matches, affine, weights, self._reach, self._anchor_box, luma.shape
        )
        x0, y0, x1, y1 = box
        mask = np.zeros(luma.shape, np.uint8)
        found: _Box | None = None
        if x0 < x1 and y0 < y1:
            warped = self._kernels.flow_warp(
                self._anchor,
                self._anchor_frame,
                luma,
                matches,
                affine,
                weights,
                self._reach,
                box,
                self._cell,
            ).view(np.uint8)
            mask[y0:y1, x0:x1] = warped
            found = self._box_of(warped, x0, y0)
        self._velocity = smooth - self._smooth
        self._smooth, self._now = smooth, matches[:, 2:4]
        self._affine, self._frame, self._mask, self._box = affine, luma, mask, found
        return WarpedMask(mask.view(np.bool_), 0.0 if found is None else self._confidence(weights))

    def _confidence(self, weights: Doubles) -> float:
        assert self._contrast is not None
        enough = min(len(weights) / _ENOUGH, 1.0)
        return enough * float((weights * self._contrast).sum() / self._contrast.sum())

    def _follow(self, luma: Luma, alive: NDArray[np.bool_]) -> Doubles:
        """Track the points to `luma`; return the matches as the kernels take them."""
        assert self._box is not None
        guesses = self._velocity[alive]
        x0, y0, x1, y1 = self._box
        far = float(np.abs(guesses).max())
        margin = int(_MARGIN + min(far, max(luma.shape)) + max(x1 - x0, y1 - y0) / 4)
        height, width = luma.shape
        crop = (
            max(x0 - margin, 0),
            max(y0 - margin, 0),
            min(x1 + margin, width),
            min(y1 + margin, height),
        )
        levels = 1 + int(math.log2(max(max(luma.shape) / _COARSEST, 1)))
        matches: Doubles
        matches, contrast = self._kernels.flow_match(
            self._frame,
            luma,
            self._mask,
            crop,
            self._start,
            self._now,
            self._velocity,
            self._belief,
            min(levels, _MAX_LEVELS if self._contrast is None else _LATER_LEVELS),
            _ITERATIONS,
        )
        if self._contrast is None:
            squares = contrast * contrast
            self._contrast = squares / (squares + _GRAIN**2) + 1e-6
        # Arrays are replaced, never changed: a copy may go its own way.
        self._belief = matches[:, 7]
        return matches

    def _box_of(self, mask: NDArray[np.uint8], x0: int = 0, y0: int = 0) -> _Box | None:
        """Return the box of a part of a frame's mask whose first pixel is (x0, y0) of the frame."""
        left, top, right, bottom = self._kernels.flow_box(mask)
        return (x0 + left, y0 + top, x0 + right, y0 + bottom) if right else None


def gray(frame: VideoFrame, size: tuple[int, int]) -> Luma:
    """Return a tracker frame's luma, (H, W) uint8.

    Raises:
        MediaError: the frame has none, or one of another size than `size`, (height, width).
    """
    luma = frame.luma
    if luma is None or luma.dtype != np.uint8 or luma.shape != tuple(size):
        found = "none" if luma is None else f"{luma.dtype} {luma.shape}"
        raise MediaError(
            f"frame {frame.frame_index}: a stride other than 1 needs its luma as uint8 {tuple(size)}, "
            f"got {found}; give the source's `forward` and `backward` a `luma` argument"
        )
    return luma


def _kernels() -> Any | ModuleType:
    core = native.core()
    return points_numpy if core is None else core


def _check_luma(luma: Luma) -> Luma:
    if not isinstance(luma, np.ndarray) or luma.dtype != np.uint8:
        raise TypeError(f"luma must be a uint8 array, got {getattr(luma, 'dtype', type(luma))}")
    if luma.ndim != 2:
        raise ValueError(f"luma must be (H, W), got {luma.shape = }")
    if not (1 <= luma.shape[0] <= MAX_SIDE and 1 <= luma.shape[1] <= MAX_SIDE):
        raise ValueError(f"sides must be in [1, {MAX_SIDE}], got {luma.shape = }")
    if luma.strides[1] != 1 and luma.shape[1] > 1:
        raise ValueError("the pixels of a row of luma must be contiguous")
    return luma
