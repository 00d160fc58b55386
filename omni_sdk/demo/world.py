"""Constants of the world, and which seeds are held out.

The stage is a square of 96 units, lasting 8 s; events fall on a grid of 0.5 s. Lengths and positions are
in units, whatever the resolution at which a scene is shown. Motion can be seen at 48 pixels: whoever moves
crosses about half of the stage or more, others stand still.

Note [Seeds]
Clip `i` of family `f` is held out for evaluation at seed `5_000_000 + 100_000 * FAMILIES.index(f) + i`,
`0 <= i < 100_000`, so a family's clips do not depend on which other families are shown. Everything from
5,000,000 to 6,099,999 is kept from training.
"""

from __future__ import annotations

from collections.abc import Iterator

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
sound; "null" queries name something that is not there; who stops, queries that two objects answer, a colour
or shape that another object hides in the middle of its visit, the sound while a tone of an absent shape is
heard as well, who sounds while another moves."""

PROBABILITIES = (0.12, 0.10, 0.10, 0.10, 0.10, 0.12, 0.08, 0.08, 0.06, 0.07, 0.07)
"""Of each of `FAMILIES` where a caller leaves the choice to the generator; sum 1."""

DIGEST = ("last", "first", "stops", "left", "right", "heard", "while")
"""The questions that the reasoner's digest settles whatever is asked, in order."""

STAGE = 96
"""Side of the stage in units."""

STEPS = 16
"""Steps of the event grid in a clip."""

STEP_SECONDS = 0.5
DURATION_SECONDS = STEPS * STEP_SECONDS

MIN_RADIUS, MAX_RADIUS = 14, 18
"""Half extent of a shape in units, whole numbers, inclusive."""

MIN_TRAVEL = 44.0
"""Units that a moving object goes sideways, at least."""

STILL, STOPS, SECOND_TONE = 0.36, 0.35, 0.3
"""Probabilities, where the family leaves it open: that an object stands still, that one of those that move
long enough stops, and of a second tone."""

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
    """Yield (seed, family) of held-out clips, the families taking turns.

    Args:
        count: how many clips; a multiple of 11 is shared out evenly.
        seed: number of the first clip in each family's held-out range.

    Raises:
        ValueError: a negative count, or numbers outside the held-out range.
    """
    if count < 0:
        raise ValueError(f"count must be 0 or more, got {count}")
    for index in range(count):
        number, turn = divmod(index, len(FAMILIES))
        yield held_out_seed(FAMILIES[turn], seed + number), FAMILIES[turn]


def check_family(family: str) -> None:
    """Raise ValueError unless `family` is one of `FAMILIES`."""
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; expected one of {', '.join(FAMILIES)}")
