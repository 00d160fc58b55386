"""An object's memory bank: what of the past (or, walking backward, the future) a frame attends to.

The rules are SAM 2's (upstream: `_gather_memory_frame_outputs`, `_get_object_pointers` and
`_select_closest_cond_frames` of `Sam2VideoModel`), over a store that does not grow with the clip.

Note [What differs from transformers]
    With `max_conditioning` of at least the number of prompted frames the selection is the same. Beyond:
    - Only the pointers of the *selected* prompted frames are used, as in Meta's own code; transformers
      uses those of all, so that the work per frame grows with the number of prompts.
    - "Nearest in time" needs no rule for both sides: the forward pass has prompted frames behind it
      only, the backward pass ahead of it only.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """Sizes of a bank.

    Attributes:
        num_memories: temporal slots, the prompted one included (SAM 2: 7), so 6 recent memories.
        max_pointers: greatest number of recent pointers plus one (SAM 2: 16, or the clip's length if
            that is less); distances are divided by it less one.
        max_conditioning: prompted frames that are attended to, at least 1.
        stride: real frames between two frames that are processed; a memory `d` real frames away is
            `ceil(d / stride)` steps away, and distances of pointers stay in real frames.
        by_order: the k-th nearest memory is k steps away, whatever `stride`: for uneven strides.
    """

    num_memories: int
    max_pointers: int
    max_conditioning: int
    stride: int = 1
    by_order: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """What one frame leaves behind: features (hw, M) and the object's pointer (C,)."""

    frame_index: int
    features: Array
    pointer: Array


@dataclass(frozen=True, slots=True)
class Context:
    """What one frame attends to.

    Attributes:
        features: T arrays (hw, M).
        slots: T rows of the temporal table: the last one for prompted frames, k - 1 for k steps away.
        pointers: P arrays (C,).
        distances: P distances in real frames, over the greatest one.
    """

    features: tuple[Array, ...]
    slots: tuple[int, ...]
    pointers: tuple[Array, ...]
    distances: tuple[float, ...]

    @property
    def layout(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Objects with equal layouts go through the graphs in one batch."""
        return self.slots, self.distances


@dataclass(slots=True)
class MemoryBank:
    """The memories of one object during one run.

    Frames come forward in time with `condition` and `remember`; after `rewind` they come backward from
    the first prompted frame. The bank then starts with the memories right after that frame, as a
    transformers session that has gone forward does.
    """

    limits: MemoryLimits
    conditioning: list[Memory] = field(default_factory=list)
    recent: deque[tuple[int, Array]] = field(init=False)
    pointers: deque[tuple[int, Array]] = field(init=False)
    early: list[tuple[int, Array]] = field(default_factory=list)
    early_pointers: list[tuple[int, Array]] = field(default_factory=list)
    reverse: bool = False

    def __post_init__(self) -> None:
        self.recent = deque(maxlen=self.limits.num_memories - 1)
        self.pointers = deque(maxlen=max(self.limits.max_pointers - 1, 0))

    @property
    def first(self) -> int:
        """The first prompted frame."""
        return self.conditioning[0].frame_index

    def condition(self, memory: Memory) -> None:
        """Add the memory of a prompted frame, later than all before it."""
        self.conditioning.append(memory)
        # Those that the forward pass can still select, and those that the backward pass will.
        keep = self.limits.max_conditioning + self.limits.num_memories - 1
        if len(self.conditioning) > 2 * keep:
            del self.conditioning[keep]

    def remember(self, memory: Memory) -> None:
        """Add the memory of a tracked frame."""
        index = memory.frame_index
        self.recent.append((index, memory.features))
        self.pointers.append((index, memory.pointer))
        if not self.reverse:
            # As seen from the first backward frame.
            steps = self._steps(index, self.first) + 1
            if (len(self.early) + 1 if self.limits.by_order else steps) < self.limits.num_memories:
                self.early.append((index, memory.features))
            if steps < self.limits.max_pointers:
                self.early_pointers.append((index, memory.pointer))

    def rewind(self) -> None:
        """Turn round: the next frame is the one before the first prompted frame."""
        self.reverse = True
        # The farthest first: it is the first to be forgotten.
        self.recent.clear()
        self.recent.extend(reversed(self.early))
        self.pointers.clear()
        self.pointers.extend(reversed(self.early_pointers))
        self.early.clear()
        self.early_pointers.clear()

    def context(self, frame_index: int) -> Context:
        """Select what a frame attends to; the bank must hold a prompted frame."""
        limits = self.limits
        by_distance = sorted(
            self.conditioning, key=lambda memory: abs(memory.frame_index - frame_index)
        )
        nearest = by_distance[: limits.max_conditioning]
        nearest.sort(key=lambda memory: memory.frame_index)
        # A prompted frame that is not selected still counts as a recent one (as upstream).
        others = [(m.frame_index, m.features) for m in by_distance[limits.max_conditioning :]]
        candidates = dict([*others, *self.recent])
        order = sorted(candidates, key=lambda index: abs(index - frame_index))
        steps = {
            index: (k if limits.by_order else self._steps(frame_index, index), candidates[index])
            for k, index in enumerate(order, 1)
        }
        near = sorted(
            (item for item in steps.values() if item[0] < limits.num_memories),
            key=lambda item: -item[0],
        )
        scale = max(limits.max_pointers - 1, 1)
        pointers = [(m.frame_index, m.pointer) for m in nearest]
        pointers += [
            (index, pointer)
            for index, pointer in reversed(self.pointers)
            if self._steps(frame_index, index) < limits.max_pointers
        ]
        return Context(
            features=(*(m.features for m in nearest), *(features for _, features in near)),
            slots=(*[limits.num_memories - 1] * len(nearest), *(k - 1 for k, _ in near)),
            pointers=tuple(pointer for _, pointer in pointers),
            distances=tuple(abs(frame_index - index) / scale for index, _ in pointers),
        )

    def _steps(self, a: int, b: int) -> int:
        return -(-abs(a - b) // self.limits.stride)
