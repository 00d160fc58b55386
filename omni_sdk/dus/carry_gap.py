"""Frames between two tracked ones: held back, then filled with carried masks from both sides.

Note [Filling a gap]
    While frames wait, each object's mask is carried forward from the last tracked frame; once the next one
    is tracked, masks are carried back from it as well, and each frame takes the side with more confidence
    times nearness. Where neither side is sure (`SURE`), something covers or uncovers the object: then it is
    what either side still sees. An object that one side does not know at all is there as long as the other
    side is sure of it (`PRESENT`). So at most `stride` - 1 frames wait, and as many grey frames are held.

    With "auto", a frame is tracked as soon as the confidence in any object falls below `ENOUGH`, and after
    `MAX_GAP` frames at the latest.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from omni_sdk.dus.carry import Carried, Luma, MaskCarrier, gray
from omni_sdk.dus.masks import rle_decode, rle_encode
from omni_sdk.stages import ObjectMask, TrackerFrame

ENOUGH = 0.7
SURE = 0.6
PRESENT = 0.3
MAX_GAP = 8
"""Longest stride of "auto", in frames."""

Masks = Mapping[int, ObjectMask]


@dataclass(slots=True)
class _Waiting:
    frame: TrackerFrame
    luma: Luma
    carried: dict[int, Carried]


@dataclass(slots=True)
class Gap:
    """The frames since the last tracked one; used in the order of a walk, forward or backward.

    Attributes:
        stride: frames from one tracked frame to the next, at least 2, or "auto".
        size: (height, width) of the masks in pixels.
    """

    stride: int | str
    size: tuple[int, int]
    _masks: Masks = field(default_factory=dict)
    _carriers: dict[int, MaskCarrier] = field(default_factory=dict)
    _waiting: list[_Waiting] = field(default_factory=list)

    def hold(self, frame: TrackerFrame, object_ids: set[int]) -> bool:
        """Carry masks to a frame, unless it must be tracked.

        Args:
            frame: the next frame of the walk.
            object_ids: objects that the frame shall have; others than the last tracked frame's are tracked.

        Returns:
            Whether the frame waits in the gap; False: track it and call `fill`.
        """
        longest = MAX_GAP if self.stride == "auto" else int(self.stride)
        if object_ids != self._masks.keys() or len(self._waiting) >= longest - 1:
            return False
        luma = gray(frame, self.size)
        carried = {i: carrier.step(luma) for i, carrier in self._carriers.items()}
        if self.stride == "auto" and any(c.confidence < ENOUGH for c in carried.values()):
            return False
        self._waiting.append(_Waiting(frame, luma, carried))
        return True

    def fill(self, frame: TrackerFrame, masks: Masks) -> list[tuple[TrackerFrame, Masks]]:
        """End the gap with a tracked frame; return the frames that waited, in the walk's order."""
        luma = gray(frame, self.size)
        carriers = {
            i: MaskCarrier(luma, rle_decode(mask.counts, self.size))
            for i, mask in masks.items()
            if mask.score > 0
        }
        filled = []
        if self._waiting:
            back = {i: copy.copy(carrier) for i, carrier in carriers.items()}
            for position in range(len(self._waiting) - 1, -1, -1):
                waiting = self._waiting[position]
                near = (position + 1) / (len(self._waiting) + 1)
                returned = {i: carrier.step(waiting.luma) for i, carrier in back.items()}
                filled.append((waiting.frame, self._join(waiting, returned, masks, near)))
        self._waiting, self._masks, self._carriers = [], masks, carriers
        return filled[::-1]

    def rest(self) -> list[tuple[TrackerFrame, Masks]]:
        """Give up waiting: the walk ended. Masks are carried from the last tracked frame alone."""
        filled = [(w.frame, self._join(w, {}, None, 0.0)) for w in self._waiting]
        self._waiting = []
        return filled

    def _join(
        self, waiting: _Waiting, returned: dict[int, Carried], after: Masks | None, near: float
    ) -> Masks:
        """Choose between the two sides of one frame; `near` is 0 at the last tracked frame, 1 at the next."""
        joined = {}
        for object_id, before in self._masks.items():
            then = before if after is None else after.get(object_id, before)
            mask, confidence, side = self._choose(
                waiting.carried.get(object_id), returned.get(object_id), near, after is None
            )
            score = (before, then)[side].score
            if mask is None:
                mask, score = np.zeros(self.size, bool), min(before.score, then.score, 0.0)
            joined[object_id] = ObjectMask(
                object_id, rle_encode(mask), score, source="propagated", confidence=confidence
            )
        return joined

    @staticmethod
    def _choose(
        before: Carried | None, after: Carried | None, near: float, alone: bool
    ) -> tuple[NDArray[np.bool_] | None, float, int]:
        """(mask or None for absent, confidence, side): see Note [Filling a gap]."""
        if before is None and after is None:
            return None, 1.0, 0  # absent on both sides
        if before is None or after is None:
            known, side = (before, 0) if before is not None else (after, 1)
            assert known is not None
            if not alone and known.confidence < PRESENT:
                return None, 1.0 - known.confidence, side
            return known.mask, known.confidence, side
        side = int(after.confidence * near > before.confidence * (1 - near))
        best = (before, after)[side]
        confidence = max(before.confidence, after.confidence)
        if confidence < SURE:
            return before.mask | after.mask, confidence, side
        return best.mask, best.confidence, side
