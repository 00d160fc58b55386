"""What a scene is made of: objects, tones and a question with its true answers."""

from __future__ import annotations

from dataclasses import dataclass

from omni_sdk.demo.world import STEP_SECONDS, STEPS


@dataclass(frozen=True, slots=True)
class SceneObject:
    """A coloured shape that moves on a straight line, or stands still.

    Attributes:
        color: one of `COLORS`.
        shape: one of `SHAPES`.
        radius: half extent in units.
        start_xy: centre at 0 s, in units from the top left corner of the stage (before it enters it may lie
            outside).
        velocity_xy: units per second.
        enter: first step at which it is visible.
        leave: first step at which it is visible no more, in (enter, STEPS].
        stop: step at which it stops for good, in (enter, leave); None: it moves all the time, or never.
    """

    color: str
    shape: str
    radius: int
    start_xy: tuple[float, float]
    velocity_xy: tuple[float, float]
    enter: int
    leave: int
    stop: int | None = None

    @property
    def name(self) -> str:
        """Colour and shape, such as "red circle"; unique in a scene."""
        return f"{self.color} {self.shape}"

    @property
    def direction(self) -> str:
        """Where it moves: "left", "right" or "still"."""
        if self.velocity_xy == (0.0, 0.0):
            return "still"
        return "right" if self.velocity_xy[0] > 0 else "left"

    @property
    def moving(self) -> tuple[int, int]:
        """Steps [start, end) at which it is seen to move; empty if it stands still."""
        if self.direction == "still":
            return self.enter, self.enter
        return self.enter, self.leave if self.stop is None else self.stop

    @property
    def span_seconds(self) -> tuple[float, float]:
        """When it is visible, [start, end)."""
        return self.enter * STEP_SECONDS, self.leave * STEP_SECONDS

    def visible(self, seconds: float) -> bool:
        """Whether it is on the stage (perhaps behind another) at a time."""
        start, end = self.span_seconds
        return start <= seconds < end

    def centre(self, seconds: float) -> tuple[float, float]:
        """Return its centre (x, y) in units at a time."""
        (x, y), (vx, vy) = self.start_xy, self.velocity_xy
        if self.stop is not None:
            seconds = min(seconds, self.stop * STEP_SECONDS)
        return x + vx * seconds, y + vy * seconds


@dataclass(frozen=True, slots=True)
class Tone:
    """A tone: which object makes it, and its steps [start, end).

    Attributes:
        source: index of the object; None: a shape that is not in the scene.
        start: first step.
        end: first step after it.
        absent_shape: the shape whose pitch is heard where `source` is None.
    """

    source: int | None
    start: int
    end: int
    absent_shape: str | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """All there is to know of a clip.

    Attributes:
        family: one of `FAMILIES`.
        objects: back to front: a later one hides an earlier one.
        tone: what sounds, or None.
        query: what is asked.
        target: index into `objects` of the (first) true answer; None: nothing in the clip answers the query.
        span: steps [start, end) of the true answer: of the tone if that is asked for, else of the target.
        background: brightness of the stage, 15..45.
        noise_seed: seed of picture noise and sound noise.
        second_tone: another tone, which never overlaps the first.
        second_answer: (index, span) of a second true answer, behind the first in the order of `COLORS`.
    """

    family: str
    objects: tuple[SceneObject, ...]
    tone: Tone | None
    query: str
    target: int | None
    span: tuple[int, int] | None
    background: float
    noise_seed: int
    second_tone: Tone | None = None
    second_answer: tuple[int, tuple[int, int]] | None = None

    @property
    def tones(self) -> tuple[Tone, ...]:
        """What sounds, in order of time."""
        both = [tone for tone in (self.tone, self.second_tone) if tone is not None]
        return tuple(sorted(both, key=lambda tone: tone.start))

    @property
    def answers(self) -> tuple[tuple[int, tuple[int, int]], ...]:
        """Every true answer: index into `objects` and steps [start, end)."""
        if self.target is None or self.span is None:
            return ()
        first = (self.target, self.span)
        return (first,) if self.second_answer is None else (first, self.second_answer)

    def tone_shape(self, tone: Tone) -> str:
        """Return the shape whose pitch a tone has."""
        if tone.source is None:
            assert tone.absent_shape is not None
            return tone.absent_shape
        return self.objects[tone.source].shape

    @property
    def span_seconds(self) -> tuple[float, float] | None:
        """The true answer's time [start, end), or None."""
        if self.span is None:
            return None
        return self.span[0] * STEP_SECONDS, self.span[1] * STEP_SECONDS

    @property
    def last_to_enter(self) -> int:
        """Index of the object that enters last; there is exactly one."""
        return max(range(len(self.objects)), key=lambda i: self.objects[i].enter)

    @property
    def first_to_leave(self) -> int | None:
        """Index of the object that leaves first; None if nobody leaves or two leave at once."""
        leaves = [o.leave for o in self.objects]
        first = min(leaves)
        return None if first == STEPS or leaves.count(first) > 1 else leaves.index(first)
