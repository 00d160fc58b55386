"""Scoring label maps on DAVIS 2017, both tracks, as davis2017-evaluation does.

Predictions are <root>/<sequence>/<frame>.png, grey or indexed by object. The official program ends on the
first file that is missing or does not fit; so does this, with a message that names it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omni_sdk.datasets import images
from omni_sdk.datasets.davis import DavisSequence, open_davis
from omni_sdk.errors import DatasetError
from omni_sdk.evaluation.scoring import cpus
from omni_sdk.metrics.davis_tracks import (
    DavisSummary,
    SequenceScores,
    score_semisupervised,
    score_unsupervised,
)


def score_davis(
    root: str,
    predictions: str,
    *,
    split: str = "val",
    unsupervised: bool = False,
    jobs: int | None = None,
) -> Iterator[tuple[str, SequenceScores]]:
    """Yield (name, scores) of every sequence of a split, in its order; see `davis_tracks.summarise`.

    Args:
        root: the folder `DAVIS`.
        predictions: folder of <sequence>/<frame>.png.
        split: one with annotations: "train" or "val".
        unsupervised: objects had to be found: labels are assigned, and all frames count.
        jobs: processes; None: one per CPU.

    Raises:
        ValueError: the split is unknown.
        DatasetError: annotations or predictions are missing or do not fit each other.
    """
    sequences = open_davis(root, split, unsupervised=unsupervised)
    score = partial(_score, predictions, unsupervised)
    names = [sequence.video.video_id for sequence in sequences]
    jobs = min(cpus() if jobs is None else jobs, len(sequences))
    if jobs <= 1:
        yield from zip(names, map(score, sequences), strict=True)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from zip(names, pool.map(score, sequences), strict=True)


def davis_table(summary: DavisSummary) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the head and the row of the benchmark's table, in percent."""
    head = ("objects", "J&F", "J", "J recall", "J decay", "F", "F recall", "F decay")
    parts = [(s.mean, s.recall, s.decay) for s in (summary.j, summary.f)]
    values = (summary.jf_mean, *parts[0], *parts[1])
    return head, [(str(summary.num_objects), *(f"{100 * value:.2f}" for value in values))]


def _score(predictions: str, unsupervised: bool, sequence: DavisSequence) -> SequenceScores:
    name, frames = sequence.video.video_id, range(len(sequence.video))
    if len(sequence.annotation_paths) != len(sequence.video):
        raise DatasetError(
            f"{name}: expected a label map of each of {len(sequence.video)} frames, found "
            f"{len(sequence.annotation_paths)}; this split cannot be scored here"
        )
    truth = [sequence.labels_at(k) for k in frames]
    folder = Path(predictions) / name
    found: list[NDArray[np.uint8]] = []
    for k in frames:
        # The first and last frame of the semi-supervised track do not count, and may be left out.
        path = folder / f"{sequence.video.frame_names[k]}.png"
        if not unsupervised and k in (0, frames[-1]) and not path.is_file():
            found.append(np.zeros_like(truth[k]))
        else:
            found.append(images.read_labels(path))
    try:
        return (score_unsupervised if unsupervised else score_semisupervised)(found, truth)
    except DatasetError as e:
        raise DatasetError(f"{name}: {e}") from e
