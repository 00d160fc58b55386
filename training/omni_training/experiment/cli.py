"""`omni-train experiment`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from omni_training.experiment.settings import ExperimentSettings, load_settings


def add_parser(commands: Any) -> None:
    """Add the command to `omni-train`'s parser."""
    parser = commands.add_parser(
        "experiment",
        help="what each part of the reward is worth on the procedural world, with controls",
        description="Train every arm and seed from one start, and a supervised control; judge held-out "
        "clips; write a table with intervals. Stopped at any time, the same command goes on.",
    )
    parser.add_argument(
        "--start", metavar="CKPT", help="thinker checkpoint that every arm starts from"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="everything goes here"
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="YAML; the defaults without")
    parser.add_argument(
        "--bundle", metavar="B", help="its grounder and tracker pay and judge (nano)"
    )
    parser.add_argument(
        "--second", metavar="B", help="bundle, or grounder checkpoint, that only judges"
    )
    parser.add_argument(
        "--second-tracker", metavar="CKPT", help="tracker, if --second is a checkpoint"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time, one thread each")
    parser.add_argument("--plan", action="store_true", help="measure what it will cost, and stop")
    parser.add_argument(
        "--results", metavar="DIR", type=Path, help="page and JSON (default: OUT/report)"
    )
    parser.set_defaults(run=run)


def read_settings(arguments: argparse.Namespace) -> ExperimentSettings:
    """Return the experiment that the command line and its file describe; ConfigError if none."""
    judge = {"path": arguments.bundle} if arguments.bundle else None
    second = None
    if arguments.second:
        second = {"path": arguments.second, "tracker": arguments.second_tracker}
    start = str(Path(arguments.start).resolve()) if arguments.start else None
    return load_settings(arguments.config, start=start, judge=judge, second_judge=second)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; progress goes to stderr, the table to stdout."""
    from omni_training.experiment.files import Experiment
    from omni_training.experiment.jobs import run_all
    from omni_training.experiment.page import page, write_report

    settings = read_settings(arguments)
    if arguments.plan:
        import torch

        from omni_training.experiment.estimate import estimate

        torch.set_num_threads(1)
        print("\n".join(estimate(settings).lines(arguments.jobs)))
        return 0
    experiment = Experiment.create(arguments.out, settings)

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    run_all(experiment, jobs=arguments.jobs, tell=tell)
    results = write_report(experiment, arguments.results or experiment.folder / "report")
    print(page(results))
    return 0
