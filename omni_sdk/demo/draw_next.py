"""Scenes by the rules `NEXT`: motion that can be seen, stops, second tones, two answers, occlusion.

A draw that does not fit its family is thrown away and drawn again, so that every query has the one answer
that is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni_sdk.demo import facts
from omni_sdk.demo.objects import Scene, SceneObject, Tone
from omni_sdk.demo.world import (
    COLORS,
    MAX_RADIUS,
    MIN_RADIUS,
    SHAPES,
    STAGE,
    STEP_SECONDS,
    STEPS,
    Rules,
)

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


def draw(rng: np.random.Generator, family: str, rules: Rules) -> Scene:
    """Draw a scene of a family.

    Args:
        rng: source of all that is random.
        family: one of `rules.families`.
        rules: `NEXT` or a variation of it.
    """
    while True:
        scene = _attempt(rng, family, rules)
        if scene is not None:
            return scene


def _attempt(rng: np.random.Generator, family: str, rules: Rules) -> Scene | None:
    plans = _draw_plans(rng, family, rules)
    if plans is None:
        return None
    objects = _draw_paths(rng, plans, rules)
    if family == "occluded":
        crossed = _cross(rng, plans, objects, rules)
        if crossed is None:
            return None
        objects = crossed
    tones = _draw_tones(rng, family, objects, rules)
    if tones is None:
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
        rules=rules,
    )
    return _ask(rng, scene)


def _draw_plans(rng: np.random.Generator, family: str, rules: Rules) -> list[_Plan] | None:
    """Draw who takes part, which way they move and when they are there."""
    count = 3 if family in ("two", "while") else int(rng.integers(2, 4))
    colors = [_COLOR_NAMES[i] for i in rng.permutation(len(_COLOR_NAMES))[:count]]
    shapes = [SHAPES[i] for i in rng.permutation(len(SHAPES))[:count]]
    if family == "occluded":  # only a circle hides every other shape
        shapes = [*[s for s in shapes if s != "circle"][: count - 1], "circle"]
    motions = _draw_motions(rng, family, count, rules)
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
    wanted = family in ("stops", "while") or rng.random() < rules.stops
    if wanted and can_stop:
        who = can_stop[int(rng.integers(len(can_stop)))]
        who.stop = int(rng.integers(who.enter + _MIN_MOVE, who.leave - _MIN_REST + 1))
    elif family in ("stops", "while"):
        return None
    return plans


def _draw_motions(rng: np.random.Generator, family: str, count: int, rules: Rules) -> list[str]:
    sides = ("left", "right") if rng.random() < 0.5 else ("right", "left")
    order = [int(i) for i in rng.permutation(count)]
    if family == "while":  # one mover, which will stop
        chosen = ["still"] * count
        chosen[order[0]] = sides[0]
        return chosen
    chosen = ["still" if rng.random() < rules.still else str(rng.choice(sides)) for _ in order]
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


def _draw_paths(
    rng: np.random.Generator, plans: list[_Plan], rules: Rules
) -> tuple[SceneObject, ...]:
    """Of several draws return the one in which the objects hide each other least."""
    best: tuple[SceneObject, ...] = ()
    least = np.inf
    for _ in range(_PATH_DRAWS):
        objects = tuple(_draw_path(rng, plan, rules) for plan in plans)
        crowding = _crowding(objects)
        if crowding < least:
            best, least = objects, crowding
    return best


def _draw_path(rng: np.random.Generator, plan: _Plan, rules: Rules) -> SceneObject:
    """Draw a straight path that keeps the whole object on the stage as long as it is visible."""
    low, high = float(plan.radius), float(STAGE - plan.radius)
    y = float(rng.uniform(low, high))
    if plan.motion == "still":
        return _object(plan, (float(rng.uniform(low, high)), y), (0.0, 0.0))
    travel = float(rng.uniform(rules.min_travel, high - low))
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
    steps = np.minimum(np.arange(STEPS), STEPS if item.stop is None else item.stop)
    places: NDArray[np.float64] = np.array(item.start_xy) + steps[
        :, None
    ] * STEP_SECONDS * np.array(item.velocity_xy)
    return places


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
    rng: np.random.Generator, plans: list[_Plan], objects: tuple[SceneObject, ...], rules: Rules
) -> tuple[SceneObject, ...] | None:
    """Let the last object, a circle in front, hide the first in the middle of the first one's visit."""
    target, plan = objects[0], plans[-1]
    middle = (target.enter + target.leave) / 2
    if not plan.enter <= middle < plan.leave or target.direction == plan.motion:
        return None
    plan.radius = MAX_RADIUS
    item = _draw_path(rng, plan, rules)
    place = target.centre(middle * STEP_SECONDS)
    x, y = item.centre(middle * STEP_SECONDS)
    wobble = rng.uniform(-3, 3, 2)
    moved = (
        item.start_xy[0] + place[0] - x + float(wobble[0]),
        item.start_xy[1] + place[1] - y + float(wobble[1]),
    )
    item = SceneObject(
        item.color,
        item.shape,
        item.radius,
        moved,
        item.velocity_xy,
        item.enter,
        item.leave,
        item.stop,
    )
    seen = _positions(item)[item.enter : item.leave]
    if seen.min() < item.radius or seen.max() > STAGE - item.radius:
        return None
    return (*objects[:-1], item)


def _draw_tones(
    rng: np.random.Generator, family: str, objects: tuple[SceneObject, ...], rules: Rules
) -> tuple[Tone | None, Tone | None] | None:
    """Draw up to two tones that do not touch; None where there is no room for a second one."""
    sources = [int(i) for i in rng.permutation(len(objects))]
    first = _draw_tone(rng, sources[0], objects[sources[0]])
    if family == "sound":
        return first, None
    forced = family in ("distractor", "while")
    if not forced and rng.random() < 0.2:
        return None, None
    if not forced and rng.random() >= rules.second_tone:
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


def _ask(rng: np.random.Generator, scene: Scene) -> Scene | None:
    """Return the scene with a query of its family and the true answers; None where none fits."""
    query = _draw_query(rng, scene)
    if query is None:
        return None
    found = facts.answers(scene, facts.deciding_word(query, scene.rules))
    wanted = {"null": 0, "two": 2}.get(scene.family, 1)
    if len(found) != wanted or (scene.family == "while" and not _is_clear(scene)):
        return None
    first = found[0] if found else (None, None)
    return Scene(
        family=scene.family,
        objects=scene.objects,
        tone=scene.tone,
        query=query,
        target=first[0],
        span=first[1],
        background=scene.background,
        noise_seed=scene.noise_seed,
        second_tone=scene.second_tone,
        second_answer=found[1] if len(found) == 2 else None,
        rules=scene.rules,
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
