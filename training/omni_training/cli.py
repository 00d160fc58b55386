"""The command `omni-train`: results on stdout, progress on stderr.

Exit codes: 0 done, 1 a problem told in one line, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from omni_sdk.errors import OmniError

from omni_training.nano.arguments import add_nano_arguments


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except BrokenPipeError:  # the reader of our output has gone; nothing is left to say
        return 0
    except (OmniError, OSError) as e:
        if arguments.traceback:
            raise
        print(f"omni-train: {' '.join(str(e).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("omni-train: interrupted", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    parser = argparse.ArgumentParser(prog="omni-train", description="Train the reasoner.")
    parser.add_argument("--traceback", action="store_true", help="show the whole error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    grpo = commands.add_parser(
        "grpo",
        help="GRPO of the reasoner with rewards from the detail system",
        description="GRPO of the reasoner. On several GPUs: accelerate launch --config_file LAUNCHER -m "
        "omni_training.cli grpo --config FILE",
    )
    grpo.add_argument("--config", metavar="FILE", type=Path, required=True, help="YAML")
    grpo.add_argument("--output-dir", metavar="DIR", help="in place of the configuration's")
    grpo.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint")
    mode = grpo.add_mutually_exclusive_group()
    mode.add_argument(
        "--dry-run", action="store_true", help="plan memory, steps and tokens; load nothing"
    )
    mode.add_argument(
        "--smoke", action="store_true", help="one step on the CPU with a random tiny model"
    )
    grpo.set_defaults(run=_grpo)
    from omni_training.experiment.cli import add_parser

    add_parser(commands)
    check = commands.add_parser(
        "check-data", help="tell what of a data set is there, missing or odd; change nothing"
    )
    check.add_argument(
        "root", metavar="ROOT", type=Path, help="a data set, or a folder that holds several"
    )
    check.add_argument("--dataset", help="revos, mevis, refavs, refcocog_2k_840 ... (recognised)")
    check.set_defaults(run=_check_data)
    nano = commands.add_parser("nano", help="make the nano bundle's thinker from nothing")
    add_nano_arguments(nano)
    nano.set_defaults(run=_nano)
    return parser


def _grpo(arguments: argparse.Namespace) -> int:
    from omni_training.grpo.config import load_config

    config = load_config(arguments.config)
    if arguments.output_dir:
        config = dataclasses.replace(config, output_dir=arguments.output_dir)
    from omni_training.grpo import run as grpo

    if arguments.dry_run:
        from omni_training.grpo.memory_plan import plan_run

        plan = plan_run(config)
        print("\n".join(plan.lines()))
        plan.check()
        grpo.check_options(config)
        return 0

    if arguments.smoke:
        entry = grpo.smoke(config)
        print("one step on a random tiny model (boxes and masks not paid):")
    else:
        entry = grpo.run(config, resume=arguments.resume)
    for name in ("loss", "grad_norm", "reward", "kl", "entropy", "train_loss", "train_runtime"):
        if name in entry:
            print(f"  {name:<14}{float(entry[name]):.5g}")
    if skipped := entry.get("skipped_samples"):
        print(f"  skipped samples: {len(skipped)}")
        for name, reason in list(skipped.items())[:3]:
            print(f"    {name}: {reason}")
    return 0


def _nano(arguments: argparse.Namespace) -> int:
    from omni_training.nano import command

    return command.run(arguments)


def _check_data(arguments: argparse.Namespace) -> int:
    from omni_sdk.datasets import DATASETS

    from omni_training.data.check import check_root

    if arguments.dataset not in (None, *DATASETS):
        names = ", ".join(DATASETS)
        print(f"omni-train: expected --dataset one of {names}", file=sys.stderr)
        return 2
    reports = check_root(arguments.root, arguments.dataset)
    for report in reports:
        print("\n".join(report.lines()))
    return 0 if all(report.ok for report in reports) else 1


if __name__ == "__main__":
    raise SystemExit(main())
