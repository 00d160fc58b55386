"""Scenes by the rules `SHIPPED`.

Note [Draw order]
The shipped model and its published numbers belong to these very scenes, so the order and the kind of every
call to the generator is part of the contract: a draw that looks superfluous must stay. The tests hold
digests of 1,400 scenes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omni_sdk.demo.objects import Scene, SceneObject, Tone
from omni_sdk.demo.world import (
    COLORS,
    MAX_RADIUS,
    MIN_RADIUS,
    SHAPES,
    STAGE,
    STEP_SECONDS,
    STEPS,
)

_COLOR_NAMES = tuple(COLORS)
_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


def draw(rng: np.random.Generator, family: str) -> Scene:
    """Draw a scene of a family; see Note [Draw order]."""
    while True:
        scene = _attempt(rng, family)
        if scene is not None:
            return scene


def _attempt(rng: np.random.Generator, family: str) -> Scene | None:
    """Draw a scene, or None where the draw has no first object to leave and the query needs one."""
    count = int(rng.integers(2, 4))
    colors = [_COLOR_NAMES[i] for i in rng.permutation(len(_COLOR_NAMES))[:count]]
    shapes = [SHAPES[i] for i in rng.permutation(len(SHAPES))[:count]]
    radii = rng.integers(MIN_RADIUS, MAX_RADIUS + 1, count)
    signs = np.where(rng.random(count) < 0.5, -1, 1)
    if family == "moves":  # exactly one object moves its own way
        signs[:] = signs[0]
        signs[rng.integers(count)] *= -1
    starts, steps = _draw_motion(rng, radii, signs)
    enter, leave = _draw_visits(rng, count, family)
    objects = tuple(
        SceneObject(
            color=colors[i],
            shape=shapes[i],
            radius=int(radii[i]),
            start_xy=(float(starts[0, i]), float(starts[1, i])),
            velocity_xy=(float(steps[0, i] / STEP_SECONDS), float(steps[1, i] / STEP_SECONDS)),
            enter=enter[i],
            leave=leave[i],
        )
        for i in range(count)
    )
    tone, silent = _draw_tone(rng, objects)
    question = _draw_question(rng, family, objects, tone, silent)
    if question is None:
        return None
    query, target, tone_heard = question
    span = None
    if target is not None:
        spoken = tone if family == "sound" else None
        who = objects[target]
        span = (spoken.start, spoken.end) if spoken else (who.enter, who.leave)
    return Scene(
        family=family,
        objects=objects,
        tone=tone_heard,
        query=query,
        target=target,
        span=span,
        background=float(rng.uniform(15, 45)),
        noise_seed=int(rng.integers(1 << 30)),
    )


def _draw_motion(rng: np.random.Generator, radii: _Ints, signs: _Ints) -> tuple[_Floats, _Floats]:
    """Return (2, N) start positions in units and (2, N) motions in units per step.

    Every object stays whole on the stage up to the last step of the grid. Of three draws of the start
    positions the one with the greatest mean distance between the closest pair is kept.
    """
    count = len(radii)
    motion = np.stack([signs * rng.uniform(1.0, 2.4, count), rng.uniform(-1, 1, count)])
    travel = (STEPS - 1) * motion
    times = np.arange(STEPS)[:, None]
    best, best_distance = motion, -np.inf
    for _ in range(3):
        room = rng.random((2, count))
        start = np.where(
            motion > 0,
            radii + room * (STAGE - 2 * radii - travel),
            radii - travel + room * (STAGE - 2 * radii + travel),
        )
        x, y = start[0] + motion[0] * times, start[1] + motion[1] * times
        distance = min(
            np.hypot(x[:, i] - x[:, j], y[:, i] - y[:, j]).mean()
            for i in range(count)
            for j in range(i)
        )
        if distance > best_distance:
            best, best_distance = start, distance
    return best, motion


def _draw_visits(rng: np.random.Generator, count: int, family: str) -> tuple[list[int], list[int]]:
    """Return the steps at which objects enter and leave: one is always the last to enter."""
    enter, leave = [0] * count, [STEPS] * count
    late = int(rng.integers(count))
    enter[late] = int(rng.integers(3, 12))
    for i in range(count):
        if i != late and rng.random() < 0.3:
            enter[i] = int(rng.integers(1, enter[late]))
    if family == "leaves" or rng.random() < 0.5:
        first = int(rng.integers(count))
        if enter[first] + 4 < STEPS:
            leave[first] = int(rng.integers(enter[first] + 4, STEPS))
        for i in range(count):
            if i == first or rng.random() >= 0.3:
                continue
            earliest = max(enter[i] + 4, leave[first] + 1)
            if earliest < STEPS:
                leave[i] = int(rng.integers(earliest, STEPS))
    return enter, leave


def _draw_tone(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> tuple[Tone, bool]:
    """Return a tone within its source's visit, and whether the scene is silent unless it asks for it."""
    source = int(rng.integers(len(objects)))
    silent = bool(rng.random() < 0.2)
    who = objects[source]
    start = int(rng.integers(who.enter, who.leave - 2))
    end = min(who.leave, start + int(rng.integers(3, 7)))
    return Tone(source, start, end), silent


def _draw_question(
    rng: np.random.Generator,
    family: str,
    objects: tuple[SceneObject, ...],
    tone: Tone,
    silent: bool,
) -> tuple[str, int | None, Tone | None] | None:
    """Return (query, target, tone that is heard), or None if the scene does not fit the family."""
    heard = None if silent else tone
    count = len(objects)
    if family == "direct":
        target = int(rng.integers(count))
        by_color = rng.random() < 0.5
        return _name_query(objects[target], by_color=by_color), target, heard
    if family == "last":
        late = max(range(count), key=lambda i: objects[i].enter)
        return "the shape that enters last", late, heard
    if family == "leaves":
        leaves = [o.leave for o in objects]
        if min(leaves) == STEPS or leaves.count(min(leaves)) > 1:
            return None
        return "the shape that leaves first", leaves.index(min(leaves)), heard
    if family == "moves":
        return (*_draw_direction(rng, objects), heard)
    if family == "sound":
        return "the shape that makes the sound", tone.source, tone
    kind = int(rng.integers(3))
    if kind == 2:
        return "the shape that makes the sound", None, None
    if kind == 0:
        present = {o.color for o in objects}
        absent = [i for i, name in enumerate(_COLOR_NAMES) if name not in present]
        return f"the {_COLOR_NAMES[rng.choice(absent)]} shape", None, heard
    present = {o.shape for o in objects}
    absent = [i for i, name in enumerate(SHAPES) if name not in present]
    return f"the {SHAPES[rng.choice(absent)]}", None, heard


def _draw_direction(rng: np.random.Generator, objects: tuple[SceneObject, ...]) -> tuple[str, int]:
    """Return a query after the only object that moves one way, and that object."""
    rng.random()  # its outcome is always replaced below; Note [Draw order]
    directions = [o.direction for o in objects]
    if len(objects) == 2:
        wanted = directions[int(rng.integers(2))]
    else:
        wanted = "right" if directions.count("right") == 1 else "left"
    return f"the shape that moves {wanted}", directions.index(wanted)


def _name_query(who: SceneObject, *, by_color: bool) -> str:
    return f"the {who.color} shape" if by_color else f"the {who.shape}"
