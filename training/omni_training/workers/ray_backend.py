"""Reward workers as Ray actors: one scorer per actor, jobs of one clip always to the same actor.

Jobs travel as JSON text and come back as a few numbers: no masks, no pickled objects of ours, no socket of
ours (Ray's own channels carry token authentication). An actor is told by "module:function" and JSON options
what to build.

Note [Failures]
    Ray's `max_task_retries` must stay 0: a request that kills its worker would be resent until every restart
    is used up and the actor is dead for good. Here a failed job is sent once more (to a fresh actor if the
    old one died or hung), then counted and given up: the rollout has no reward, the run goes on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import zlib
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any

from omni_sdk.errors import BackendUnavailableError

from omni_training.rewards.jobs import BackendStats, DusScores, RewardJob

logger = logging.getLogger(__name__)
_REMEMBERED_CLIPS = 256
"""Clips whose worker is remembered: more than the workers hold, so that no encoding is made twice."""


class _Worker:
    """The actor's body; runs in a worker process."""

    def __init__(self, factory: str, options: str) -> None:
        from omni_training.workers.scorer import build_scorer

        self._scorer = build_scorer(factory, json.loads(options))

    def ready(self) -> bool:
        return True

    def score(self, job: str) -> list[float | int | None]:
        scores = self._scorer.score(RewardJob.from_dict(json.loads(job)))
        return [scores.box, scores.mask, scores.mismatch, scores.num_boxes, scores.seconds]


class RayBackend:
    """A pool of reward actors."""

    def __init__(
        self,
        factory: str,
        options: dict[str, Any],
        *,
        num_workers: int = 1,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        timeout_seconds: float = 600.0,
        address: str | None = None,
    ) -> None:
        """Start the actors.

        Args:
            factory: "module:function" that makes a `ClipScorer`; importable on every host.
            options: its keyword arguments, JSON values.
            num_workers: actors, at least 1.
            num_cpus: of each actor.
            num_gpus: of each actor, e.g. 0.25.
            timeout_seconds: a job that takes longer counts as failed, and its actor is replaced; the actors
                may take as long to start.
            address: of a running cluster; None: a private one on this host, without dashboard.

        Raises:
            BackendUnavailableError: ray is not installed, or it or the actors do not start.
            ValueError: an option is out of range.
        """
        if num_workers < 1 or timeout_seconds <= 0:
            raise ValueError(f"expected {num_workers=} >= 1 and {timeout_seconds=} > 0")
        try:
            import ray
        except ImportError as e:
            raise BackendUnavailableError(
                'reward workers need ray: pip install "omni-sdk[ray]"'
            ) from e
        self.stats = BackendStats()
        self._ray = ray
        self._owned = not ray.is_initialized()
        if self._owned:
            local = {"_node_ip_address": "127.0.0.1"} if address is None else {"address": address}
            try:
                ray.init(include_dashboard=False, log_to_driver=False, **local)
            except Exception as e:  # Ray itself raises plain ones: a slow start, no such cluster
                raise BackendUnavailableError(f"ray does not start: {_last_line(e)}") from e
        self._actor = ray.remote(
            num_cpus=num_cpus, num_gpus=num_gpus, max_restarts=0, max_task_retries=0
        )(_Worker)
        self._arguments = (factory, json.dumps(options))
        self._timeout = self._start_timeout = timeout_seconds
        self._fresh: set[int] = set()
        self._homes: OrderedDict[str, int] = OrderedDict()
        self._workers = [self._start() for _ in range(num_workers)]
        try:
            ray.get([worker.ready.remote() for worker in self._workers], timeout=timeout_seconds)
        except (ray.exceptions.RayError, TimeoutError) as e:
            self.close()
            raise BackendUnavailableError(
                f"{num_workers} reward workers of {factory!r} do not start: {_last_line(e)}"
            ) from e

    async def score(self, jobs: Sequence[RewardJob]) -> list[DusScores | None]:
        """Return the scores of each job, in order; None where one failed twice."""
        found: list[DusScores | None] = [None] * len(jobs)
        queues: dict[int, list[int]] = {}
        for index, slot in enumerate(self._route([job.clip_id for job in jobs])):
            queues.setdefault(slot, []).append(index)

        async def serve(slot: int) -> None:
            for index in queues[slot]:
                found[index] = await self._one(jobs[index], slot)

        await asyncio.gather(*(serve(slot) for slot in queues))
        return found

    def close(self) -> None:
        """Stop the actors, and the private cluster; a second call does nothing."""
        for worker in self._workers:
            self._ray.kill(worker)
        self._workers = []
        if self._owned and self._ray.is_initialized():
            self._ray.shutdown()

    def _route(self, clip_ids: Sequence[str]) -> list[int]:
        """Return the worker of each job: its clip's while that is remembered, else the least busy one."""
        load = [0] * len(self._workers)
        counts = Counter(clip_ids)
        for clip in counts:
            if clip in self._homes:
                self._homes.move_to_end(clip)
                load[self._homes[clip]] += counts[clip]
        for clip in counts:
            if clip not in self._homes:
                # Clips that come one at a time must not all go to the first of idle workers.
                first = zlib.crc32(clip.encode())
                order = sorted(range(len(load)), key=lambda slot: (slot - first) % len(load))
                self._homes[clip] = min(order, key=lambda slot: load[slot])
                load[self._homes[clip]] += counts[clip]
        slots = [self._homes[clip] for clip in clip_ids]
        while len(self._homes) > _REMEMBERED_CLIPS:
            self._homes.popitem(last=False)
        return slots

    def _start(self) -> Any:
        return self._actor.remote(*self._arguments)

    async def _one(self, job: RewardJob, slot: int) -> DusScores | None:
        self.stats.jobs += 1
        text = json.dumps(job.to_dict())
        for attempt in range(2):
            worker = self._workers[slot]
            try:
                if slot in self._fresh:  # a job's time does not count how long models take to load
                    await asyncio.wait_for(worker.ready.remote(), self._start_timeout)
                    self._fresh.discard(slot)
                reply = await asyncio.wait_for(worker.score.remote(text), self._timeout)
                box, mask, mismatch, num_boxes, seconds = reply
                return DusScores(box, mask, mismatch, int(num_boxes), seconds)
            except (self._ray.exceptions.RayError, asyncio.TimeoutError) as e:
                logger.warning("reward job for %r failed: %s", job.sample_id, _last_line(e))
                self.stats.retried += attempt == 0
                if not isinstance(e, self._ray.exceptions.RayTaskError):
                    self._replace(slot, worker)
        self.stats.failed += 1
        return None

    def _replace(self, slot: int, dead: Any) -> None:
        """Put a fresh actor in place of a dead or hung one, once however many jobs noticed."""
        if self._workers[slot] is dead:
            self._ray.kill(dead)
            self._workers[slot] = self._start()
            self._fresh.add(slot)
            self.stats.replaced_workers += 1


def _last_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
