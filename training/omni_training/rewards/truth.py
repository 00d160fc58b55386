"""What is known of a clip: the true objects on the frames that the reasoner was shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from omni_sdk.dus.boxes import mask_box
from omni_sdk.errors import DatasetError


@dataclass(frozen=True, slots=True)
class ClipTruth:
    """The target objects of one query, on the T sampled frames of its clip.

    N may be 0: nothing in the clip answers the query.

    Attributes:
        areas: (N, T) int64 pixels of each object's mask; 0 where it is not to be seen.
        boxes_xyxy: (N, T, 4) float32 pixel edges around each mask; zeros where the area is 0.
        union_areas: (T,) int64 pixels of the union of the masks.
        spans_seconds: (S, 2) float64 when the answer is true, on the reasoner's clock; None where the
            data does not say.
        num_moments: moments of the true answer, where the data says how many; None: as many as the
            prompt asks for.
        answer: how the answer is written: "moments" (the JSON list), "phrase" (of one image, for the
            grounder) or "box" (box and points in the answer itself, pixels of the image as seen).
        points_xy: (2, 2) float64 pixels, two points on the object, for "box".
    """

    areas: NDArray[np.int64]
    boxes_xyxy: NDArray[np.float32]
    union_areas: NDArray[np.int64]
    spans_seconds: NDArray[np.float64] | None = None
    num_moments: int | None = None
    answer: Literal["moments", "phrase", "box"] = "moments"
    points_xy: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if (self.points_xy is not None) != (self.answer == "box"):
            raise DatasetError(f"points belong to answers of kind 'box', got {self.answer!r}")
        objects, frames = self.areas.shape if self.areas.ndim == 2 else (-1, -1)
        if self.boxes_xyxy.shape != (objects, frames, 4) or self.union_areas.shape != (frames,):
            raise DatasetError(
                "expected areas (N, T), boxes (N, T, 4) and union areas (T,), got "
                f"{self.areas.shape}, {self.boxes_xyxy.shape} and {self.union_areas.shape}"
            )

    @classmethod
    def from_masks(
        cls,
        masks: NDArray[np.bool_],
        spans_seconds: NDArray[np.float64] | None = None,
        num_moments: int | None = None,
        answer: Literal["moments", "phrase"] = "moments",
    ) -> ClipTruth:
        """Measure masks (N, T, H, W).

        Raises:
            DatasetError: not four axes, or no frame.
        """
        if masks.ndim != 4 or masks.shape[1] == 0:
            raise DatasetError(
                f"expected masks (N, T, H, W) of at least one frame, got {masks.shape}"
            )
        objects, frames = masks.shape[:2]
        boxes = np.zeros((objects, frames, 4), np.float32)
        for index in np.ndindex(objects, frames):
            box = mask_box(masks[index].astype(bool))
            if box is not None:
                boxes[index] = box
        areas = np.count_nonzero(masks, axis=(2, 3)).astype(np.int64)
        union = np.count_nonzero(masks.any(axis=0), axis=(1, 2)).astype(np.int64)
        return cls(areas, boxes, union, spans_seconds, num_moments, answer)

    @property
    def num_frames(self) -> int:
        """Number of sampled frames T."""
        return len(self.union_areas)

    @property
    def absent(self) -> bool:
        """Whether no frame shows an object that answers the query."""
        return not self.union_areas.any()

    def boxes_at(self, sample: int) -> NDArray[np.float32]:
        """Return the (n, 4) boxes of the objects to be seen on a sampled frame."""
        boxes: NDArray[np.float32] = self.boxes_xyxy[self.areas[:, sample] > 0, sample]
        return boxes
