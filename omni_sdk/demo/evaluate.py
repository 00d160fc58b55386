"""Scores of a result against the truth of its clip.

Note [Empty frames]
The union of a result's tracks is compared with the target in every frame of the clip, as video object
segmentation by expression does. `j` and `f` follow DAVIS: a frame where both masks are empty counts 1, where
only one is, 0. `j_visible` and `f_visible` are means over the frames where the target can be seen, so that
a clip whose target comes late gives nothing away. A clip with a target that is answered "absent" (or whose
answer cannot be read) scores 0 in all four, empty frames included; a clip without a target scores 1 in `j`
and `f` exactly if its answer is "absent", else 0. Where two objects answer, the target is both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni_sdk.demo.clip import SceneTruth
from omni_sdk.demo.texts import describe
from omni_sdk.demo.world import FAMILIES, STEP_SECONDS
from omni_sdk.metrics.boxes import box_iou
from omni_sdk.metrics.davis import boundary_f, region_similarity
from omni_sdk.metrics.spans import coverage_iou
from omni_sdk.results import Result

MEASURES = (
    "j_and_f",
    "j",
    "f",
    "j_and_f_visible",
    "right_object",
    "right_description",
    "span_iou",
    "keyframe_box_iou",
    "absent_correct",
)
"""The columns of a table, each an attribute of `ClipScore`."""


@dataclass(frozen=True, slots=True)
class ClipScore:
    """What a result is worth; each in [0, 1], None where the measure does not apply to the clip.

    Attributes:
        family: of the clip.
        status: of the result.
        j: region similarity, mean over all frames; see Note [Empty frames].
        f: boundary accuracy, mean over all frames.
        j_visible: `j` over the frames where the target can be seen.
        f_visible: `f` over the frames where the target can be seen.
        right_object: the union of the tracks overlaps each object that answers more (IoU over the whole
            clip) than any other object, or `right_description` holds.
        right_description: the keyframes are described as the objects that answer and no others, word by word.
        span_iou: IoU of the time that the keyframes cover with the true spans, in real seconds.
        keyframe_box_iou: IoU with the nearest true box, mean over all boxes on all keyframes; 0 without
            a box, or where the target cannot be seen on the keyframe.
        absent_correct: whether a clip without a target is answered "absent".
    """

    family: str
    status: str
    j: float
    f: float
    j_visible: float | None = None
    f_visible: float | None = None
    right_object: float | None = None
    right_description: float | None = None
    span_iou: float | None = None
    keyframe_box_iou: float | None = None
    absent_correct: float | None = None

    @property
    def j_and_f(self) -> float:
        """Mean of `j` and `f`."""
        return (self.j + self.f) / 2

    @property
    def j_and_f_visible(self) -> float | None:
        """Mean of `j_visible` and `f_visible`."""
        if self.j_visible is None or self.f_visible is None:
            return None
        return (self.j_visible + self.f_visible) / 2


@dataclass(frozen=True, slots=True)
class Statistic:
    """Mean over `count` clips and its standard error (0 for a single clip)."""

    mean: float
    standard_error: float
    count: int


def score_clip(result: Result, truth: SceneTruth) -> ClipScore:
    """Score a result.

    Args:
        result: of a run on the clip with the clip's query.
        truth: as `write_clip` returned it.

    Raises:
        ValueError: the result is of another clip: its number of frames or size differs.
    """
    _check_same_clip(result, truth)
    family = truth.scene.family
    if truth.target is None:
        right = float(result.status == "absent")
        return ClipScore(family, result.status, j=right, f=right, absent_correct=right)
    targets = [index for index, _ in truth.scene.answers]
    description = _right_description(result, truth, targets)
    answered = result.status == "found"
    frames = _score_frames(result, truth, targets) if answered else _FrameScores()
    return ClipScore(
        family=family,
        status=result.status,
        j=frames.j,
        f=frames.f,
        j_visible=frames.j_visible,
        f_visible=frames.f_visible,
        right_object=float(frames.right_object or description),
        right_description=float(description),
        span_iou=_span_iou(result, truth),
        keyframe_box_iou=_keyframe_box_iou(result, truth, targets),
    )


def summarise(scores: Iterable[ClipScore]) -> dict[str, dict[str, Statistic]]:
    """Return {family: {measure: statistic}} in the order of `FAMILIES`, then "all" over every clip.

    A measure that applies to no clip of a family is left out there.
    """
    scores = list(scores)
    groups = {f: [s for s in scores if s.family == f] for f in FAMILIES}
    groups = {f: group for f, group in groups.items() if group} | {"all": scores}
    table: dict[str, dict[str, Statistic]] = {}
    for family, group in groups.items():
        table[family] = {}
        for measure in MEASURES:
            values = [v for s in group if (v := getattr(s, measure)) is not None]
            if values:
                table[family][measure] = statistic(values)
    return table


def statistic(values: Sequence[float]) -> Statistic:
    """Return mean, standard error (sample deviation / sqrt(n)) and n of one or more values.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("a statistic needs at least one value")
    data = np.asarray(values, np.float64)
    error = float(data.std(ddof=1)) / math.sqrt(len(data)) if len(data) > 1 else 0.0
    return Statistic(float(data.mean()), error, len(data))


def format_table(table: dict[str, dict[str, Statistic]]) -> str:
    """Return a summary as lines of aligned text: a row per family, "mean +-SE" per measure."""
    rows = [["family", "clips", *MEASURES]]
    for family, cells in table.items():
        count = cells["j_and_f"].count if "j_and_f" in cells else 0
        texts = [
            f"{s.mean:.3f} +-{s.standard_error:.3f}" if (s := cells.get(m)) else "-"
            for m in MEASURES
        ]
        rows.append([family, str(count), *texts])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


@dataclass(frozen=True, slots=True)
class _FrameScores:
    """What the masks of a clip are worth; the defaults are those of no answer."""

    j: float = 0.0
    f: float = 0.0
    j_visible: float = 0.0
    f_visible: float = 0.0
    right_object: bool = False


def _check_same_clip(result: Result, truth: SceneTruth) -> None:
    found = (result.video.num_frames, result.video.height, result.video.width)
    expected = (truth.num_frames, *truth.size)
    if found != expected:
        raise ValueError(
            f"the result is of another clip: expected (frames, height, width) {expected}, got {found}"
        )
    for track in result.tracks:
        if tuple(track.size) != tuple(truth.size):
            raise ValueError(f"track {track.object_id} is {track.size}, the clip {truth.size}")


def _right_description(result: Result, truth: SceneTruth, targets: Sequence[int]) -> bool:
    found = {k.description for k in result.keyframes}
    return found == {describe(truth.scene.objects[i].name) for i in targets}


def _score_frames(result: Result, truth: SceneTruth, targets: Sequence[int]) -> _FrameScores:
    j, f, visible = [], [], []
    objects = len(truth.scene.objects)
    shared = np.zeros(objects + 1, np.int64)  # pixels of each object inside the prediction
    areas = np.zeros(objects + 1, np.int64)
    for index in range(truth.num_frames):
        ids = truth.object_map(index)
        predicted, true = _union(result, index, truth), np.isin(ids, np.array(targets) + 1)
        shared += np.bincount(ids[predicted], minlength=objects + 1)
        areas += np.bincount(ids.ravel(), minlength=objects + 1)
        j.append(region_similarity(predicted, true))
        f.append(boundary_f(predicted, true))
        visible.append(bool(true.any()))
    # shared.sum() is the predicted area. An object that is never seen has no union to divide by.
    overlaps = shared[1:] / np.maximum(shared.sum() + areas[1:] - shared[1:], 1)
    others = np.delete(overlaps, targets)
    seen = np.array(visible)
    return _FrameScores(
        j=float(np.mean(j)),
        f=float(np.mean(f)),
        j_visible=float(np.mean(np.array(j)[seen])) if seen.any() else 0.0,
        f_visible=float(np.mean(np.array(f)[seen])) if seen.any() else 0.0,
        right_object=bool(overlaps[targets].min() > max(0.0, others.max(initial=0.0))),
    )


def _union(result: Result, frame_index: int, truth: SceneTruth) -> NDArray[np.bool_]:
    """(H, W) bool: what any track says of a frame; nothing where no track has it."""
    union = np.zeros(truth.size, bool)
    for track in result.tracks:
        if frame_index in track.frame_indices:
            union |= track.mask_at(frame_index)
    return union


def _span_iou(result: Result, truth: SceneTruth) -> float:
    predicted = [(k.start_seconds, k.end_seconds) for k in result.keyframes]
    true = [tuple(step * STEP_SECONDS for step in span) for _, span in truth.scene.answers]
    return float(coverage_iou(predicted, true)) if predicted and true else 0.0


def _keyframe_box_iou(result: Result, truth: SceneTruth, targets: Sequence[int]) -> float:
    values = []
    for keyframe in result.keyframes:
        boxes = [truth.box(keyframe.frame_index, i) for i in targets]
        true = [box for box in boxes if box is not None]
        for item in keyframe.objects:
            values.append(float(box_iou([item.box_xyxy], true).max()) if true else 0.0)
    return float(np.mean(values)) if values else 0.0
