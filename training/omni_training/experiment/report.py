"""From the judges' scores to results.json: means, intervals, contrasts with Table 4, curves, cost."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omni_training.experiment.files import Experiment, read_json
from omni_training.experiment.settings import (
    ARMS,
    CONTROL,
    FULL,
    START,
    SWAPPED,
    TRAINED_BY,
    ExperimentSettings,
    settings_text,
)
from omni_training.experiment.statistics import (
    MEASURES,
    Floats,
    Interval,
    difference,
    mean_interval,
    table,
)

WINDOWS = 10
CURVES = ("reward", "part/r_k", "part/r_a", "part/r_g", "part/format", "kl", "entropy")


@dataclasses.dataclass(frozen=True, slots=True)
class Contrast:
    """A claim of the paper's Table 4, as a difference of two arms.

    Attributes:
        name: what is asked.
        ours: arm.
        theirs: arm, or the start.
        judge: whose masks are compared.
        paper: the same difference in the paper, J&F points on ReVOS; None where it gives none.
    """

    name: str
    ours: str
    theirs: str
    judge: str
    paper: float | None


CONTRASTS = (
    Contrast("R_K alone against the start", "r_k", START, TRAINED_BY, 35.2 - 36.6),
    Contrast("R_G on top of R_K", "r_k+r_g", "r_k", TRAINED_BY, 39.9 - 35.2),
    Contrast("R_A on top of R_K", "r_k+r_a", "r_k", TRAINED_BY, 36.3 - 35.2),
    Contrast(
        "R_A on top of R_K+R_G, judge of the training", FULL, "r_k+r_g", TRAINED_BY, 38.4 - 39.9
    ),
    Contrast("R_A on top of R_K+R_G, judge swapped", FULL, "r_k+r_g", SWAPPED, 54.0 - 51.1),
    Contrast("all three against the start", FULL, START, TRAINED_BY, 38.4 - 36.6),
)
"""Source: Omni-R1, Table 4 (NeurIPS text): untrained 36.6, R_K 35.2, R_K+R_A 36.3, R_K+R_G 39.9, all 38.4;
with Sa2VA as the detail system R_K+R_G 51.1, all 54.0."""


def build_results(experiment: Experiment) -> dict[str, Any]:
    """Gather a finished experiment's figures as JSON values."""
    settings = experiment.settings
    judges = {judge: _judge_results(experiment, judge) for judge in settings.judges}
    records = {m: read_json(experiment.record(m)) for m in settings.models() if m != START}
    return {
        "settings": _published_settings(settings),
        "clips": len(settings.clips()),
        "judges": judges,
        "contrasts": _contrasts(experiment),
        "curves": _curves(records, settings.seeds),
        "cost": _cost(experiment, records),
        "environment": {"machine": platform.machine(), "python": platform.python_version()},
    }


def _published_settings(settings: ExperimentSettings) -> dict[str, Any]:
    """Return the settings with the last part of each path alone: where it lay says nothing to others."""
    value: dict[str, Any] = json.loads(settings_text(settings))
    value["start"] = Path(value["start"]).name
    for judge in (value["judge"], value["second_judge"]):
        for name in ("path", "tracker"):
            if judge and judge[name]:
                judge[name] = Path(judge[name]).name
    return value


def load_scores(experiment: Experiment, judge: str) -> dict[str, dict[str, Any]]:
    """Return model -> clip -> score of one judge, all shards together."""
    merged: dict[str, dict[str, Any]] = {m: {} for m in experiment.settings.models()}
    for shard in range(len(experiment.shards)):
        for model, clips in read_json(experiment.scores(judge, shard))["scores"].items():
            merged[model] |= clips
    return merged


def models_of(experiment: Experiment, arm: str) -> list[str]:
    """Return an arm's models, one for each seed; the start is its own only one."""
    return [START] if arm == START else [f"{arm}/{seed}" for seed in experiment.settings.seeds]


def _judge_results(experiment: Experiment, judge: str) -> dict[str, Any]:
    scores = load_scores(experiment, judge)
    arms: dict[str, Any] = {}
    families = sorted({clip["family"] for clip in scores[START].values()})
    for arm in (START, *ARMS, CONTROL):
        arms[arm] = {
            measure: _against(experiment, scores, arm, measure)
            for measure in MEASURES
            if table(scores, [START], measure).size
        }
    by_family = {
        family: {
            arm: _family_means(scores, models_of(experiment, arm), family)
            for arm in (START, *ARMS, CONTROL)
        }
        for family in families
    }
    return {"arms": arms, "families": by_family}


def _against(
    experiment: Experiment, scores: dict[str, dict[str, Any]], arm: str, measure: str
) -> dict[str, Any]:
    """Return an arm's mean, its seeds' means, and its differences from start and control."""
    rounds = experiment.settings.rounds
    ours = _values(experiment, scores, arm, measure)
    row: dict[str, Any] = dataclasses.asdict(mean_interval(ours, rounds=rounds))
    row["seeds"] = [float(v) for v in ours.mean(axis=1)]
    row["clips"] = ours.shape[1]
    for name, other in (("against_start", START), ("against_control", CONTROL)):
        if arm not in (START, other):
            theirs = _values(experiment, scores, other, measure)
            row[name] = _interval_dict(difference(ours, theirs, rounds=rounds))
    return row


def _values(
    experiment: Experiment, scores: dict[str, dict[str, Any]], arm: str, measure: str
) -> Floats:
    return table(scores, models_of(experiment, arm), measure)


def _family_means(
    scores: dict[str, dict[str, Any]], models: Sequence[str], family: str
) -> dict[str, float]:
    own = {
        model: {c: s for c, s in scores[model].items() if s["family"] == family} for model in models
    }
    means = {}
    for measure in MEASURES:
        values = table(own, models, measure)
        if values.size:
            means[measure] = float(values.mean())
    return means


def _contrasts(experiment: Experiment) -> list[dict[str, Any]]:
    """Return each contrast with its interval, and whether it points where the paper's does."""
    rows = []
    for contrast in CONTRASTS:
        if contrast.judge not in experiment.settings.judges:
            continue
        scores = load_scores(experiment, contrast.judge)
        ours = _values(experiment, scores, contrast.ours, "j_and_f")
        theirs = _values(experiment, scores, contrast.theirs, "j_and_f")
        found = difference(ours, theirs, rounds=experiment.settings.rounds)
        rows.append(
            dataclasses.asdict(contrast)
            | {"found": _interval_dict(found), "verdict": verdict(found, contrast.paper)}
        )
    return rows


def verdict(found: Interval, paper: float | None) -> str:
    """Say whether a difference has the sign of the paper's, the opposite one, or cannot be told from 0."""
    if not found.excludes_zero:
        return "not told apart from 0"
    if paper is None:
        return "no figure in the paper"
    return "same sign" if found.mean * paper > 0 else "opposite sign"


def _interval_dict(interval: Interval) -> dict[str, Any]:
    return dataclasses.asdict(interval) | {"excludes_zero": interval.excludes_zero}


def _curves(records: dict[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
    """Return arm -> curve -> means over windows of steps, seeds averaged, with each window's last step."""
    curves: dict[str, Any] = {}
    for arm in ARMS:
        logs = [records[f"{arm}/{seed}"]["log"] for seed in seeds]
        steps = min(len(log) for log in logs)
        parts = np.array_split(np.arange(steps), min(WINDOWS, steps))
        curves[arm] = {"step": [int(part[-1]) + 1 for part in parts]}
        for name in CURVES:
            if all(name in entry for log in logs for entry in log):
                values = np.array([[e[name] for e in log[:steps]] for log in logs])
                curves[arm][name] = [float(values[:, part].mean()) for part in parts]
    return curves


def _cost(experiment: Experiment, records: dict[str, Any]) -> dict[str, Any]:
    """Return CPU seconds and tokens of the training runs and of the judging."""
    runs = {}
    for model, record in records.items():
        entries = record["log"]
        tokens = max((e.get("num_tokens", 0) for e in entries), default=0)
        runs[model] = {
            "steps": record["steps"],
            "cpu_seconds": record["cpu_seconds"],
            "cpu_seconds_per_step": record["cpu_seconds"] / max(1, record["steps"]),
            "tokens_per_cpu_second": tokens / max(1e-9, record["cpu_seconds"]),
        }
    answers = [read_json(experiment.answers(m)) for m in experiment.settings.models()]
    judged = {
        judge: sum(
            read_json(experiment.scores(judge, shard))["cpu_seconds"]
            for shard in range(len(experiment.shards))
        )
        for judge in experiment.settings.judges
    }
    return {
        "runs": runs,
        "answers_cpu_seconds": sum(a["cpu_seconds"] for a in answers),
        "judges_cpu_seconds": judged,
        "total_cpu_seconds": sum(r["cpu_seconds"] for r in runs.values())
        + sum(a["cpu_seconds"] for a in answers)
        + sum(judged.values()),
    }
