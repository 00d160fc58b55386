"""The outcome of an evaluation: the data set's own averages, every expression, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omni_sdk.datasets.records import Sample
from omni_sdk.evaluation.records import Record
from omni_sdk.evaluation.runner import Evaluation
from omni_sdk.evaluation.scoring import (
    ScoredExpression,
    Summary,
    summarise,
    unknown_predictions,
)
from omni_sdk.metrics.mevis import MevisSummary
from omni_sdk.metrics.refavs import RefavsSummary
from omni_sdk.metrics.revos import RevosSummary
from omni_sdk.utils.files import write_json
from omni_sdk.utils.schema import to_dict

SCHEMA_VERSION = 1
RESULTS = "results.json"
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Results:
    """Scores of a split.

    Attributes:
        dataset: its name.
        split: as the data set names it.
        rows: every expression, in the split's order.
        summary: the data set's averages; None where the split has no masks.
        unknown: folders of predictions that belong to no expression of the split.
        run: what answered (models, options, statuses, times); empty for predictions of unknown origin.
    """

    dataset: str
    split: str
    rows: tuple[ScoredExpression, ...]
    summary: Summary | None
    unknown: tuple[str, ...] = ()
    run: dict[str, Any] = field(default_factory=dict)

    @property
    def failures(self) -> tuple[ScoredExpression, ...]:
        """Expressions that count as 0 because their prediction is missing or broken."""
        return tuple(row for row in self.rows if row.error)

    def to_dict(self) -> dict[str, Any]:
        """Return results.json as plain values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "dataset": self.dataset,
            "split": self.split,
            "num_expressions": len(self.rows),
            "num_failed": len(self.failures),
            "summary": to_dict(self.summary),
            "unknown_predictions": list(self.unknown),
            "run": self.run,
            "failures": [
                {"video_id": r.video_id, "expression_id": r.expression_id, "error": r.error}
                for r in self.failures
            ],
            "expressions": to_dict(self.rows),
        }

    def save(self, path: Path) -> None:
        """Write results.json."""
        write_json(path, self.to_dict(), allow_nan=True)


def collect(evaluation: Evaluation) -> Results | None:
    """Return the results of a run, or None while any expression of any shard is not done yet."""
    records = [record for record in evaluation.records() if record is not None]
    if len(records) < len(evaluation.samples):
        return None
    plan = evaluation.plan
    rows = tuple(record.scored for record in records)
    return Results(
        plan.dataset,
        plan.split,
        rows,
        summarise(plan.dataset, rows),
        run={**plan.identity(), **_statistics(records)},
    )


def from_scores(
    samples: Sequence[Sample], rows: Sequence[ScoredExpression], *, predictions: str
) -> Results:
    """Return the results of a scored folder of predictions.

    Args:
        samples: of the split, one per row.
        rows: as from `omni_sdk.evaluation.scoring.score_predictions`.
        predictions: the folder, which is searched for predictions that nobody asked for.
    """
    first = samples[0]
    return Results(
        first.dataset,
        first.split,
        tuple(rows),
        summarise(first.dataset, rows),
        tuple(unknown_predictions(samples, predictions)),
    )


def summary_table(results: Results) -> Table:
    """Return the head and rows of the data set's table; scores in percent."""
    summary = results.summary
    if isinstance(summary, RevosSummary):
        return _revos_table(summary)
    if isinstance(summary, RefavsSummary):
        names = ("j", "f", "jf", "f_mask", "s", "davis_j", "davis_f", "davis_jf")
        head = ("clips", "J", "F", "J&F", "F of masks", "S", "DAVIS J", "DAVIS F", "DAVIS J&F")
        values = (_percent(getattr(summary, name)) for name in names if name != "s")
        cells = [str(summary.num_clips), *values]
        cells.insert(5, f"{summary.s:.4f}")
        return head, [tuple(cells)]
    if isinstance(summary, MevisSummary):
        values = (_percent(v) for v in (summary.j, summary.f, summary.jf))
        return ("expressions", "J", "F", "J&F"), [(str(summary.num_expressions), *values)]
    return ("expressions", "scores"), [(str(len(results.rows)), "none: this split has no masks")]


def failure_lines(results: Results, limit: int = 10) -> list[str]:
    """Return the failures as lines of text, the first `limit` of them, and how many more there are."""
    failures = results.failures
    lines = [f"{row.video_id}/{row.expression_id}: {row.error}" for row in failures[:limit]]
    if len(failures) > limit:
        lines.append(f"and {len(failures) - limit} more")
    return lines


def _revos_table(summary: RevosSummary) -> Table:
    head = ("group", "expressions", "J", "F", "J&F", "A", "R", "R (1)", "R (255)")
    rows = []
    for name in ("referring", "reasoning", "overall"):
        group = getattr(summary, name)
        if group is None:
            rows.append((name, "0", *["-"] * 7))
            continue
        values = (group.j, group.f, group.jf, group.sets.a)
        robust = (group.sets.r, group.values_1.r, group.values_255.r)
        cells = (_percent(value) for value in (*values, *robust))
        rows.append((name, str(group.num_expressions), *cells))
    return head, rows


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _statistics(records: Sequence[Record]) -> dict[str, Any]:
    timed = [record.timings_ms for record in records if record.timings_ms]
    names = timed[0] if timed else ()
    return {
        "statuses": dict(sorted(Counter(record.status for record in records).items())),
        "mean_timings_ms": {n: round(sum(t[n] for t in timed) / len(timed), 3) for n in names},
    }
