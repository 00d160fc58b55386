"""`omni-sdk eval score`: anyone's predictions, by the data sets' own measures."""

from __future__ import annotations

import argparse
from pathlib import Path

from omni_sdk.cli.eval_report import print_results, with_progress
from omni_sdk.utils.text import table


def score(arguments: argparse.Namespace) -> int:
    """Score a folder of predictions."""
    from omni_sdk.errors import DatasetError
    from omni_sdk.evaluation.html import write_html
    from omni_sdk.evaluation.plan import DEFAULT_SPLITS, read_samples
    from omni_sdk.evaluation.report import from_scores
    from omni_sdk.evaluation.scoring import score_predictions

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
    results = from_scores(
        samples, list(with_progress(scores, len(samples))), predictions=predictions
    )
    if arguments.json is not None:
        results.save(arguments.json)
    if arguments.html is not None:
        write_html(results, arguments.html, samples=samples, predictions=Path(predictions))
    print_results(results)
    return 0


def score_davis(arguments: argparse.Namespace) -> int:
    """Score masks as DAVIS does."""
    from omni_sdk.errors import DatasetError
    from omni_sdk.evaluation.davis import davis_table, score_davis
    from omni_sdk.metrics.davis_tracks import summarise
    from omni_sdk.utils.files import write_json
    from omni_sdk.utils.schema import to_dict

    if arguments.html is not None or arguments.limit is not None:
        raise DatasetError("--html and --limit are not for davis2017")
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
