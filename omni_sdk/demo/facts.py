"""What is true of a scene: which objects answer a deciding word, and when.

Deciding words are colours, shapes, "left", "right", "last" (enters last), "first" (leaves first, alone),
"stops", "heard" (makes a sound) and "while" (makes a sound while another object moves).
"""

from __future__ import annotations

from omni_sdk.demo.objects import Scene, Tone
from omni_sdk.demo.world import COLORS, SHAPES, STEPS

_COLOR_NAMES = tuple(COLORS)
_SPOKEN = {"sound": "heard", "sounds": "heard", "moves": "while"}
"""Last words of queries whose deciding word is another one."""


def deciding_word(query: str) -> str:
    """Return the word of a query that decides; see the module's docstring."""
    words = query.split()
    word = words[1] if words[-1] == "shape" else words[-1]
    return _SPOKEN.get(word, word)


def in_order(scene: Scene) -> list[int]:
    """Return the indices of the objects in the order of `COLORS`."""
    return sorted(
        range(len(scene.objects)), key=lambda i: _COLOR_NAMES.index(scene.objects[i].color)
    )


def matches(scene: Scene, word: str) -> tuple[int, ...]:
    """Return every object that a deciding word picks, in the order of `COLORS`.

    Raises:
        ValueError: not a deciding word.
    """
    objects = scene.objects
    if word == "last":
        return (scene.last_to_enter,)
    if word == "first":
        first = scene.first_to_leave
        return () if first is None else (first,)
    if word in ("heard", "while"):
        sources = {
            tone.source
            for tone in scene.tones
            if tone.source is not None and (word == "heard" or motion_overlap(scene, tone) > 0)
        }
        return tuple(i for i in in_order(scene) if i in sources)
    if word == "stops":
        return tuple(i for i in in_order(scene) if objects[i].stop is not None)
    if word in COLORS:
        return tuple(i for i in in_order(scene) if objects[i].color == word)
    if word in SHAPES:
        return tuple(i for i in in_order(scene) if objects[i].shape == word)
    if word in ("left", "right"):
        return tuple(i for i in in_order(scene) if objects[i].direction == word)
    raise ValueError(f"{word!r} decides nothing")


def answers(scene: Scene, word: str) -> list[tuple[int, tuple[int, int]]]:
    """Return (index, steps [start, end)) of every match: its visit, or its tone if that is asked for."""
    found = []
    for index in matches(scene, word):
        span = (scene.objects[index].enter, scene.objects[index].leave)
        if word in ("heard", "while"):
            span = next((t.start, t.end) for t in scene.tones if t.source == index)
        found.append((index, span))
    return found


def motion_overlap(scene: Scene, tone: Tone) -> int:
    """Return the steps of a tone during which an object other than its source is seen to move, at most."""
    steps = 0
    for index, item in enumerate(scene.objects):
        if index != tone.source:
            start, end = item.moving
            steps = max(steps, min(end, tone.end, STEPS) - max(start, tone.start))
    return steps
