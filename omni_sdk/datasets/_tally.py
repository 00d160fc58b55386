"""Counting what a check finds, with a few examples of each kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of problem.

    Attributes:
        severity: "missing" (something needed is absent or broken) or "odd" (usable, worth a look).
        what: in words.
        count: how often.
        examples: the first five.
    """

    severity: str
    what: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.severity}: {self.what}: {self.count} (such as {'; '.join(self.examples)})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "severity": self.severity,
            "what": self.what,
            "count": self.count,
            "examples": list(self.examples),
        }


class Tally:
    """Counts of things and of problems, in the order they first came up."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._problems: dict[tuple[str, str], tuple[int, list[str]]] = {}

    def count(self, what: str, number: int = 1) -> None:
        """Add to the count of a thing."""
        self._counts[what] = self._counts.get(what, 0) + number

    def missing(self, what: str, example: str) -> None:
        """Note something needed that is absent or broken."""
        self._note("missing", what, example)

    def odd(self, what: str, example: str) -> None:
        """Note something usable that deserves a look."""
        self._note("odd", what, example)

    def counts(self) -> dict[str, int]:
        """Return the counts of things."""
        return dict(self._counts)

    def problems(self) -> tuple[Problem, ...]:
        """Return the problems, missing before odd."""
        rows = [
            Problem(severity, what, count, tuple(examples))
            for (severity, what), (count, examples) in self._problems.items()
        ]
        return tuple(sorted(rows, key=lambda problem: problem.severity != "missing"))

    def _note(self, severity: str, what: str, example: str) -> None:
        count, examples = self._problems.get((severity, what), (0, []))
        if len(examples) < MAX_EXAMPLES:
            examples.append(example)
        self._problems[severity, what] = count + 1, examples
