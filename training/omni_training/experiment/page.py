"""results.json as a page: tables in Markdown, plots as SVG files beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omni_sdk.utils.files import write_json, write_text

from omni_training.experiment.files import Experiment
from omni_training.experiment.plots import curve_plot, interval_plot
from omni_training.experiment.report import build_results
from omni_training.experiment.settings import CONTROL, START, TRAINED_BY

TITLES = {
    "j_and_f": "J&F",
    "right_object": "right object",
    "span_iou": "span IoU",
    "keyframe_box_iou": "keyframe box IoU",
    "absent_correct": "absent queries answered []",
    "right_description": "right description",
}


def write_report(experiment: Experiment, folder: Path) -> dict[str, Any]:
    """Write results.json, index.md and the plots of a finished experiment; return the results."""
    results = build_results(experiment)
    write_json(folder / "results.json", results)
    for judge, table in results["judges"].items():
        rows = {
            arm: _triple(row["j_and_f"]["against_start"])
            for arm, row in table["arms"].items()
            if arm != START
        }
        plot = interval_plot(f"J&F minus the start's, {judge} judge", rows, "difference")
        write_text(folder / f"j_and_f_{judge}.svg", plot)
    curves = {arm: (c["step"], c["part/r_k"]) for arm, c in results["curves"].items()}
    write_text(
        folder / "r_k.svg", curve_plot("R_K of the rollouts (mean of windows)", curves, "step")
    )
    for part in ("r_a", "r_g"):
        paid = {
            a: (c["step"], c[f"part/{part}"]) for a, c in results["curves"].items() if part in a
        }
        title = f"{part.upper()} of the rollouts, arms that pay it"
        write_text(folder / f"{part}.svg", curve_plot(title, paid, "step"))
    write_text(folder / "index.md", page(results))
    return results


def page(results: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    s, cost = results["settings"], results["cost"]
    lines = [
        "# What the parts of the reward are worth on the procedural world",
        "",
        f"GRPO from one start ({s['start']}), "
        f"{len(s['seeds'])} seeds per arm, {s['steps']} steps of {s['prompts_per_step']} clips x "
        f"{s['num_generations']} rollouts, learning rate {s['learning_rate']:g}, beta {s['beta']:g}; the "
        "format is paid in every arm. The control goes on with supervised training for the CPU time of the "
        f"full arm. {results['clips']} held-out clips, rendered as arrays: 16 frames at 2 fps, 96 x 96 "
        "pixels for grounder and masks. Intervals are the central 95 % of a bootstrap over clips (paired) "
        f"and seeds, {s['rounds']} rounds. {cost['total_cpu_seconds'] / 3600:.1f} CPU hours in all.",
        "",
        "Rewards: the `paper` preset; R_K pays number, saliency and spread of the moments, and no true span. "
        "Judges: "
        + "; ".join(f"*{name}* = {_judge_name(s, name)}" for name in results["judges"])
        + ".",
    ]
    if len(s["seeds"]) < 3:
        lines += [
            "",
            f"**Only {len(s['seeds'])} seed(s): the intervals say little about training luck.**",
        ]
    for judge, table in results["judges"].items():
        lines += ["", f"## Judge: {judge}", "", *_arm_table(table["arms"])]
        lines += ["", f"![J&F against the start](j_and_f_{judge}.svg)"]
        lines += ["", "J&F by query family:", "", *_family_table(table["families"])]
    lines += ["", "## Against the pattern of the paper's Table 4", "", *_contrast_table(results)]
    lines += ["", "## Training", ""]
    lines += [f"![{name}]({name}.svg)" for name in ("r_k", "r_a", "r_g")]
    lines += ["", *_cost_table(cost), ""]
    return "\n".join(lines)


def _triple(row: dict[str, float]) -> tuple[float, float, float]:
    return row["mean"], row["low"], row["high"]


def _judge_name(settings: dict[str, Any], name: str) -> str:
    value = settings["judge" if name == TRAINED_BY else "second_judge"]
    return " with tracker ".join(p for p in (value["path"], value["tracker"]) if p)


def _arm_table(arms: dict[str, Any]) -> list[str]:
    measures = [m for m in TITLES if m in arms[START]]
    lines = ["| arm | " + " | ".join(TITLES[m] for m in measures) + " |"]
    lines.append("|---" * (len(measures) + 1) + "|")
    for arm, row in arms.items():
        cells = [
            f"{row[m]['mean']:.3f} ({row[m]['low']:.3f} .. {row[m]['high']:.3f})" for m in measures
        ]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    for name, title in (("against_start", "minus start"), ("against_control", "minus control")):
        for arm, row in arms.items():
            if name in row[measures[0]]:
                cells = [_difference(row[m][name]) for m in measures]
                lines.append(f"| {arm} {title} | " + " | ".join(cells) + " |")
    seeds = {arm: [round(v, 3) for v in row["j_and_f"]["seeds"]] for arm, row in arms.items()}
    told = "; ".join(f"{arm} {values}" for arm, values in seeds.items() if arm != START)
    return [*lines, "", f"J&F of each seed: {told}."]


def _difference(row: dict[str, Any]) -> str:
    text = f"{row['mean']:+.3f} ({row['low']:+.3f} .. {row['high']:+.3f})"
    return f"**{text}**" if row["excludes_zero"] else text


def _family_table(families: dict[str, Any]) -> list[str]:
    arms = list(next(iter(families.values())))
    lines = ["| family | " + " | ".join(arms) + " |", "|---" * (len(arms) + 1) + "|"]
    for family, row in families.items():
        cells = " | ".join(f"{row[arm]['j_and_f']:.3f}" for arm in arms)
        lines.append(f"| {family} | {cells} |")
    return lines


def _contrast_table(results: dict[str, Any]) -> list[str]:
    lines = ["| difference in J&F | here | paper (points of 100) | verdict |", "|---|---|---|---|"]
    for row in results["contrasts"]:
        paper = "-" if row["paper"] is None else f"{row['paper']:+.1f}"
        lines.append(
            f"| {row['name']} | {_difference(row['found'])} | {paper} | {row['verdict']} |"
        )
    note = (
        "The paper's figures are of a 7 B model on ReVOS, one run each, without intervals; only signs can "
        "be compared."
    )
    return [*lines, "", note]


def _cost_table(cost: dict[str, Any]) -> list[str]:
    lines = ["| run | steps | CPU s | CPU s per step | tokens per CPU s |", "|---|---|---|---|---|"]
    for model, row in cost["runs"].items():
        tokens = "-" if model.startswith(CONTROL) else f"{row['tokens_per_cpu_second']:.0f}"
        lines.append(
            f"| {model} | {row['steps']} | {row['cpu_seconds']:.0f} | "
            f"{row['cpu_seconds_per_step']:.2f} | {tokens} |"
        )
    return lines
