"""The same evaluation on the workers of a Ray cluster (extra `ray`): one `Predictor` per actor.

Actors are used without Ray Data: an expression is an index of four bytes and its result a record, so there
is no data for Ray to move, and pyarrow is not needed. `plan.root` and `plan.out` must be reachable at the
same path from every node; the records are written by the caller's process alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from omni_sdk.errors import BackendUnavailableError, EngineError
from omni_sdk.evaluation.plan import Plan
from omni_sdk.evaluation.predictor import Predictor
from omni_sdk.evaluation.records import Record

MAX_RESTARTS = 3
IN_FLIGHT = 2
"""Expressions given to an actor at a time, so that it never waits for the next one."""


@dataclass(frozen=True, slots=True)
class RayExecutor:
    """An `omni_sdk.evaluation.runner.Executor`.

    Attributes:
        workers: actors, each with its own models.
        cpus: that an actor reserves; may be a fraction.
        gpus: that an actor reserves; may be a fraction.
        address: of a running cluster, "auto" for the one of this machine; None: start one here.
    """

    workers: int
    cpus: float = 1
    gpus: float = 0
    address: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")

    def __call__(self, plan: Plan, indices: Sequence[int]) -> Iterator[Record]:
        """Yield records as they are finished.

        An actor whose process dies is started again and its expressions are done again.

        Raises:
            BackendUnavailableError: ray is not installed.
            EngineError: an actor's process keeps dying.
            OmniError: what `Predictor` raises.
        """
        ray = _import_ray()
        started = not ray.is_initialized()
        if started:
            # Ray reports its use to its makers unless told not to; nothing here phones home.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            local = {"num_cpus": max(1, math.ceil(self.workers * self.cpus))}
            ray.init(
                address=self.address,
                log_to_driver=False,
                include_dashboard=False,
                **({} if self.address else local),
            )
        try:
            yield from self._run(ray, plan, indices)
        finally:
            if started:
                ray.shutdown()

    def _run(self, ray: Any, plan: Plan, indices: Sequence[int]) -> Iterator[Record]:
        from ray.exceptions import RayError, RayTaskError

        actor = ray.remote(Predictor).options(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_RESTARTS,
        )
        actors = [actor.remote(plan) for _ in range(min(self.workers, len(indices)))]
        left = iter(indices)
        running: dict[Any, Any] = {}

        def give(worker: Any) -> None:
            index = next(left, None)
            if index is not None:
                running[worker.__call__.remote(index)] = worker

        for worker in actors * IN_FLIGHT:
            give(worker)
        while running:
            (finished,), _ = ray.wait(list(running), num_returns=1)
            worker = running.pop(finished)
            try:
                record = ray.get(finished)
            except RayTaskError as e:
                # The predictor's own error, where Ray could carry it over.
                raise (e.cause if isinstance(e.cause, Exception) else e) from e
            except RayError as e:
                raise EngineError(
                    f"a Ray worker ended {MAX_RESTARTS + 1} times: {e}; what was done is kept, the same "
                    "command goes on from there"
                ) from e
            give(worker)
            yield record


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as e:
        raise BackendUnavailableError(
            "an evaluation on several workers needs ray: pip install 'omni-sdk[ray]'"
        ) from e
    return ray
