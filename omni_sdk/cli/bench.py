"""`omni-sdk bench BUNDLE VIDEO..` times every stage; `omni-sdk bench compare A B` compares two results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from omni_sdk.cli import common
from omni_sdk.cli.options import declare_pipeline, read_pipeline

if TYPE_CHECKING:
    from omni_sdk.bundle.bundle import Bundle

COMPARE = "compare"


def declare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="TARGET",
        help="BUNDLE VIDEO.. to measure, or: compare A.json B.json (a bundle of that name: ./compare)",
    )
    parser.add_argument("--query", help="the question put to every video (needed to measure)")
    parser.add_argument("--runs", type=int, default=5, help="timed calls per video")
    parser.add_argument(
        "--warm-up", type=int, default=1, help="untimed calls per video before them"
    )
    parser.add_argument(
        "--json", type=common.output_file, help="write every run's numbers to this file"
    )
    declare_pipeline(parser, only=("num_frames", "audio", "overlap", "encode_ahead"))
    common.declare_loading(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from omni_sdk.errors import PromptError

    targets: list[str] = arguments.targets
    if targets[0] == COMPARE:
        if len(targets) != 3:
            raise PromptError(f"compare needs two result files, got {len(targets) - 1}")
        return _compare(Path(targets[1]), Path(targets[2]))
    if len(targets) < 2 or not arguments.query:
        raise PromptError("expected BUNDLE VIDEO.. --query QUESTION, or: compare A.json B.json")
    return _measure(arguments, targets[0], targets[1:])


def _measure(arguments: argparse.Namespace, name: str, videos: list[str]) -> int:
    from omni_sdk.bench.measure import Case, measure
    from omni_sdk.bench.report import SettingsReport, write_report
    from omni_sdk.bench.tables import report_text
    from omni_sdk.bundle.bundle import Bundle
    from omni_sdk.bundle.hub import resolve
    from omni_sdk.errors import PromptError

    if arguments.runs < 1 or arguments.warm_up < 0:
        raise PromptError("--runs must be at least 1 and --warm-up at least 0")
    config = read_pipeline(arguments)
    arguments.bundle = resolve(name)
    pipeline = common.load_pipeline(arguments)
    budget = common.read_models(arguments).memory_budget
    bundle = Bundle.open(arguments.bundle).with_variants(*pipeline.bundle.variants)
    settings = SettingsReport(
        arguments.warm_up,
        arguments.runs,
        config.sampling.audio,
        config.sampling.num_frames,
        overlap=config.overlap,
        encode_ahead=config.tracking.encode_ahead,
        memory_budget=None if budget is None else str(budget),
    )
    report = measure(
        pipeline,
        [Case(video, arguments.query) for video in videos],
        settings,
        precision=_precision(bundle),
        progress=common.say,
    )
    if arguments.json is not None:
        write_report(report, arguments.json)
    print(report_text(report))
    return 0


def _compare(a: Path, b: Path) -> int:
    from omni_sdk.bench.compare import compare
    from omni_sdk.bench.report import read_report
    from omni_sdk.bench.tables import comparison_text

    print(comparison_text(compare(read_report(a), read_report(b))))
    return 0


def _precision(bundle: Bundle) -> dict[str, str]:
    return {name: graph.precision for name, graph in bundle.manifest.graphs.items()}
