"""What an answer is worth, against the truth of its scene."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
from omni_sdk.demo import facts, texts
from omni_sdk.demo.render import box, object_map
from omni_sdk.demo.scene import Scene
from omni_sdk.demo.world import COLORS, DURATION_SECONDS, SHAPES, STEP_SECONDS, STEPS
from omni_sdk.errors import ModelOutputError
from omni_sdk.grs.parser import parse_answer
from omni_sdk.metrics.boxes import box_iou
from omni_sdk.metrics.spans import coverage_iou
from omni_sdk.stages import Segment

from omni_training.nano.thinker.rows import MIN_VISIBLE

SIZE = (384, 384)
"""(height, width) of the clips; boxes are compared at this size."""
_ENTRY = re.compile(rf" ({'|'.join(COLORS)}) ({'|'.join(SHAPES)}) (left|right|still) ")


def read_answer(text: str) -> tuple[str, tuple[Segment, ...] | None]:
    """Return thinking and segments; None where the text cannot be read."""
    try:
        parsed = parse_answer(text, DURATION_SECONDS)
    except ModelOutputError:
        return "", None
    return parsed.thinking, parsed.segments


def middle_step(segment: Segment) -> int:
    """Return the step in the middle of a segment."""
    return min(STEPS - 1, int((segment.start_seconds + segment.end_seconds) / 2 / STEP_SECONDS))


def score_answer(
    scene: Scene,
    thinking: str,
    found: tuple[Segment, ...] | None,
    boxes: dict[str, tuple[int, Any]],
) -> dict[str, float]:
    """Return the scores of an answer; `Evaluator.family` says what they are.

    Args:
        scene: the truth.
        thinking: what the model said before it answered.
        found: the answer; None: it could not be read.
        boxes: by description, the step that was grounded and the (4,) box in pixels of `SIZE`, or None.
    """
    scores = {"format": float(found is not None)}
    segments = {s.description: s for s in found or ()}
    true = {texts.describe(scene.objects[i].name): (i, span) for i, span in scene.answers}
    scores["exact"] = float(found is not None and set(segments) == set(true))
    scores["absent"] = float(found == ())
    seen = _ENTRY.findall(thinking.split(" last ")[0])
    truth = [scene.objects[i] for i in facts.in_order(scene)]
    scores["listed"] = float([s[:2] for s in seen] == [(o.color, o.shape) for o in truth])
    scores["motion"] = float(seen == [(o.color, o.shape, o.direction) for o in truth])
    if not true:
        return scores
    spans, overlaps = [], []
    for description, (index, span) in true.items():
        segment = segments.get(description)
        if segment is None:
            spans.append(0.0)
            overlaps.append(0.0)
            continue
        times = [(segment.start_seconds, segment.end_seconds)]
        spans.append(coverage_iou(times, [(span[0] * STEP_SECONDS, span[1] * STEP_SECONDS)]))
        step, predicted = boxes[description]
        real = box(scene, step * STEP_SECONDS, SIZE, index)
        if predicted is None or real is None:
            overlaps.append(0.0)
        else:
            overlaps.append(float(box_iou([predicted], [real])[0, 0]))
    return scores | {"span_iou": float(np.mean(spans)), "box_iou": float(np.mean(overlaps))}


def draw_descriptions(scene: Scene, step: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Return one description of each kind that a frame allows: present, half and absent."""
    seen = object_map(scene, step * STEP_SECONDS, SIZE)
    kinds: list[tuple[str, str]] = []
    areas = np.bincount(seen.ravel(), minlength=len(scene.objects) + 1)[1:]
    full = [_own_area(scene, step, i) for i in range(len(scene.objects))]
    clear = [i for i in range(len(areas)) if areas[i] and areas[i] >= MIN_VISIBLE * full[i]]
    visible = [scene.objects[i] for i in range(len(areas)) if areas[i]]
    if clear:
        chosen = scene.objects[clear[int(rng.integers(len(clear)))]]
        kinds.append(("present", chosen.name))
    names = [f"{c} {s}" for c in COLORS for s in SHAPES]
    taken = {o.name for o in visible}
    colors, shapes = {o.color for o in visible}, {o.shape for o in visible}
    half = [
        n for n in names
        if n not in taken and (n.split()[0] in colors or n.split()[1] in shapes)
    ]  # fmt: skip
    none = [n for n in names if n.split()[0] not in colors and n.split()[1] not in shapes]
    for kind, choice in (("half", half), ("absent", none)):
        if choice:
            kinds.append((kind, choice[int(rng.integers(len(choice)))]))
    return kinds


def _own_area(scene: Scene, step: int, index: int) -> int:
    """Return the pixels that an object would show with nothing in front of it."""
    item = scene.objects[index]
    if not item.visible(step * STEP_SECONDS):
        return 1
    lone = dataclasses.replace(scene, objects=(item,), target=None, span=None, second_answer=None)
    return int((object_map(lone, step * STEP_SECONDS, SIZE) > 0).sum())


def score_box(
    scene: Scene,
    step: int,
    kind: str,
    name: str,
    boxes: list[Any],
    side: int,
    values: dict[str, list[float]],
) -> None:
    """Add the scores of the grounder's boxes; `Evaluator.ground` says what they are.

    Args:
        scene: shown.
        step: of the event grid at which it was shown.
        kind: "present", "half" or "absent".
        name: of the object that was asked for.
        boxes: (4,) boxes in pixels of a picture of `side` pixels.
        side: see `boxes`.
        values: get the scores, by measure.
    """
    if kind != "present":
        values["absent_half" if kind == "half" else "absent"].append(float(not boxes))
        return
    truth = {
        item.name: b
        for i, item in enumerate(scene.objects)
        if (b := box(scene, step * STEP_SECONDS, SIZE, i)) is not None
    }
    values["found"].append(float(bool(boxes)))
    if not boxes:
        values["box_iou"].append(0.0)
        return
    predicted = boxes[0] * (SIZE[0] / side)
    overlaps = {n: float(box_iou([predicted], [b])[0, 0]) for n, b in truth.items()}
    values["box_iou"].append(overlaps[name])
    if len(truth) > 1:
        values["picked"].append(float(max(overlaps, key=lambda n: overlaps[n]) == name))
