"""Two benchmark reports side by side, with a verdict that knows about noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omni_sdk.bench.report import STAGES, BenchReport, Quantiles, quantiles

CLEAR = 0.95
"""A verdict needs this share of all pairs (one run of A, one of B) to agree."""
MIN_MS = 1.0
"""Stages whose medians are both below this are left out: they are within the noise of any machine."""


@dataclass(frozen=True, slots=True)
class ComparedStage:
    """One stage of one source.

    Attributes:
        source: of both reports.
        stage: one of `STAGES`.
        a: of the first report, milliseconds.
        b: of the second.
        ratio: median of b over median of a; None where a's is 0.
        verdict: what B is: "faster", "slower" or "the same within noise".
    """

    source: str
    stage: str
    a: Quantiles
    b: Quantiles
    ratio: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All stages of the sources that both reports hold.

    Attributes:
        rows: by source, then stage.
        differences: settings, machines or models that are not the same, each as a line of text.
        unmatched: sources with their queries that only one report holds.
    """

    rows: tuple[ComparedStage, ...]
    differences: tuple[str, ...]
    unmatched: tuple[str, ...]


def compare(a: BenchReport, b: BenchReport) -> Comparison:
    """Compare two reports; sources are matched by name and query."""
    first = {(v.source, v.query): v for v in a.videos}
    second = {(v.source, v.query): v for v in b.videos}
    rows = []
    for key in (k for k in first if k in second):
        for stage in STAGES:
            x = [run.stages_ms[stage] for run in first[key].runs]
            y = [run.stages_ms[stage] for run in second[key].runs]
            qa, qb = quantiles(x), quantiles(y)
            if max(qa.median, qb.median) < MIN_MS:
                continue
            ratio = qb.median / qa.median if qa.median > 0 else None
            rows.append(ComparedStage(key[0], stage, qa, qb, ratio, verdict(x, y)))
    unmatched = [f"{source} ({query})" for source, query in sorted(first.keys() ^ second.keys())]
    return Comparison(tuple(rows), tuple(_differences(a, b)), tuple(unmatched))


def verdict(a: Sequence[float], b: Sequence[float]) -> str:
    """Say whether b's times are "faster" or "slower" than a's, or "the same within noise".

    The share of pairs in which b is smaller is the statistic of the Mann-Whitney test; it assumes
    nothing about how the times are distributed.
    """
    wins = sum((y < x) + 0.5 * (y == x) for x in a for y in b) / (len(a) * len(b))
    if min(len(a), len(b)) < 3:
        return "not decided (fewer than 3 runs)"
    if wins >= CLEAR:
        return "faster"
    return "slower" if wins <= 1 - CLEAR else "the same within noise"


def _differences(a: BenchReport, b: BenchReport) -> list[str]:
    pairs = {
        "settings": (a.settings, b.settings),
        "model": (a.model, b.model),
        "cpu": (a.environment.cpu, b.environment.cpu),
        "cpus": (a.environment.cpus, b.environment.cpus),
        "threads": (a.environment.threads, b.environment.threads),
        "system": (a.environment.system, b.environment.system),
        "clocks": (a.environment.clocks, b.environment.clocks),
        "device": (a.environment.device, b.environment.device),
        "native kernels": (a.environment.native, b.environment.native),
        "versions": (a.environment.versions, b.environment.versions),
    }
    return [f"{name}: {x} / {y}" for name, (x, y) in pairs.items() if x != y]
