"""`omni-sdk eval`: run a benchmark, score anyone's predictions, check a data set's folder."""

from __future__ import annotations

import argparse

from omni_sdk.cli import common
from omni_sdk.cli.options import declare_pipeline

# Written out, so that `omni-sdk --help` need not import the readers; a test compares.
RUNNABLE = ("revos", "mevis", "ref-youtube-vos", "ref-davis17", "refavs")
DAVIS = "davis2017"
CHECKABLE = (*RUNNABLE, DAVIS, "refcocog_2k_840")


def declare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands; a data set's name alone is short for `run` with it."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="DATASET|run|score|check")
    run = actions.add_parser("run", help="answer every expression of a split and score the answers")
    run.add_argument("dataset", choices=RUNNABLE)
    _declare_run(run)
    for name in RUNNABLE:
        short = actions.add_parser(name, help=f"short for: run {name}")
        short.set_defaults(dataset=name)
        _declare_run(short)
    score = actions.add_parser("score", help="score a folder of predictions, anyone's")
    score.add_argument("dataset", choices=(*RUNNABLE, DAVIS))
    score.add_argument("root", help="the data set's folder")
    score.add_argument(
        "predictions",
        help=f"folder of <video>/<expression>/<frame>.png ({DAVIS}: <sequence>/<frame>.png)",
    )
    _declare_selection(score)
    score.add_argument("--jobs", type=_positive, help="processes (default: one per CPU)")
    score.add_argument(
        "--json", type=common.output_file, help="write the scores of every expression here"
    )
    score.add_argument(
        "--html", type=common.output_file, help="write a page with the worst and best clips here"
    )
    score.add_argument(
        "--unsupervised", action="store_true", help="davis2017: objects had to be found"
    )
    score.set_defaults(perform=_score)
    check = actions.add_parser("check", help="compare a data set's folders with its annotations")
    check.add_argument("dataset", choices=CHECKABLE)
    check.add_argument("root", help="the data set's folder (refcocog_2k_840: its file)")
    check.add_argument("--json", type=common.output_file, help="also write the findings here")
    check.set_defaults(perform=_check)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    return int(arguments.perform(arguments))


def _declare_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", help="as the data set names it (default: its usual test split)")
    parser.add_argument("--limit", type=_positive, help="only the first so many expressions")


def _declare_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", help="the data set's folder")
    parser.add_argument(
        "--out",
        required=True,
        type=common.output_directory,
        help="folder for predictions, records and results; a run that was stopped goes on there",
    )
    _declare_selection(parser)
    parser.add_argument(
        "--shard", type=_shard, default=(0, 1), metavar="I/N", help="every N-th from the I-th on"
    )
    parser.add_argument("--retry-failed", action="store_true", help="do failed ones again")
    parser.add_argument("--fps", type=float, help="rate of the frames (default: the data set's)")
    declare_pipeline(parser)
    parser.add_argument(
        "--allow-unparsed",
        dest="on_parse_error",
        action="store_const",
        const="empty",
        default=argparse.SUPPRESS,
        help="short for --on-parse-error empty: an unreadable answer becomes an empty mask (otherwise a "
        "failure, which scores 0)",
    )
    parser.add_argument(
        "--values",
        type=int,
        choices=(1, 255),
        help="value of the object in the PNGs (default: 1 for revos, 255 for the others)",
    )
    parser.add_argument(
        "--clips", type=_natural, default=5, help="worst and best shown on the page"
    )
    parser.add_argument("--ray", type=_positive, metavar="WORKERS", help="run on a Ray cluster")
    parser.add_argument("--ray-address", help="of a running cluster (default: start one here)")
    parser.add_argument("--ray-cpus", type=float, default=1, help="CPUs per worker")
    parser.add_argument("--ray-gpus", type=float, default=0, help="GPUs per worker")
    common.declare_model(parser)
    parser.set_defaults(perform=_run)


def _run(arguments: argparse.Namespace) -> int:
    from omni_sdk.cli.eval_run import run

    return run(arguments)


def _score(arguments: argparse.Namespace) -> int:
    from omni_sdk.cli.eval_score import score, score_davis

    return score_davis(arguments) if arguments.dataset == DAVIS else score(arguments)


def _check(arguments: argparse.Namespace) -> int:
    from omni_sdk.datasets import check
    from omni_sdk.utils.files import write_json

    report = check(arguments.root, arguments.dataset)
    print("\n".join(report.lines()))
    if arguments.json is not None:
        write_json(arguments.json, report.to_dict())
    return 0 if report.ok else 1


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return value


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text}")
    return value


def _shard(text: str) -> tuple[int, int]:
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit() and int(first) < int(second)):
        raise argparse.ArgumentTypeError(f"expected I/N with 0 <= I < N, such as 0/4, got {text}")
    return int(first), int(second)
