"""Constants of the world, its rules, and which seeds are held out.

The stage is a square of 96 units, lasting 8 s; events fall on a grid of 0.5 s. Lengths and positions are
in units, whatever the resolution at which a scene is shown.

Note [Rules]
What can happen and what can be asked is data: `Rules`. `SHIPPED` are those of the model in the default
bundle; `NEXT` those of its successor, with motion that can be seen at 48 pixels (whoever moves crosses about
half of the stage or more, others stand still), objects that stop, second tones, and queries with two answers.

Note [Seeds]
Clip `i` of family `f` is held out for evaluation at seed `5_000_000 + 100_000 * FAMILIES.index(f) + i`,
`0 <= i < 100_000`, so a family's clips do not depend on which other families are shown. Everything from
5,000,000 to 6,099,999 is kept from training. The shipped model was evaluated on `i < 300`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (235, 40, 40),
    "green": (40, 200, 60),
    "blue": (50, 80, 245),
    "yellow": (240, 225, 50),
    "magenta": (225, 60, 225),
    "cyan": (50, 215, 225),
}
"""RGB 0..255 of each colour; the order is the order in which a listing names objects."""

SHAPES: tuple[str, ...] = ("circle", "bar", "pole", "cross")
PITCH_HZ: dict[str, float] = {"circle": 300.0, "bar": 620.0, "pole": 1300.0, "cross": 2600.0}
"""Nominal pitch of the tone that each shape makes; a scene detunes it by up to 4 %."""

FAMILIES: tuple[str, ...] = (
    "direct", "last", "leaves", "moves", "sound", "null",
    "stops", "two", "occluded", "distractor", "while",
)  # fmt: skip
"""What a query asks by: a colour or shape, who enters last, leaves first, moves left or right, makes the
sound; "null" queries name something that is not there. Only in `NEXT`: who stops, queries that two objects
answer, a colour or shape that another object hides in the middle of its visit, the sound while a tone of an
absent shape is heard as well, who sounds while another moves."""

DEMO_FAMILIES: tuple[str, ...] = ("direct", "last", "leaves", "sound", "null")
"""`FAMILIES` without "moves": the shipped model tells left from right no better than chance."""

STAGE = 96
"""Side of the stage in units."""

STEPS = 16
"""Steps of the event grid in a clip."""

STEP_SECONDS = 0.5
DURATION_SECONDS = STEPS * STEP_SECONDS

MIN_RADIUS, MAX_RADIUS = 14, 18
"""Half extent of a shape in units, whole numbers, inclusive."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What can happen in a scene, what can be asked, and what the reasoner notes; see Note [Rules].

    Attributes:
        name: of the rules.
        families: that can be asked, of `FAMILIES`.
        probabilities: of each of `families` where a caller leaves the choice to the generator; sum 1.
        digest: the questions that the reasoner's digest settles whatever is asked, in order.
        still: probability that an object stands still.
        stops: probability that an object that moves long enough stops, where the family leaves it open.
        second_tone: probability of a second tone, likewise.
        min_travel: units that a moving object goes sideways, at least.
    """

    name: str
    families: tuple[str, ...]
    probabilities: tuple[float, ...]
    digest: tuple[str, ...]
    still: float = 0.0
    stops: float = 0.0
    second_tone: float = 0.0
    min_travel: float = 0.0


SHIPPED = Rules(
    name="shipped",
    families=FAMILIES[:6],
    probabilities=(0.18, 0.18, 0.16, 0.16, 0.20, 0.12),
    digest=("last", "first"),
)
"""Rules of the default bundle's model: every object moves, slowly, all the time; at most one tone."""

NEXT = Rules(
    name="next",
    families=FAMILIES,
    probabilities=(0.12, 0.10, 0.10, 0.10, 0.10, 0.12, 0.08, 0.08, 0.06, 0.07, 0.07),
    digest=("last", "first", "stops", "left", "right", "heard", "while"),
    still=0.36,
    stops=0.35,
    second_tone=0.3,
    min_travel=44.0,
)
"""Rules of its successor."""

HELD_OUT_BASE = 5_000_000
HELD_OUT_STRIDE = 100_000


def held_out_seed(family: str, number: int) -> int:
    """Return the seed of a held-out clip; see Note [Seeds].

    Args:
        family: one of `FAMILIES`.
        number: which clip of the family, 0 <= number < 100,000.

    Raises:
        ValueError: an unknown family, or a number outside the family's range.
    """
    check_family(family)
    if not 0 <= number < HELD_OUT_STRIDE:
        raise ValueError(f"a held-out clip has a number in [0, {HELD_OUT_STRIDE}), got {number}")
    return HELD_OUT_BASE + HELD_OUT_STRIDE * FAMILIES.index(family) + number


def demo_clips(count: int, seed: int = 0) -> Iterator[tuple[int, str]]:
    """Yield (seed, family) of held-out clips, the five demo families taking turns.

    Args:
        count: how many clips; a multiple of 5 is shared out evenly.
        seed: number of the first clip in each family's held-out range.

    Raises:
        ValueError: a negative count, or numbers outside the held-out range.
    """
    if count < 0:
        raise ValueError(f"count must be 0 or more, got {count}")
    families = len(DEMO_FAMILIES)
    for index in range(count):
        family = DEMO_FAMILIES[index % families]
        yield held_out_seed(family, seed + index // families), family


def check_family(family: str, rules: Rules | None = None) -> None:
    """Raise ValueError unless `family` is one of `FAMILIES`, or of the rules' families."""
    known = FAMILIES if rules is None else rules.families
    if family not in known:
        raise ValueError(f"unknown family {family!r}; expected one of {', '.join(known)}")
