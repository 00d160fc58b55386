"""The options of `omni-train nano`; imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from omni_training.nano.thinker.config import STAGES

HALVES = ("thinker", "tracker")


def add_nano_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to its parser."""
    parser.description = (
        "Make the nano bundle from nothing: train the thinker (reasoner and grounder) and the tracker on "
        "the procedural world, from random weights, and export both. The same seed gives the same training; "
        "a run that was stopped goes on where it was. With two cores, `--only thinker` and `--only tracker` "
        "can run beside each other in one folder; the command without them then makes the bundle."
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, required=True,
        help="states, logs, checkpoints DIR/thinker and DIR/tracker, and DIR/bundle",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, help="of weights and data (1)")
    parser.add_argument("--only", choices=HALVES, help="train this half alone, make no bundle")
    parser.add_argument("--stage", choices=STAGES, help="stop after this stage of the thinker")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (cpu)")
    parser.add_argument(
        "--minutes-scale", metavar="X", type=float, default=1.0,
        help="X times the steps in every stage (1: about 280 minutes of one core)",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (1)")
    parser.add_argument(
        "--evaluate", metavar="CHECKPOINT", type=Path,
        help="train nothing: test this thinker or tracker on held-out clips, table and JSON into DIR",
    )  # fmt: skip
    parser.add_argument(
        "--clips", type=int, default=100, help="of each family, to evaluate on (100)"
    )
    parser.add_argument(
        "--mp4", action="store_true", help="evaluate on clips read from mp4 files, not from frames"
    )
