"""The log of a training: a line of JSON for every report, each step once however often it was resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from omni_sdk.utils.files import write_text

Say = Callable[[str], None]


class TrainingLog:
    """Writes NAME.jsonl and tells the same in words."""

    def __init__(self, path: Path, say: Say) -> None:
        """Keep the file's path; the file is made by the first line."""
        self._path, self._say = path, say

    def cut(self, stages: list[str], stage: str, step: int) -> None:
        """Forget what was logged after a state: those steps are done again.

        A line that a kill has left half written goes as well.
        """
        if not self._path.exists():
            return
        here = (stages.index(stage), step)
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            entry = json.loads(line)
            if (stages.index(entry["stage"]), entry["step"]) <= here:
                kept.append(line)
        write_text(self._path, "".join(kept))

    def write(
        self,
        stage: str,
        step: int,
        *,
        steps: int,
        cpu_seconds: float,
        running: Mapping[str, float],
        development: Mapping[str, float],
    ) -> None:
        """Add a line.

        Args:
            stage: under way.
            step: done in it.
            steps: that it has.
            cpu_seconds: that the training has taken so far.
            running: means over the steps since the last line.
            development: what is right on clips that are never trained on.
        """
        means = {"running": _short(running), "development": _short(development)}
        entry = {"stage": stage, "step": step, "steps": steps, "cpu_seconds": round(cpu_seconds)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry | means) + "\n")
        words = [" ".join(f"{n} {v:g}" for n, v in values.items()) for values in means.values()]
        self._say(
            f"{self._path.stem}: {stage} {step} of {steps}, {cpu_seconds:.0f} s: {'; '.join(words)}"
        )


def _short(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in sorted(values.items())}
