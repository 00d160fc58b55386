"""Going through a split: what is done is skipped, what is left is answered, in shards and after kills."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from omni_sdk.datasets.predictions import prediction_path
from omni_sdk.datasets.records import Sample
from omni_sdk.errors import DatasetError
from omni_sdk.evaluation.plan import Plan
from omni_sdk.evaluation.predictor import Predictor
from omni_sdk.evaluation.records import FAILED, Key, Record, RecordLog, read_records
from omni_sdk.utils.files import write_json

Executor = Callable[[Plan, Sequence[int]], Iterator[Record]]
"""Answers expressions, given by their positions in the split, and yields the records in any order."""


def predict_here(plan: Plan, indices: Sequence[int]) -> Iterator[Record]:
    """Answer expressions one after the other in this process."""
    predictor = Predictor(plan)
    return (predictor(index) for index in indices)


class Evaluation:
    """A run over a split, or over a shard of it, in the folder `plan.out`.

    The folder holds run.json (what the run is), predictions/ (official format), records/ (one file per
    shard) and, once all is done, results.json and report.html.

    Attributes:
        plan: what is run.
        samples: of the split, up to the limit.
        todo: positions of this shard's expressions that were not done when this object was made.
        num_mine: expressions of this shard.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        shard: tuple[int, int] = (0, 1),
        limit: int | None = None,
        retry_failed: bool = False,
    ) -> None:
        """Find out what is left to do.

        Args:
            plan: what to run.
            shard: (i, n): every n-th expression from the i-th on, i in [0, n).
            limit: the first so many expressions of the split only; None: all.
            retry_failed: do failed expressions again.

        Raises:
            ValueError: a shard or limit out of range.
            DatasetError: the data set cannot be read, or `plan.out` holds a run that is another one.
        """
        position, count = shard
        if not 0 <= position < count:
            raise ValueError(f"expected a shard i/n with 0 <= i < n, got {position}/{count}")
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1 or None, got {limit}")
        self.plan = plan
        self._shard = f"{position}-of-{count}"
        self.samples: tuple[Sample, ...] = plan.samples()[:limit]
        if not self.samples:
            raise DatasetError(f"{plan.dataset} {plan.split}: expected an expression, found none")
        self._claim()
        found = read_records(self.records_folder)
        mine = range(position, len(self.samples), count)
        self.todo = [k for k in mine if not self._is_done(self.samples[k], found, retry_failed)]
        self.num_mine = len(mine)

    @property
    def records_folder(self) -> Path:
        """Folder of the records."""
        return Path(self.plan.out) / "records"

    def run(self, executor: Executor = predict_here) -> Iterator[Record]:
        """Answer what is left, yielding each record once it is safely written."""
        with closing(RecordLog(self.records_folder / f"{self._shard}.jsonl")) as log:
            for record in executor(self.plan, self.todo):
                log.append(record)
                yield record

    def records(self) -> list[Record | None]:
        """Return the record of each sample, whichever shard made it; None where it is not done yet."""
        found = read_records(self.records_folder)
        return [found.get(_key(sample)) for sample in self.samples]

    def _is_done(self, sample: Sample, found: dict[Key, Record], retry_failed: bool) -> bool:
        """Say whether there is a record with all its files, which may have been moved or lost since."""
        record = found.get(_key(sample))
        if record is None:
            return False
        if record.status == FAILED:
            return not retry_failed
        folder = prediction_path(self.plan.predictions, sample, 0).parent
        present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        return present.issuperset(f"{name}.png" for name in sample.video.frame_names)

    def _claim(self) -> None:
        """Make the folder this run's, or see that it is already."""
        path = Path(self.plan.out) / "run.json"
        identity = self.plan.identity()
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            write_json(path, identity)
            return
        except ValueError as e:
            raise DatasetError(f"{path}: not valid JSON ({e}); choose another folder") from e
        if found != identity:
            raise DatasetError(
                f"{path.parent} holds another run: {_first_difference(found, identity)}; choose another "
                "folder, or run with the same settings to go on"
            )


def _key(sample: Sample) -> Key:
    return sample.video.video_id, sample.expression_id


def _first_difference(found: Any, wanted: Any, where: str = "") -> str:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in (*wanted, *found):
            a, b = found.get(name), wanted.get(name)
            if a != b:
                return _first_difference(a, b, f"{where}.{name}" if where else name)
    return f"its {where or 'settings'} is {found!r}, now {wanted!r}"
