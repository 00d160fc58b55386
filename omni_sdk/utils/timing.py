"""Wall time per stage."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StageTimings:
    """Wall time of each stage in milliseconds; stages that did not run are 0.

    Stages add up to `total` less what none of them claims. `overlapped` is no part of the sum: decoding that
    went on beside the tracker (`decode` is then what the tracker had to wait for).
    """

    index: float = 0.0
    decode: float = 0.0
    audio: float = 0.0
    prefill: float = 0.0
    generate: float = 0.0
    ground: float = 0.0
    encode: float = 0.0
    propagate: float = 0.0
    carry: float = 0.0
    mask: float = 0.0
    total: float = 0.0
    overlapped: float = 0.0


class Stopwatch:
    """Adds up milliseconds under the names of `StageTimings`; one per run."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._ms: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._ms[name] += (time.perf_counter() - started) * 1e3

    def iterate(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the items of a lazy source; only the time spent inside it counts."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def add(self, milliseconds: Mapping[str, float]) -> None:
        """Add times that a stage measured itself."""
        for name, value in milliseconds.items():
            self._ms[name] += value

    def overlap(self, name: str, busy_ms: float, waited_ms: float) -> None:
        """Add a stage that ran in a thread of its own: what was waited for counts, the rest was free."""
        self._ms[name] += waited_ms
        self._ms["overlapped"] += max(0.0, busy_ms - waited_ms)

    def timings(self) -> StageTimings:
        """Return the sums so far, with the total since construction."""
        total = (time.perf_counter() - self._started) * 1e3
        return StageTimings(**{**self._ms, "total": total})
