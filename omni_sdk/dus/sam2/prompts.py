"""A caller's boxes and clicks, validated and mapped to the tracker's square image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni_sdk.dus.boxes import Boxes, check_boxes
from omni_sdk.errors import PromptError
from omni_sdk.stages import KeyframePrompt

MAX_POINTS = 64
BOX_LABELS = np.array([2, 3], np.int64)


@dataclass(frozen=True, slots=True)
class Clicks:
    """One object's prompt as SAM 2 reads it.

    Attributes:
        points: (K, 2) float32 xy pixels of the S x S image.
        labels: (K,) int64: 1 on, 0 off the object, 2 and 3 the corners of a box.
        box_xyxy: (4,) pixels of the source where a box was given, by which it can be matched.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    box_xyxy: Boxes | None


@dataclass(frozen=True, slots=True)
class PlannedPrompt:
    """A validated `KeyframePrompt`: its place in the caller's list, one `Clicks` per object."""

    position: int
    frame_index: int
    clicks: tuple[Clicks, ...]
    object_ids: tuple[int, ...] | None


def plan_prompts(
    prompts: Sequence[KeyframePrompt],
    *,
    num_frames: int,
    size_hw: tuple[int, int],
    image_size: int,
    max_objects: int,
) -> list[PlannedPrompt]:
    """Validate prompts and put them in time order.

    Args:
        prompts: as given, in any order; several may name one frame.
        num_frames: frames of the source.
        size_hw: height and width of the source in pixels.
        image_size: side S of the tracker's image in pixels.
        max_objects: most boxes in all.

    Raises:
        PromptError: no box at all, too many, a frame outside the source, or a malformed box, click or
            list of ids.
    """
    total = 0
    planned = []
    for position, prompt in enumerate(prompts):
        if not 0 <= prompt.frame_index < num_frames:
            raise PromptError(
                f"prompt {position}: frame {prompt.frame_index} is outside the source, which has "
                f"frames 0 to {num_frames - 1}"
            )
        where = f"prompt {position} (frame {prompt.frame_index}): "
        clicks = _clicks(prompt, size_hw, image_size, where)
        _check_ids(prompt.object_ids, len(clicks), where)
        total += len(clicks)
        planned.append(PlannedPrompt(position, prompt.frame_index, clicks, prompt.object_ids))
    if not total:
        raise PromptError("nothing to track: no prompt holds a box or a click")
    if total > max_objects:
        raise PromptError(f"{total} boxes in one run; at most {max_objects} are tracked")
    return sorted(planned, key=lambda p: p.frame_index)


def _clicks(
    prompt: KeyframePrompt, size_hw: tuple[int, int], image_size: int, where: str
) -> tuple[Clicks, ...]:
    """Return each object's box corners, then its clicks: the order in which SAM 2 was trained."""
    height, width = size_hw
    boxes: Sequence[Boxes | None]
    if prompt.boxes_xyxy is None:
        objects = prompt.object_ids if prompt.points is None else prompt.points
        boxes = (None,) * (0 if objects is None else len(objects))
    else:
        boxes = list(check_boxes(prompt.boxes_xyxy, size_hw=size_hw, where=where))
    points = (None,) * len(boxes) if prompt.points is None else prompt.points
    if len(points) != len(boxes):
        raise PromptError(f"{where}{len(points)} sets of points for {len(boxes)} boxes")
    scale = np.array([image_size / width, image_size / height], np.float32)
    clicks = []
    for n, (box, given) in enumerate(zip(boxes, points, strict=True)):
        if box is None and given is None:
            raise PromptError(
                f"{where}object {n} has neither a box nor a click; objects with boxes and objects with "
                "clicks alone go into two prompts of the same frame"
            )
        parts = [] if box is None else [(box.reshape(2, 2), BOX_LABELS)]
        if given is not None:
            parts.append(_check_points(given, size_hw=size_hw, where=f"{where}object {n}: "))
        xy, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        clicks.append(Clicks(xy * scale, labels, box))
    return tuple(clicks)


def _check_points(
    given: tuple[NDArray[np.float32], NDArray[np.int64]], *, size_hw: tuple[int, int], where: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    try:
        points, labels = given
        xy, marks = np.asarray(points, np.float32), np.asarray(labels)
    except (TypeError, ValueError, OverflowError) as e:
        raise PromptError(f"{where}expected (P, 2) points and (P,) labels: {e}") from e
    if xy.ndim != 2 or xy.shape[1] != 2 or not 1 <= len(xy) <= MAX_POINTS:
        raise PromptError(f"{where}points must be (1..{MAX_POINTS}, 2), got {xy.shape}")
    if marks.shape != (len(xy),) or not np.isin(marks, (0, 1)).all():
        raise PromptError(f"{where}labels must be {len(xy)} values of 0 or 1, got {marks.tolist()}")
    if not ((xy >= 0) & (xy <= np.array(size_hw[::-1], np.float32))).all():
        raise PromptError(
            f"{where}points {xy.tolist()} are not all inside the frame of {size_hw[1]} x "
            f"{size_hw[0]} pixels"
        )
    return xy, marks.astype(np.int64)


def _check_ids(object_ids: tuple[int, ...] | None, count: int, where: str) -> None:
    if object_ids is None:
        return
    if len(object_ids) != count or len(set(object_ids)) != count or min(object_ids, default=1) < 1:
        raise PromptError(
            f"{where}object_ids must be {count} different ids from 1, got {list(object_ids)}"
        )
