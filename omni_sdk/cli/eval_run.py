"""`omni-sdk eval run`: answer every expression of a split and score the answers."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from omni_sdk.cli import common
from omni_sdk.cli.eval_report import print_results, with_progress
from omni_sdk.cli.options import read_pipeline

if TYPE_CHECKING:
    from omni_sdk.evaluation.plan import Plan
    from omni_sdk.evaluation.report import Results
    from omni_sdk.evaluation.runner import Evaluation, Executor


def run(arguments: argparse.Namespace) -> int:
    """Answer what is left of a split or shard, and write the results when all is done."""
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
    for _ in with_progress(rows, left):
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
    from omni_sdk.evaluation.plan import DEFAULT_SPLITS, Models, Options, Plan

    models = common.read_models(arguments)
    # Workers that took every core each would slow one another down.
    threads = None if arguments.ray is None else max(1, math.ceil(arguments.ray_cpus))
    return Plan(
        arguments.dataset,
        str(Path(arguments.root).absolute()),
        arguments.split or DEFAULT_SPLITS[arguments.dataset],
        str(arguments.out.absolute()),
        Models(arguments.bundle, replace(models, threads=models.threads or threads)),
        Options(arguments.fps, read_pipeline(arguments), arguments.values),
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
    print_results(results)
    print(f"predictions, results.json and report.html are in {out}/")
