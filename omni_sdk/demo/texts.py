"""What is said about a scene, in the grammar that the shipped model was trained on.

The reasoner thinks in three parts: a listing (the sound, then every object in the order of `COLORS`), a
digest (who enters last, who leaves first) and a look-up of the query's deciding word. The answer copies the
entry on which the look-up ends; "none" gives an empty answer.
"""

from __future__ import annotations

from omni_sdk.demo.scene import Scene
from omni_sdk.demo.world import COLORS, SHAPES, STEP_SECONDS

_COLOR_NAMES = tuple(COLORS)


def format_time(seconds: float) -> str:
    """Return a time as "mm:ss.ff", hundredths of a second; a multiple of 0.5 s comes back exactly."""
    whole = int(seconds)
    return f"{whole // 60:02d}:{whole % 60:02d}.{round((seconds - whole) * 100):02d}"


def describe(name: str) -> str:
    """Return the description of an object by its name: "red circle" -> "a red circle"."""
    return f"a {name}"


def target_description(scene: Scene) -> str | None:
    """Return the description of the true answer, or None where nothing answers the query."""
    return None if scene.target is None else describe(scene.objects[scene.target].name)


def listing(scene: Scene) -> str:
    """Return what there is: the sound, then each object with its visit and direction."""
    text = " silent"
    if scene.tone is not None:
        shape = scene.objects[scene.tone.source].shape
        text = f" sound {shape} {_steps(scene.tone.start, scene.tone.end)}"
    for item in sorted(scene.objects, key=lambda o: _COLOR_NAMES.index(o.color)):
        text += f" {item.name} {_steps(item.enter, item.leave)} {item.direction}"
    return text


def digest(scene: Scene) -> str:
    """Return the colour of the last to enter and of the first to leave, whatever is asked."""
    first = scene.first_to_leave
    color = "none" if first is None else scene.objects[first].color
    return f" last {scene.objects[scene.last_to_enter].color} first {color}"


def deciding_word(query: str) -> str:
    """Return the word of a query that decides: a colour, shape, last, first, left, right or sound."""
    words = query.split()
    return words[1] if words[-1] == "shape" else words[-1]


def lookup(scene: Scene, word: str) -> str:
    """Return the look-up of a deciding word: " target WORD colour shape", or " target WORD none"."""
    found = _find(scene, word)
    if found is None:
        return f" target {word} none"
    item = scene.objects[found]
    via = f" {item.shape}" if word == "sound" else ""
    return f" target {word}{via} {item.name}"


def thinking(scene: Scene) -> str:
    """Return the true reasoning of a scene: listing, digest and look-up."""
    return listing(scene) + digest(scene) + lookup(scene, deciding_word(scene.query))


def grs_answer(scene: Scene) -> str:
    """Return the reasoner's true completion, `<think>..</think><answer>[..]</answer>`."""
    items = ""
    if scene.target is not None and scene.span_seconds is not None:
        start, end = map(format_time, scene.span_seconds)
        items = (
            f'{{"start_time":"{start}","end_time":"{end}",'
            f'"description":"{target_description(scene)}"}}'
        )
    return f"<think>{thinking(scene)}</think><answer>[{items}]</answer>"


def grounder_query(description: str) -> str:
    """Return the grounder's prompt for a description such as "a red circle"."""
    return f"Given the expression: '{description}', ground all the referred objects with json bboxs"


def grounder_answer(description: str, box_xyxy: tuple[int, int, int, int] | None) -> str:
    """Return the grounder's true completion: one box in pixels of its image, or "[]" if absent."""
    if box_xyxy is None:
        return "[]"
    box = ",".join(str(v) for v in box_xyxy)
    return f'[{{"bbox_2d":[{box}],"label":"{description}"}}]'


def _steps(start: int, end: int) -> str:
    return f"{format_time(start * STEP_SECONDS)} {format_time(end * STEP_SECONDS)}"


def _find(scene: Scene, word: str) -> int | None:
    """Index of the (first) object that a deciding word picks."""
    if word == "last":
        return scene.last_to_enter
    if word == "first":
        return scene.first_to_leave
    if word == "sound":
        return None if scene.tone is None else scene.tone.source
    if word in COLORS:
        matches = [o.color == word for o in scene.objects]
    elif word in SHAPES:
        matches = [o.shape == word for o in scene.objects]
    else:
        matches = [o.direction == word for o in scene.objects]
    return matches.index(True) if True in matches else None
