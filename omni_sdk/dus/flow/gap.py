"""Frames between two tracked ones: held back, then filled with warped masks from both sides.

Note [Filling a gap]
    Once the frame after a gap is tracked, each object's mask is warped to each waiting frame from the nearer
    of the two tracked ones. Where that is not sure (`SURE`), the other one's is warped there too: the side
    with more confidence times nearness is taken, and if neither is sure, something covers or uncovers the
    object, and it is what either side still sees. An object that one side does not have is there as long as
    the other side can follow it (`PRESENT`). At most `stride` - 1 frames wait, and as many grey frames.

    With "auto", masks are warped forward as the frames come, and a frame is tracked as soon as the
    confidence in any object falls below `ENOUGH`, and after `MAX_GAP` frames at the latest.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omni_sdk.dus.flow.warp import Luma, MaskWarper, WarpedMask, gray
from omni_sdk.dus.masks import rle_decode, rle_encode
from omni_sdk.media.frames import VideoFrame
from omni_sdk.stages import FrameMasks, ObjectMask

ENOUGH = 0.6
SURE = 0.5
PRESENT = 0.3
MAX_GAP = 8
"""Longest stride of "auto", in frames."""

Masks = Mapping[int, ObjectMask]


@dataclass(slots=True)
class _Side:
    """One object's masks on the frames that wait, warped from one tracked frame only as far as needed."""

    warper: MaskWarper
    lumas: list[Luma]  # in the order of the steps; may grow
    warped: list[WarpedMask] = field(default_factory=list)

    def at(self, step: int) -> WarpedMask:
        while len(self.warped) <= step:
            self.warped.append(self.warper.step(self.lumas[len(self.warped)]))
        return self.warped[step]


@dataclass(slots=True)
class Gap:
    """The frames since the last tracked one; used in the order of a walk, forward or backward.

    Attributes:
        stride: frames from one tracked frame to the next, at least 2, or "auto".
        size: (height, width) of the masks in pixels.
    """

    stride: int | Literal["auto"]
    size: tuple[int, int]
    _masks: Masks = field(default_factory=dict)
    _sides: dict[int, _Side] = field(default_factory=dict)
    _frames: list[VideoFrame] = field(default_factory=list)
    _lumas: list[Luma] = field(default_factory=list)  # shared with the sides

    def hold(self, frame: VideoFrame, object_ids: set[int]) -> bool:
        """Warp masks to a frame, unless it must be tracked.

        Args:
            frame: the next frame of the walk.
            object_ids: objects that the frame shall have; others than the last tracked frame's are tracked.

        Returns:
            Whether the frame waits in the gap; False: track it and call `fill`.
        """
        longest = MAX_GAP if self.stride == "auto" else self.stride
        step = len(self._frames)
        if object_ids != self._masks.keys() or step >= longest - 1:
            return False
        self._lumas.append(gray(frame, self.size))
        if self.stride == "auto" and any(
            side.at(step).confidence < ENOUGH for side in self._sides.values()
        ):
            self._lumas.pop()
            return False
        self._frames.append(frame)
        return True

    def fill(self, frame: VideoFrame, tracked: Sequence[ObjectMask]) -> list[FrameMasks]:
        """End the gap with a tracked frame; return the frames that waited, in the walk's order."""
        masks = {mask.object_id: mask for mask in tracked}
        luma = gray(frame, self.size)
        warpers = {
            i: MaskWarper(luma, rle_decode(mask.counts, self.size))
            for i, mask in masks.items()
            if mask.score > 0
        }
        returning = self._lumas[::-1]
        back = {i: _Side(copy.copy(warper), returning) for i, warper in warpers.items()}
        filled = self._filled(back, masks)
        self._masks, self._frames, self._lumas = masks, [], []
        self._sides = {i: _Side(warper, self._lumas) for i, warper in warpers.items()}
        return filled

    def rest(self) -> list[FrameMasks]:
        """Give up waiting: the walk ended. Masks are warped from the last tracked frame alone."""
        filled = self._filled({}, None)
        self._frames, self._lumas = [], []
        return filled

    def _filled(self, back: dict[int, _Side], after: Masks | None) -> list[FrameMasks]:
        return [
            FrameMasks(
                frame.frame_index,
                frame.pts_seconds,
                tuple(
                    self._join(step, before, self._sides.get(i), back.get(i), after)
                    for i, before in sorted(self._masks.items())
                ),
            )
            for step, frame in enumerate(self._frames)
        ]

    def _join(
        self,
        step: int,
        before: ObjectMask,
        ahead: _Side | None,
        back: _Side | None,
        after: Masks | None,
    ) -> ObjectMask:
        """Choose one object's mask on one frame; see Note [Filling a gap]."""
        last = len(self._frames) - 1
        then = before if after is None else after.get(before.object_id, before)
        mask: NDArray[np.bool_] | None = None
        confidence, score = 1.0, min(before.score, then.score, 0.0)
        if ahead is not None and back is not None:
            near = (step + 1) / (last + 2)
            sides = [(ahead, step, 1 - near, before.score), (back, last - step, near, then.score)]
            if near > 0.5:
                sides.reverse()
            (first, at, weight, score), (other, other_at, other_weight, other_score) = sides
            one = first.at(at)
            mask, confidence = one.mask, one.confidence
            if confidence < SURE:
                two = other.at(other_at)
                if two.confidence * other_weight > confidence * weight:
                    mask, score = two.mask, other_score
                confidence = max(confidence, two.confidence)
                if confidence < SURE:
                    mask = one.mask | two.mask
        elif ahead is not None or back is not None:
            known = ahead.at(step) if ahead is not None else None
            if known is None and back is not None:
                known = back.at(last - step)
            assert known is not None
            gone = after is not None and known.confidence < PRESENT
            confidence = 1 - known.confidence if gone else known.confidence
            if not gone:
                mask, score = known.mask, max(before.score, then.score)
        return ObjectMask(
            before.object_id,
            rle_encode(np.zeros(self.size, bool) if mask is None else mask),
            score,
            source="propagated",
            confidence=confidence,
        )
