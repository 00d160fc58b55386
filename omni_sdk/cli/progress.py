"""How far a run is, on stderr: a line per stage, and frames with their rate."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from omni_sdk.cli.common import say
from omni_sdk.events import Finished, Frame, Grounded, Reasoned

if TYPE_CHECKING:
    from omni_sdk.events import Event

Show = Callable[[int, int, float], None]


class RunProgress:
    """Told of a run's events, it says on stderr what has been done.

    Frames move a bar of rich on a terminal that has it; elsewhere there is a line per 10 % of them.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._done, self._total = 0, 0
        self._bar = _rich_bar()

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, Reasoned):
            self._total = 0 if event.video is None else event.video.num_frames
            self._stage(f"reasoning: {event.status}, {_count(len(event.keyframes), 'keyframe')}")
        elif isinstance(event, Grounded):
            self._stage(f"grounding: {_count(sum(map(len, event.boxes)), 'box', 'es')}")
        elif isinstance(event, Frame):
            self._frame()
        elif isinstance(event, Finished):
            self.__exit__()

    def _stage(self, text: str) -> None:
        now = time.monotonic()
        say(f"{text}, {now - self._started:.1f} s")
        self._started = now

    def _frame(self) -> None:
        self._done += 1
        elapsed = time.monotonic() - self._started
        text = (
            f"tracking: {self._done}/{self._total} frames, {self._done / max(elapsed, 1e-9):.1f}/s"
        )
        if self._bar is not None:
            self._bar.update(text, self._done, self._total)
        elif self._done * 10 // max(self._total, 1) > (self._done - 1) * 10 // max(self._total, 1):
            say(text)


class _Bar:
    """A bar of rich."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = TextColumn("{task.description}"), BarColumn()
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("", total=None)

    def update(self, text: str, done: int, total: int) -> None:
        self._progress.start()
        self._progress.update(self._task, description=text, completed=done, total=total)

    def stop(self) -> None:
        self._progress.stop()


def _rich_bar() -> _Bar | None:
    if not sys.stderr.isatty():
        return None
    try:
        return _Bar()
    except ImportError:
        return None


def _count(number: int, word: str, plural: str = "s") -> str:
    return f"{number} {word}{'' if number == 1 else plural}"
