"""What `Pipeline.stream` yields, in order: Reasoned, Grounded, one Frame per frame, Finished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from omni_sdk.results import Result
from omni_sdk.stages import Keyframe, ObjectMask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from omni_sdk.media.frames import VideoInfo
    from omni_sdk.stages import GroundedBox


@dataclass(frozen=True, slots=True)
class Reasoned:
    """The reasoner has answered.

    Attributes:
        thinking: its reasoning.
        answer: its answer, raw.
        status: "found", "absent" or "unparsed".
        keyframes: the moments that will be grounded, in time order, without objects yet.
        thinking_cut: as in `Result`.
        video: the source: its size, times and number of frames.
    """

    thinking: str
    answer: str
    status: str
    keyframes: tuple[Keyframe, ...]
    thinking_cut: bool = False
    video: VideoInfo | None = None


@dataclass(frozen=True, slots=True)
class Grounded:
    """The grounder has looked at every keyframe: `boxes[k]` belongs to `keyframes[k]`.

    A keyframe with nothing in its middle has become another frame of its moment if something was found there.
    """

    keyframes: tuple[Keyframe, ...]
    boxes: tuple[tuple[GroundedBox, ...], ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """All objects' masks on one frame; each frame of the source comes once, in order of completion.

    Attributes:
        frame_index: presentation order in the source.
        pts_seconds: its time.
        size: (height, width) of the masks.
        masks: one per object, COCO RLE.
    """

    frame_index: int
    pts_seconds: float
    size: tuple[int, int]
    masks: tuple[ObjectMask, ...]

    def mask_of(self, object_id: int) -> NDArray[np.bool_]:
        """Decode an object's mask, (H, W) bool; KeyError if the object is not on this frame."""
        from omni_sdk.dus.masks import rle_decode

        for mask in self.masks:
            if mask.object_id == object_id:
                return rle_decode(mask.counts, self.size)
        raise KeyError(f"frame {self.frame_index} has no object {object_id}")


@dataclass(frozen=True, slots=True)
class Finished:
    """The run has ended. `result.tracks` is empty: the masks have been yielded already."""

    result: Result


Event = Reasoned | Grounded | Frame | Finished
