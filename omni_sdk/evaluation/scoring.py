"""Scoring a folder of predictions, anyone's, as the official evaluators do: what is missing or broken is 0.

An expression is scored from its files alone, so that a run's own scores and those of `omni-sdk eval score`
are the same numbers from the same code.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omni_sdk.datasets import refavs as refavs_layout
from omni_sdk.datasets import revos as revos_layout
from omni_sdk.datasets.predictions import read_predictions
from omni_sdk.datasets.records import Sample
from omni_sdk.errors import DatasetError, LimitError
from omni_sdk.evaluation.plan import read_samples
from omni_sdk.metrics import expressions, mevis, refavs, revos
from omni_sdk.metrics.expressions import ExpressionScore
from omni_sdk.metrics.refavs import RefavsScore, RefavsSummary
from omni_sdk.metrics.revos import RevosScore, RevosSummary

Score = ExpressionScore | RevosScore | RefavsScore
Summary = mevis.MevisSummary | RevosSummary | RefavsSummary
Mask = NDArray[np.bool_]


class PredictionError(DatasetError):
    """A prediction is missing, damaged or of another size; the expression scores 0."""


@dataclass(frozen=True, slots=True)
class ScoredExpression:
    """One expression's score.

    Attributes:
        video_id: as in the data set.
        expression_id: as in the data set (see `omni_sdk.evaluation.plan.read_samples`).
        kind: "referring", "reasoning", "no_target" or "".
        score: J, F and what else the data set's evaluator computes; None where its split has no masks.
        error: why it counts as 0; "" where it was scored.
    """

    video_id: str
    expression_id: str
    kind: str
    score: Score | None
    error: str = ""


def score_sample(sample: Sample, predictions: str | os.PathLike[str]) -> ScoredExpression:
    """Score one expression from its prediction files.

    Args:
        sample: with masks.
        predictions: root of <video>/<expression>/<frame>.png, anything but black being the object.

    Raises:
        DatasetError: the data set's own masks are missing, malformed or do not fit each other.
    """
    video, expression = sample.video.video_id, sample.expression_id
    try:
        score, error = _score(sample, Path(predictions)), ""
    except PredictionError as e:
        score, error = zero_score(sample), str(e)
    return ScoredExpression(video, expression, sample.kind, score, error)


def failed_sample(sample: Sample, error: str) -> ScoredExpression:
    """Return the score of an expression without an answer: 0, or None where the split has no masks."""
    score = None if sample.masks is None else zero_score(sample)
    return ScoredExpression(sample.video.video_id, sample.expression_id, sample.kind, score, error)


def zero_score(sample: Sample) -> Score:
    """Return the score of an expression without a prediction (S of Ref-AVS, where 0 is best, is 1)."""
    count = len(sample.video)
    if sample.dataset == refavs_layout.NAME:
        return RefavsScore(0.0, 0.0, 0.0, 1.0, 0.0, 0.0, count)
    if sample.dataset == revos_layout.NAME:
        return revos.missing_expression(count, type_id=_revos_type(sample))
    return expressions.missing_expression(count)


def quality(row: ScoredExpression) -> float:
    """Return the one number, [0, 1], that clips are compared by: J&F (Ref-AVS: its own J and F).

    Where Ref-AVS has no target its F is always 0, and J, the share of pixels left alone, stands for both.

    Raises:
        ValueError: the split has no masks, and so the row no score.
    """
    score = row.score
    if score is None:
        raise ValueError(f"{row.video_id}/{row.expression_id} has no score")
    if not isinstance(score, RefavsScore):
        return score.jf
    return score.j if row.kind == "no_target" else (score.j + score.f) / 2


def summarise(dataset: str, rows: Sequence[ScoredExpression]) -> Summary | None:
    """Average as the data set's evaluator does; None where there is no score.

    Raises:
        DatasetError: there is no expression.
    """
    scores = [row.score for row in rows if row.score is not None]
    if rows and not scores:
        return None
    if dataset == refavs_layout.NAME:
        return refavs.summarise(s for s in scores if isinstance(s, RefavsScore))
    if dataset == revos_layout.NAME:
        return revos.summarise(s for s in scores if isinstance(s, RevosScore))
    return mevis.summarise(s for s in scores if isinstance(s, ExpressionScore))


def score_predictions(
    dataset: str,
    root: str,
    *,
    split: str,
    predictions: str,
    jobs: int | None = None,
    limit: int | None = None,
) -> Iterator[ScoredExpression]:
    """Yield the score of every expression of a split, in the split's order, whatever the number of jobs.

    Args:
        dataset: a key of `omni_sdk.datasets.SPLITS`.
        root: the data set's folder.
        split: as the data set names it; it must have masks.
        predictions: root of <video>/<expression>/<frame>.png.
        jobs: processes; None: one per CPU. Each reads the annotations.
        limit: the first so many expressions only; None: all.

    Raises:
        DatasetError: the data set or the folder of predictions is not there, or the data set's own masks
            are missing or malformed.
    """
    if not Path(predictions).is_dir():
        raise DatasetError(f"{predictions}: expected the folder of predictions, found none")
    samples = read_samples(dataset, root, split=split)[:limit]
    jobs = min(cpus() if jobs is None else jobs, len(samples))
    if jobs <= 1:
        yield from (score_sample(sample, predictions) for sample in samples)
        return
    with ProcessPoolExecutor(
        jobs,
        # Spawned: a fork of a process with an engine's threads may hang.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(dataset, root, split, predictions),
    ) as pool:
        chunk = max(1, min(16, len(samples) // (4 * jobs)))
        yield from pool.map(_score_in_worker, range(len(samples)), chunksize=chunk)


def unknown_predictions(samples: Sequence[Sample], predictions: str) -> list[str]:
    """Return the folders of predictions that belong to none of the samples, sorted."""
    root = Path(predictions)
    known = {sample.video.video_id for sample in samples}
    pairs = {f"{s.video.video_id}/{s.expression_id}" for s in samples}
    unknown = []
    for video in (path for path in root.iterdir() if path.is_dir()):
        if video.name not in known:
            unknown.append(video.name)
            continue
        inner = (f"{video.name}/{path.name}" for path in video.iterdir() if path.is_dir())
        unknown += [name for name in inner if name not in pairs]
    return sorted(unknown)


def _score(sample: Sample, root: Path) -> Score:
    frames = range(len(sample.video))
    truth = (sample.instances_at(k) for k in frames)
    found = _predictions(sample, root)
    if sample.dataset == refavs_layout.NAME:
        pairs = list(zip(found, truth, strict=True))
        return refavs.score_clip(
            np.stack([refavs.to_official_size(mask, truth=False) for mask, _ in pairs]),
            np.stack([refavs.to_official_size(mask, truth=True) for _, mask in pairs]),
        )
    if sample.dataset == revos_layout.NAME:
        around = None
        if sample.foreground is not None:
            around = (sample.foreground_at(k) for k in frames)
        kind = _revos_type(sample)
        return revos.score_expression(found, truth, type_id=kind, foreground=around)
    return expressions.score_expression(found, (np.not_equal(mask, 0) for mask in truth))


def _revos_type(sample: Sample) -> int:
    if sample.kind not in revos.KINDS:
        raise DatasetError(
            f"{sample.video.video_id}/{sample.expression_id}: expected a 'type_id', which ReVOS averages by"
        )
    return revos.KINDS.index(sample.kind)


def _predictions(sample: Sample, root: Path) -> Iterator[Mask]:
    """Yield the predicted masks of all frames.

    Raises:
        PredictionError: one is missing, damaged or not of the truth's size. The official scripts fail
            there, and give the expression 0.
    """
    size = sample.instances_at(0).shape
    try:
        for frame, mask in enumerate(read_predictions(root, sample)):
            if mask is None:
                raise PredictionError(_what_is_missing(sample, root, frame))
            if mask.shape != size:
                raise PredictionError(
                    f"frame {sample.video.frame_names[frame]}: expected {size[1]}x{size[0]} pixels, "
                    f"got {mask.shape[1]}x{mask.shape[0]}"
                )
            yield mask
    except (DatasetError, LimitError) as e:
        raise e if isinstance(e, PredictionError) else PredictionError(str(e)) from e


def _what_is_missing(sample: Sample, root: Path, frame: int) -> str:
    folder = root / sample.video.video_id / sample.expression_id
    if not folder.is_dir():
        return "no prediction"
    return f"no prediction of frame {sample.video.frame_names[frame]}"


def cpus() -> int:
    """Return how many CPUs this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


_worker: tuple[tuple[Sample, ...], str] | None = None


def _start_worker(dataset: str, root: str, split: str, predictions: str) -> None:
    global _worker
    _worker = read_samples(dataset, root, split=split), predictions


def _score_in_worker(index: int) -> ScoredExpression:
    assert _worker is not None
    return score_sample(_worker[0][index], _worker[1])
