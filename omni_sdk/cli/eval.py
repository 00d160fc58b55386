"""`omni-sdk eval`: run a benchmark, score anyone's predictions, check a data set's folder."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from omni_sdk.cli import common
from omni_sdk.utils.text import table

if TYPE_CHECKING:
    from omni_sdk.evaluation.plan import Plan
    from omni_sdk.evaluation.report import Results
    from omni_sdk.evaluation.runner import Evaluation, Executor
    from omni_sdk.evaluation.scoring import ScoredExpression

# Written out, so that `omni-sdk --help` need not import the readers; a test compares.
RUNNABLE = ("revos", "mevis", "ref-youtube-vos", "ref-davis17", "refavs")
DAVIS = "davis2017"
CHECKABLE = (*RUNNABLE, DAVIS, "refcocog_2k_840")
SECONDS_BETWEEN_LINES = 30.0


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
    score.add_argument("--json", type=Path, help="write the scores of every expression here")
    score.add_argument("--html", type=Path, help="write a page with the worst and best clips here")
    score.add_argument(
        "--unsupervised", action="store_true", help="davis2017: objects had to be found"
    )
    score.set_defaults(perform=_score)
    check = actions.add_parser("check", help="compare a data set's folders with its annotations")
    check.add_argument("dataset", choices=CHECKABLE)
    check.add_argument("root", help="the data set's folder (refcocog_2k_840: its file)")
    check.add_argument("--json", type=Path, help="also write the findings here")
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
        type=Path,
        help="folder for predictions, records and results; a run that was stopped goes on there",
    )
    _declare_selection(parser)
    parser.add_argument(
        "--shard", type=_shard, default=(0, 1), metavar="I/N", help="every N-th from the I-th on"
    )
    parser.add_argument("--retry-failed", action="store_true", help="do failed ones again")
    parser.add_argument("--fps", type=float, help="rate of the frames (default: the data set's)")
    parser.add_argument("--frames", type=_positive, help="frames shown to the reasoner")
    parser.add_argument("--no-audio", action="store_true", help="ignore the sound")
    parser.add_argument("--keyframes", type=_positive, default=4, help="grounded, at most")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--allow-unparsed",
        action="store_true",
        help="an unreadable answer becomes an empty mask (default: a failure, which scores 0)",
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
    parser.add_argument(
        "--threads",
        type=_positive,
        help="CPU threads of one operator (default: the engine's; with --ray, its CPUs)",
    )
    parser.add_argument("--ray", type=_positive, metavar="WORKERS", help="run on a Ray cluster")
    parser.add_argument("--ray-address", help="of a running cluster (default: start one here)")
    parser.add_argument("--ray-cpus", type=float, default=1, help="CPUs per worker")
    parser.add_argument("--ray-gpus", type=float, default=0, help="GPUs per worker")
    common.declare_model(parser)
    parser.set_defaults(perform=_run)


def _run(arguments: argparse.Namespace) -> int:
    from omni_sdk.errors import DatasetError
    from omni_sdk.evaluation.report import collect
    from omni_sdk.evaluation.runner import Evaluation

    try:
        plan = _plan(arguments)
        executor = _executor(arguments)
    except ValueError as e:
        raise DatasetError(str(e)) from e
    if plan.models.bundle == "nano":
        common.say(common.NANO_WARNING)
    evaluation = Evaluation(
        plan,
        shard=arguments.shard,
        limit=arguments.limit,
        retry_failed=arguments.retry_failed,
    )
    total, left = evaluation.num_mine, len(evaluation.todo)
    if left < total:
        common.say(f"{total - left} of {total} expressions were done before")
    rows = (record.scored for record in evaluation.run(executor))
    for _ in _progress(rows, left):
        pass
    results = collect(evaluation)
    if results is None:
        missing = sum(record is None for record in evaluation.records())
        print(
            f"this shard is done; {missing} of {len(evaluation.samples)} expressions are left to other "
            f"shards. When all are done, the same command writes the results."
        )
        return 0
    _finish(results, evaluation, arguments.clips)
    return 0


def _plan(arguments: argparse.Namespace) -> Plan:
    from omni_sdk.config import (
        GenerationConfig,
        ModelOptions,
        PipelineConfig,
        SamplingConfig,
        TrackingConfig,
    )
    from omni_sdk.evaluation.plan import DEFAULT_SPLITS, Models, Options, Plan

    return Plan(
        arguments.dataset,
        str(Path(arguments.root).absolute()),
        arguments.split or DEFAULT_SPLITS[arguments.dataset],
        str(arguments.out.absolute()),
        Models(
            arguments.bundle,
            ModelOptions(
                device=arguments.device,
                backend=arguments.backend,
                tracker=arguments.tracker,
                # Workers that took every core each would slow one another down.
                threads=arguments.threads
                or (arguments.ray and max(1, math.ceil(arguments.ray_cpus))),
            ),
        ),
        Options(
            arguments.fps,
            PipelineConfig(
                sampling=SamplingConfig(arguments.frames, not arguments.no_audio),
                generation=GenerationConfig(temperature=arguments.temperature, seed=arguments.seed),
                tracking=TrackingConfig(arguments.keyframes),
                on_parse_error="empty" if arguments.allow_unparsed else "raise",
            ),
            arguments.values,
        ),
    )


def _executor(arguments: argparse.Namespace) -> Executor:
    from omni_sdk.evaluation.ray_runner import RayExecutor
    from omni_sdk.evaluation.runner import predict_here

    if arguments.ray is None:
        return predict_here
    return RayExecutor(arguments.ray, arguments.ray_cpus, arguments.ray_gpus, arguments.ray_address)


def _finish(results: Results, evaluation: Evaluation, clips: int) -> None:
    from omni_sdk.evaluation.html import write_html
    from omni_sdk.evaluation.report import RESULTS

    out = Path(evaluation.plan.out)
    results.save(out / RESULTS)
    records = {r.key: r for r in evaluation.records() if r is not None}
    write_html(
        results,
        out / "report.html",
        samples=evaluation.samples,
        predictions=evaluation.plan.predictions,
        records=records,
        num_clips=clips,
    )
    _print(results)
    print(f"predictions, results.json and report.html are in {out}/")


def _score(arguments: argparse.Namespace) -> int:
    from omni_sdk.errors import DatasetError
    from omni_sdk.evaluation.html import write_html
    from omni_sdk.evaluation.plan import DEFAULT_SPLITS, read_samples
    from omni_sdk.evaluation.report import from_scores
    from omni_sdk.evaluation.scoring import score_predictions

    if arguments.dataset == DAVIS:
        return _score_davis(arguments)
    dataset, root, predictions = arguments.dataset, arguments.root, arguments.predictions
    split = arguments.split or DEFAULT_SPLITS[dataset]
    try:
        samples = read_samples(dataset, root, split=split)[: arguments.limit]
    except ValueError as e:
        raise DatasetError(str(e)) from e
    if not samples:
        raise DatasetError(f"{dataset} {split}: expected an expression, found none")
    scores = score_predictions(
        dataset,
        root,
        split=split,
        predictions=predictions,
        jobs=arguments.jobs,
        limit=arguments.limit,
    )
    results = from_scores(samples, list(_progress(scores, len(samples))), predictions=predictions)
    if arguments.json is not None:
        results.save(arguments.json)
    if arguments.html is not None:
        write_html(results, arguments.html, samples=samples, predictions=Path(predictions))
    _print(results)
    return 0


def _score_davis(arguments: argparse.Namespace) -> int:
    from omni_sdk.errors import DatasetError
    from omni_sdk.evaluation.davis import davis_table, score_davis
    from omni_sdk.metrics.davis_tracks import summarise
    from omni_sdk.utils.files import write_json
    from omni_sdk.utils.schema import to_dict

    if arguments.html is not None or arguments.limit is not None:
        raise DatasetError(f"--html and --limit are not for {DAVIS}")
    scores = score_davis(
        arguments.root,
        arguments.predictions,
        split=arguments.split or "val",
        unsupervised=arguments.unsupervised,
        jobs=arguments.jobs,
    )
    try:
        summary = summarise(dict(scores))
    except ValueError as e:
        raise e if isinstance(e, DatasetError) else DatasetError(str(e)) from e
    if arguments.json is not None:
        write_json(arguments.json, to_dict(summary), allow_nan=True)
    print(table(*davis_table(summary)))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    import json

    from omni_sdk.datasets import check

    report = check(arguments.root, arguments.dataset)
    print("\n".join(report.lines()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8")
    return 0 if report.ok else 1


def _print(results: Results) -> None:
    from omni_sdk.evaluation.report import failure_lines, summary_table

    print(f"{results.dataset} {results.split}, scores in percent (S: 0 is best)")
    print(table(*summary_table(results)))
    if results.failures:
        print(f"\n{len(results.failures)} of {len(results.rows)} failed and count as 0:")
        print("\n".join(f"  {line}" for line in failure_lines(results)))
    if results.unknown:
        print(f"\n{len(results.unknown)} folders of predictions belong to no expression, such as ")
        print("\n".join(f"  {name}" for name in results.unknown[:5]))


def _progress(rows: Iterable[ScoredExpression], total: int) -> Iterator[ScoredExpression]:
    """Yield rows and say on stderr, each tenth or half minute, how far it is and how it goes."""
    from omni_sdk.evaluation.scoring import quality

    started = said = time.monotonic()
    failed, scores = 0, []
    for done, row in enumerate(rows, 1):
        yield row
        failed += bool(row.error)
        scores += [] if row.score is None else [quality(row)]
        now = time.monotonic()
        if now - said < SECONDS_BETWEEN_LINES and done * 10 // total == (done - 1) * 10 // total:
            continue
        said, elapsed = now, now - started
        mean = f"J&F {sum(scores) / len(scores):.3f}, " if scores else ""
        common.say(
            f"{done}/{total} expressions, {mean}{failed} failed, {elapsed:.0f} s, about "
            f"{elapsed / done * (total - done):.0f} s left"
        )


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
