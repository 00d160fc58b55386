"""What is said about a scene, in the grammar that the models are trained on.

The reasoner thinks in three parts: a listing (the tones, then every object in the order of `COLORS` with its
motion, its visit and where it stops), a digest (every match of each of `DIGEST`, whatever is asked) and a
look-up of the query's deciding word, which may end on two entries. The answer copies the entries on which
the look-up ends; "none" gives an empty answer.
"""

from __future__ import annotations

from omni_sdk.demo import facts
from omni_sdk.demo.facts import deciding_word
from omni_sdk.demo.objects import Scene, SceneObject
from omni_sdk.demo.world import DIGEST, STEP_SECONDS
from omni_sdk.utils.text import format_time

__all__ = [
    "deciding_word", "describe", "digest", "format_time", "grounder_answer", "grounder_query",
    "grs_answer", "json_answer", "listing", "lookup", "target_description", "thinking",
]  # fmt: skip


def describe(name: str) -> str:
    """Return the description of an object by its name: "red circle" -> "a red circle"."""
    return f"a {name}"


def target_description(scene: Scene) -> str | None:
    """Return the description of the true answer, or None where nothing answers the query."""
    return None if scene.target is None else describe(scene.objects[scene.target].name)


def listing(scene: Scene) -> str:
    """Return what there is: the tones, then each object with its direction, visit and stop."""
    text = "" if scene.tones else " silent"
    for tone in scene.tones:
        text += f" sound {scene.tone_shape(tone)} {_steps(tone.start, tone.end)}"
    for index in facts.in_order(scene):
        text += _entry(scene.objects[index])
    return text


def digest(scene: Scene) -> str:
    """Return the colours that answer the questions of `DIGEST`, whatever is asked."""
    text = ""
    for word in DIGEST:
        colors = [scene.objects[i].color for i in facts.matches(scene, word)] or ["none"]
        text += f" {word} {' '.join(colors)}"
    return text


def lookup(scene: Scene, word: str) -> str:
    """Return the look-up of a deciding word: " target WORD" and every match, " target WORD none" without."""
    names = [scene.objects[i].name for i in facts.matches(scene, word)] or ["none"]
    return f" target {word} {' '.join(names)}"


def thinking(scene: Scene) -> str:
    """Return the true reasoning of a scene: listing, digest and look-up."""
    return listing(scene) + digest(scene) + lookup(scene, deciding_word(scene.query))


def json_answer(scene: Scene) -> str:
    """Return the true answer, a JSON list of spans and descriptions."""
    items = [
        f'{{"start_time":"{format_time(start * STEP_SECONDS)}",'
        f'"end_time":"{format_time(end * STEP_SECONDS)}",'
        f'"description":"{describe(scene.objects[index].name)}"}}'
        for index, (start, end) in scene.answers
    ]
    return f"[{','.join(items)}]"


def grs_answer(scene: Scene) -> str:
    """Return the reasoner's true completion, `<think>..</think><answer>[..]</answer>`."""
    return f"<think>{thinking(scene)}</think><answer>{json_answer(scene)}</answer>"


def grounder_query(description: str) -> str:
    """Return the grounder's prompt for a description such as "a red circle"."""
    return f"Given the expression: '{description}', ground all the referred objects with json bboxs"


def grounder_answer(description: str, box_xyxy: tuple[int, int, int, int] | None) -> str:
    """Return the grounder's true completion: one box in pixels of its image, or "[]" if absent."""
    if box_xyxy is None:
        return "[]"
    box = ",".join(str(v) for v in box_xyxy)
    return f'[{{"bbox_2d":[{box}],"label":"{description}"}}]'


def _entry(item: SceneObject) -> str:
    stop = "" if item.stop is None else f" stops {format_time(item.stop * STEP_SECONDS)}"
    return f" {item.name} {item.direction} {_steps(item.enter, item.leave)}{stop}"


def _steps(start: int, end: int) -> str:
    return f"{format_time(start * STEP_SECONDS)} {format_time(end * STEP_SECONDS)}"
