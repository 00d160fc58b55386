"""Scores in this process: the default, and what the other backends are compared with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from omni_training.rewards.jobs import BackendStats, DusScores, RewardJob
from omni_training.workers.scorer import ClipScorer

logger = logging.getLogger(__name__)


class LocalBackend:
    """One scorer, one job at a time, in a thread beside the caller's event loop."""

    def __init__(self, scorer: ClipScorer) -> None:
        """Wrap a scorer; the backend is its only user."""
        self.stats = BackendStats()
        self._scorer = scorer
        self._lock = asyncio.Lock()

    async def score(self, jobs: Sequence[RewardJob]) -> list[DusScores | None]:
        """Return the scores of each job, in order; None where one failed twice."""
        async with self._lock:
            return await asyncio.to_thread(lambda: [self._one(job) for job in jobs])

    def close(self) -> None:
        """Do nothing: the scorer belongs to the caller."""

    def _one(self, job: RewardJob) -> DusScores | None:
        self.stats.jobs += 1
        for attempt in range(2):
            try:
                return self._scorer.score(job)
            # A worker's boundary: whatever a model or a clip does to one job, the run goes on without it.
            except Exception as e:
                logger.warning("reward job for %r failed: %s", job.sample_id, e)
                self.stats.retried += attempt == 0
        self.stats.failed += 1
        return None
