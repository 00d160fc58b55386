"""Scenes drawn from seeds: who is where, when, in what colour, what sounds, and what is asked.

A draw that does not fit its family is thrown away and drawn again, so that every query has just the answers
that are recorded.

Note [Draw order]
Models and their published numbers belong to these very scenes, so the order and the kind of every call to the
generator is part of the contract. A test holds digests of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from omni_sdk.demo.ask import ask
from omni_sdk.demo.objects import Scene, SceneObject, Tone
from omni_sdk.demo.world import (
    COLORS,
    FAMILIES,
    MAX_RADIUS,
    MIN_RADIUS,
    MIN_TRAVEL,
    PROBABILITIES,
    SECOND_TONE,
    SHAPES,
    STAGE,
    STEP_SECONDS,
    STEPS,
    STILL,
    STOPS,
    check_family,
)

__all__ = ["Scene", "SceneObject", "Tone", "draw_scene", "make_scene"]

_COLOR_NAMES = tuple(COLORS)
_MIN_VISIT = 5
"""Steps that an object is visible, at least."""
_MIN_MOVE, _MIN_REST = 3, 4
"""Steps that an object moves before it stops, and is seen standing after, at least."""
_MAX_DRIFT = 14.0
"""Units that a moving object goes up or down, at most."""
_CLEARANCE = 34.0
"""Distance in units from which two objects do not hide each other."""
_PATH_DRAWS = 6


@dataclass(slots=True)
class _Plan:
    """An object before its path is drawn."""

    color: str
    shape: str
    radius: int
    motion: str
    enter: int
    leave: int
    stop: int | None = None

    @property
    def moving(self) -> int:
        """Steps that it moves."""
        return (self.leave - 1 if self.stop is None else self.stop) - self.enter


def make_scene(seed: int, family: str | None = None) -> Scene:
    """Return the scene of a seed.

    Args:
        seed: any non-negative integer; Note [Seeds] in `omni_sdk.demo.world` says which are held out.
        family: one of `FAMILIES`; None draws it.

    Raises:
        ValueError: unknown family.
    """
    return draw_scene(np.random.default_rng(seed), family)


def draw_scene(rng: np.random.Generator, family: str | None = None) -> Scene:
    """Draw a scene; see `make_scene` and Note [Draw order].

    Raises:
        ValueError: unknown family.
    """
    if family is None:
        family = FAMILIES[rng.choice(len(FAMILIES), p=PROBABILITIES)]
    check_family(family)
    while True:
        scene = _attempt(rng, family)
        if scene is not None:
            return scene


def _attempt(rng: np.random.Generator, family: str) -> Scene | None:
    plans = _draw_plans(rng, family)
    if plans is None:
        return None
    drawn = _draw_paths(rng, plans)
    objects = _cross(rng, plans, drawn) if family == "occluded" else drawn
    tones = None if objects is None else _draw_tones(rng, family, objects)
    if objects is None or tones is None:
        return None
    scene = Scene(
        family=family,
        objects=objects,
        tone=tones[0],
        query="",
        target=None,
        span=None,
        background=float(rng.uniform(15, 45)),
        noise_seed=int(rng.integers(1 << 30)),
        second_tone=tones[1],
    )
    return ask(rng, scene)


def _draw_plans(rng: np.random.Generator, family: str) -> list[_Plan] | None:
    """Draw who takes part, which way they move and when they are there."""
    count = 3 if family in ("two", "while") else int(rng.integers(2, 4))
    colors = [_COLOR_NAMES[i] for i in rng.permutation(len(_COLOR_NAMES))[:count]]
    shapes = [SHAPES[i] for i in rng.permutation(len(SHAPES))[:count]]
    if family == "occluded":  # only a circle hides every other shape
        shapes = [*[s for s in shapes if s != "circle"][: count - 1], "circle"]
    motions = _draw_motions(rng, family, count)
    enter, leave = _draw_visits(rng, count, family)
    plans = [
        _Plan(
            colors[i],
            shapes[i],
            int(rng.integers(MIN_RADIUS, MAX_RADIUS + 1)),
            motions[i],
            enter[i],
            leave[i],
        )
        for i in range(count)
    ]
    can_stop = [
        p for p in plans if p.motion != "still" and p.leave - p.enter >= _MIN_MOVE + _MIN_REST
    ]
    wanted = family in ("stops", "while") or rng.random() < STOPS
    if wanted and can_stop:
        who = can_stop[int(rng.integers(len(can_stop)))]
        who.stop = int(rng.integers(who.enter + _MIN_MOVE, who.leave - _MIN_REST + 1))
    elif family in ("stops", "while"):
        return None
    return plans


def _draw_motions(rng: np.random.Generator, family: str, count: int) -> list[str]:
    sides = ("left", "right") if rng.random() < 0.5 else ("right", "left")
    order = [int(i) for i in rng.permutation(count)]
    if family == "while":  # one mover, which will stop
        chosen = ["still"] * count
        chosen[order[0]] = sides[0]
        return chosen
    chosen = ["still" if rng.random() < STILL else str(rng.choice(sides)) for _ in order]
    if family == "moves":  # exactly one goes its own way
        chosen = [sides[1] if m == sides[0] else m for m in chosen]
        chosen[order[0]] = sides[0]
    if family == "two":  # exactly two go the same way
        chosen = [sides[0]] * count
        chosen[order[0]] = "still" if rng.random() < 0.5 else sides[1]
    return chosen


def _draw_visits(rng: np.random.Generator, count: int, family: str) -> tuple[list[int], list[int]]:
    """Return the steps at which objects enter and leave: one is always the last to enter."""
    enter, leave = [0] * count, [STEPS] * count
    late = int(rng.integers(count))
    enter[late] = int(rng.integers(3, STEPS - _MIN_VISIT + 1))
    for i in range(count):
        if i != late and rng.random() < 0.3:
            enter[i] = int(rng.integers(1, enter[late]))
    if family == "leaves" or rng.random() < 0.5:
        first = int(rng.integers(count))
        if enter[first] + _MIN_VISIT < STEPS:
            leave[first] = int(rng.integers(enter[first] + _MIN_VISIT, STEPS))
        for i in range(count):
            earliest = max(enter[i] + _MIN_VISIT, leave[first] + 1)
            if i != first and rng.random() < 0.3 and earliest < STEPS:
                leave[i] = int(rng.integers(earliest, STEPS))
    return enter, leave


def _draw_paths(rng: np.random.Generator, plans: list[_Plan]) -> tuple[SceneObject, ...]:
    """Of several draws return the one in which the objects hide each other least."""
    best: tuple[SceneObject, ...] = ()
    least = np.inf
    for _ in range(_PATH_DRAWS):
        objects = tuple(_draw_path(rng, plan) for plan in plans)
        crowding = _crowding(objects)
        if crowding < least:
            best, least = objects, crowding
    return best


def _draw_path(rng: np.random.Generator, plan: _Plan) -> SceneObject:
    """Draw a straight path that keeps the whole object on the stage as long as it is visible."""
    low, high = float(plan.radius), float(STAGE - plan.radius)
    y = float(rng.uniform(low, high))
    if plan.motion == "still":
        return _object(plan, (float(rng.uniform(low, high)), y), (0.0, 0.0))
    travel = float(rng.uniform(MIN_TRAVEL, high - low))
    start = float(rng.uniform(low, high - travel))
    end_y = float(np.clip(y + rng.uniform(-_MAX_DRIFT, _MAX_DRIFT), low, high))
    first, last = (start, start + travel) if plan.motion == "right" else (start + travel, start)
    return _object(plan, (first, y), ((last - first) / plan.moving, (end_y - y) / plan.moving))


def _object(plan: _Plan, at: tuple[float, float], motion: tuple[float, float]) -> SceneObject:
    """Return an object that enters at a place and moves by `motion` units per step."""
    return SceneObject(
        color=plan.color,
        shape=plan.shape,
        radius=plan.radius,
        start_xy=(at[0] - motion[0] * plan.enter, at[1] - motion[1] * plan.enter),
        velocity_xy=(motion[0] / STEP_SECONDS, motion[1] / STEP_SECONDS),
        enter=plan.enter,
        leave=plan.leave,
        stop=plan.stop,
    )


def _positions(item: SceneObject) -> NDArray[np.float64]:
    """Return (STEPS, 2) centres in units."""
    steps = np.minimum(np.arange(STEPS), STEPS if item.stop is None else item.stop)[:, None]
    way: NDArray[np.float64] = steps * STEP_SECONDS * np.array(item.velocity_xy)
    return np.array(item.start_xy) + way


def _crowding(objects: tuple[SceneObject, ...]) -> float:
    """Sum over steps and pairs of how much two visible objects are closer than `_CLEARANCE`."""
    total = 0.0
    places = [_positions(item) for item in objects]
    for i, one in enumerate(objects):
        for j, other in enumerate(objects[:i]):
            both = slice(max(one.enter, other.enter), min(one.leave, other.leave))
            distance = np.hypot(*(places[i][both] - places[j][both]).T)
            total += float(np.maximum(_CLEARANCE - distance, 0).sum())
    return total


def _cross(
    rng: np.random.Generator, plans: list[_Plan], objects: tuple[SceneObject, ...]
) -> tuple[SceneObject, ...] | None:
    """Let the last object, a circle in front, hide the first in the middle of the first one's visit."""
    target, plan = objects[0], plans[-1]
    middle = (target.enter + target.leave) / 2
    if not plan.enter <= middle < plan.leave or target.direction == plan.motion:
        return None
    plan.radius = MAX_RADIUS
    item = _draw_path(rng, plan)
    place = target.centre(middle * STEP_SECONDS)
    x, y = item.centre(middle * STEP_SECONDS)
    wobble = rng.uniform(-3, 3, 2)
    start_x = item.start_xy[0] + place[0] - x + float(wobble[0])
    start_y = item.start_xy[1] + place[1] - y + float(wobble[1])
    item = replace(item, start_xy=(start_x, start_y))
    seen = _positions(item)[item.enter : item.leave]
    if seen.min() < item.radius or seen.max() > STAGE - item.radius:
        return None
    return (*objects[:-1], item)


def _draw_tones(
    rng: np.random.Generator, family: str, objects: tuple[SceneObject, ...]
) -> tuple[Tone | None, Tone | None] | None:
    """Draw up to two tones that do not touch; None where there is no room for a second one."""
    sources = [int(i) for i in rng.permutation(len(objects))]
    first = _draw_tone(rng, sources[0], objects[sources[0]])
    if family == "sound":
        return first, None
    forced = family in ("distractor", "while")
    if not forced and rng.random() < 0.2:
        return None, None
    if not forced and rng.random() >= SECOND_TONE:
        return first, None
    if family == "distractor" or (family != "while" and rng.random() < 0.5):
        absent = [s for s in SHAPES if s not in {o.shape for o in objects}]
        start = int(rng.integers(0, STEPS - 2))
        end = min(STEPS, start + int(rng.integers(3, 7)))
        second = Tone(None, start, end, absent[int(rng.integers(len(absent)))])
    else:
        second = _draw_tone(rng, sources[1], objects[sources[1]])
    if max(first.start, second.start) <= min(first.end, second.end):
        return None
    return first, second


def _draw_tone(rng: np.random.Generator, source: int, who: SceneObject) -> Tone:
    """Draw a tone within its source's visit."""
    start = int(rng.integers(who.enter, who.leave - 2))
    return Tone(source, start, min(who.leave, start + int(rng.integers(3, 7))))
