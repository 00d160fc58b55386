"""Answering one expression: masks on disk in the official format, and a record of the answer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omni_sdk.datasets.predictions import prediction_path, write_prediction
from omni_sdk.datasets.records import Sample
from omni_sdk.errors import ModelOutputError, OmniError
from omni_sdk.evaluation.frame_folder import FrameFolder
from omni_sdk.evaluation.plan import Plan
from omni_sdk.evaluation.records import FAILED, KeyframeRecord, Record
from omni_sdk.evaluation.scoring import ScoredExpression, failed_sample, score_sample
from omni_sdk.pipeline import Pipeline
from omni_sdk.results import Result

MAX_RAW_TEXT = 4000


class Predictor:
    """Answers expressions by their position in the split.

    It holds nothing between calls but what it has loaded, and is pickled without that: a worker loads the
    models and the annotations in its own process, on its first call. The same position gives the same
    files and the same record, however often and wherever it is called.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._loaded: tuple[Pipeline, tuple[Sample, ...]] | None = None

    def __getstate__(self) -> Plan:
        return self.plan

    def __setstate__(self, plan: Plan) -> None:
        self.__init__(plan)  # type: ignore[misc]

    def __call__(self, index: int) -> Record:
        """Answer an expression, write its masks and score them.

        What fails with an `OmniError` leaves no prediction and scores 0; the record names the error.

        Args:
            index: position in `plan.samples()`.

        Raises:
            OmniError: the models or the data set's annotations cannot be read.
            OSError: the predictions cannot be written.
        """
        if self._loaded is None:
            self._loaded = self.plan.models.load(), self.plan.samples()
        pipeline, samples = self._loaded
        sample = samples[index]
        folder = prediction_path(self.plan.predictions, sample, 0).parent
        if folder.exists():  # of a run that was killed
            shutil.rmtree(folder)
        try:
            result = pipeline(
                FrameFolder(sample.video, self.plan.fps),
                sample.expression,
                config=self.plan.options.pipeline,
            )
        except OmniError as e:
            text = e.text[:MAX_RAW_TEXT] if isinstance(e, ModelOutputError) else ""
            scored = failed_sample(sample, f"{type(e).__name__}: {e}")
            return Record(scored, sample.expression, FAILED, answer=text)
        folder.mkdir(parents=True)
        for frame, mask in enumerate(merged_masks(result)):
            path = prediction_path(self.plan.predictions, sample, frame)
            write_prediction(path, mask, self.plan.object_value)
        return _record(result, sample, self.plan.predictions)


def merged_masks(result: Result) -> Iterator[NDArray[np.bool_]]:
    """Yield the masks of all objects of a result merged, (H, W) bool, for every frame in order."""
    from omni_sdk.dus.masks import rle_decode, rle_union

    size = result.video.height, result.video.width
    by_frame: list[list[bytes]] = [[] for _ in range(result.video.num_frames)]
    for track in result.tracks:
        for index, counts in zip(track.frame_indices, track.rles, strict=True):
            by_frame[int(index)].append(counts)
    for counts_of_frame in by_frame:
        if counts_of_frame:
            yield rle_decode(rle_union(counts_of_frame, size), size)
        else:
            yield np.zeros(size, np.bool_)


def _record(result: Result, sample: Sample, predictions: Path) -> Record:
    scored = (
        ScoredExpression(sample.video.video_id, sample.expression_id, sample.kind, None)
        if sample.masks is None
        else score_sample(sample, predictions)
    )
    keyframes = tuple(
        KeyframeRecord(
            float(k.start_seconds),
            float(k.end_seconds),
            int(k.frame_index),
            k.description,
            len(k.objects),
        )
        for k in result.keyframes
    )
    times = result.timings_ms
    return Record(
        scored,
        sample.expression,
        result.status,
        thinking=result.thinking,
        answer=result.answer,
        keyframes=keyframes,
        timings_ms={f.name: round(float(getattr(times, f.name)), 3) for f in fields(times)},
    )
