"""Queries about scenes, each with all its true answers."""

from __future__ import annotations

import dataclasses

import numpy as np

from omni_sdk.demo import facts
from omni_sdk.demo.objects import Scene
from omni_sdk.demo.world import COLORS, SHAPES

_COLOR_NAMES = tuple(COLORS)


def ask(rng: np.random.Generator, scene: Scene) -> Scene | None:
    """Return the scene with a query of its family and the true answers; None where none fits.

    Args:
        rng: source of all that is random.
        scene: without a query.
    """
    query = _draw_query(rng, scene)
    if query is None:
        return None
    found = facts.answers(scene, facts.deciding_word(query))
    wanted = {"null": 0, "two": 2}.get(scene.family, 1)
    if len(found) != wanted or (scene.family == "while" and not _is_clear(scene)):
        return None
    first = found[0] if found else (None, None)
    return dataclasses.replace(
        scene,
        query=query,
        target=first[0],
        span=first[1],
        second_answer=found[1] if len(found) == 2 else None,
    )


def _draw_query(rng: np.random.Generator, scene: Scene) -> str | None:
    family, objects = scene.family, scene.objects
    side = "left" if rng.random() < 0.5 else "right"
    if family in ("direct", "occluded"):
        who = objects[0 if family == "occluded" else int(rng.integers(len(objects)))]
        return f"the {who.color} shape" if rng.random() < 0.5 else f"the {who.shape}"
    if family == "moves":
        return f"the shape that moves {side}"
    if family == "two":
        sounding = facts.matches(scene, "heard")
        if len(sounding) == 2 and rng.random() < 0.7:
            return "the shapes that make the sounds"
        return f"the shapes that move {side}"
    if family == "null":
        return _draw_null_query(rng, scene, side)
    return {
        "last": "the shape that enters last",
        "leaves": "the shape that leaves first",
        "stops": "the shape that stops",
        "while": "the shape that sounds while another moves",
    }.get(family, "the shape that makes the sound")


def _draw_null_query(rng: np.random.Generator, scene: Scene, side: str) -> str:
    kind = int(rng.integers(7))
    if kind < 2:
        colors = [c for c in _COLOR_NAMES if c not in {o.color for o in scene.objects}]
        return f"the {colors[int(rng.integers(len(colors)))]} shape"
    if kind < 4:
        shapes = [s for s in SHAPES if s not in {o.shape for o in scene.objects}]
        return f"the {shapes[int(rng.integers(len(shapes)))]}"
    return (
        "the shape that makes the sound",
        "the shape that stops",
        f"the shape that moves {side}",
    )[kind - 4]


def _is_clear(scene: Scene) -> bool:
    """Whether two objects sound, one of them plainly while another moves and one plainly not."""
    if len(facts.matches(scene, "heard")) != 2:
        return False
    return all(facts.motion_overlap(scene, tone) in (0, 2, 3, 4, 5, 6) for tone in scene.tones)
