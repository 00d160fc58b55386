"""The presets as TRL reward functions: one column each for format, R_K, R_A and R_G.

TRL calls asynchronous functions of one step together, so the four share one scoring of the batch. A rollout
that cannot be scored (its sample was skipped, or its reward job failed twice) has None in *all* columns: TRL
then leaves it out of its group's mean and gives it no advantage. None in one column only would count as a
reward of 0 there and drag the rollout down.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from omni_sdk.errors import OmniError

from omni_training.data.samples import SampleGuard
from omni_training.rewards.jobs import DusScores, RewardBackend, RewardJob
from omni_training.rewards.preset import RewardPreset, needs_dus, total
from omni_training.rewards.scores import Rewards, TextScores

RewardFunction = Callable[..., Coroutine[Any, Any, list[float | None]]]
COLUMNS = ("format", "r_k", "r_a", "r_g")
_ZERO_STD = 1e-6
_MIN_JOBS = 64
"""Jobs after which the share of failed ones is checked."""


class RewardsFailedError(OmniError, RuntimeError):
    """More than the stated share of the reward jobs failed: a run would train on what is left."""


class RewardSuite:
    """Scores batches of completions and reports every part of every reward."""

    def __init__(
        self,
        preset: RewardPreset,
        samples: SampleGuard,
        backend: RewardBackend | None,
        *,
        max_failed_share: float = 1.0,
    ) -> None:
        """Bind a preset to data and workers.

        Args:
            preset: how to pay.
            samples: truth and clock of each sample.
            backend: runs the detail system; None where the preset pays neither boxes nor masks.
            max_failed_share: go on while at most this share of the jobs so far has failed, [0, 1].

        Raises:
            ValueError: the preset needs a backend and there is none.
        """
        if needs_dus(preset) and backend is None:
            raise ValueError(
                "alpha_a or alpha_g is not 0: boxes and masks need a reward backend; found none"
            )
        self.preset = preset
        self._samples = samples
        self._backend = backend
        self._max_failed_share = max_failed_share
        self._jobs = self._failed_jobs = 0
        self._batch: tuple[object, asyncio.Task[list[Rewards | None]]] | None = None

    @property
    def weights(self) -> list[float]:
        """`reward_weights` for GRPOConfig."""
        return list(self.preset.column_weights)

    def functions(self) -> list[RewardFunction]:
        """Return TRL's reward functions, in the order of `COLUMNS`."""
        return [self._column(name) for name in COLUMNS]

    async def score(
        self, texts: Sequence[str], sample_ids: Sequence[str], num_tokens: Sequence[int]
    ) -> list[Rewards | None]:
        """Score completions.

        Args:
            texts: completions without special tokens.
            sample_ids: the sample of each.
            num_tokens: tokens of each.

        Raises:
            RewardsFailedError: more than the stated share of the jobs so far has failed.
        """
        scored = [self._text(text, s) for text, s in zip(texts, sample_ids, strict=True)]
        jobs = {
            i: RewardJob(
                sample_id=sample_ids[i],
                clip_id=self._samples.clip_id(sample_ids[i]),
                points=scores.points,
                masks=self.preset.alpha_g != 0 and self._moments(sample_ids[i]),
                preset=self.preset.name,
            )
            for i, scores in enumerate(scored)
            if scores is not None and scores.points and needs_dus(self.preset)
        }
        replies = dict.fromkeys(jobs, None)
        if self._backend is not None and jobs:
            replies = dict(zip(jobs, await self._backend.score(list(jobs.values())), strict=True))
            self._check_failures(list(replies.values()))
        rewards: list[Rewards | None] = []
        for i, scores in enumerate(scored):
            if scores is None or (i in jobs and replies[i] is None):
                rewards.append(None)
                continue
            truth = self._samples.truth(sample_ids[i])
            rewards.append(self.preset.combine(scores, replies.get(i), truth))
        return self._compared(rewards, sample_ids, num_tokens)

    def metrics(
        self, rewards: Sequence[Rewards | None], sample_ids: Sequence[str]
    ) -> dict[str, float]:
        """Return the batch's figures for the log.

        "part/NAME": mean of each part; "zero_variance_groups/COLUMN": groups (of this process) whose
        rollouts all have the same reward there, and thus teach nothing; "unscored", "skipped" and
        "failed_jobs": rollouts without a reward, and why.
        """
        known = [r for r in rewards if r is not None]
        names = sorted({name for r in known for name in r.parts})
        figures = {
            f"part/{name}": sum(r.parts.get(name, 0.0) for r in known) / len(known)
            for name in names
        }
        groups: dict[str, list[Rewards]] = defaultdict(list)
        for reward, sample_id in zip(rewards, sample_ids, strict=True):
            if reward is not None:
                groups[sample_id].append(reward)
        for name in (*COLUMNS, "total"):
            flat = sum(_flat([self._value(r, name) for r in group]) for group in groups.values())
            figures[f"zero_variance_groups/{name}"] = float(flat)
        skipped = sum(s in self._samples.failed for s in sample_ids)
        unscored = len(rewards) - len(known)
        figures |= {
            "rollouts/unscored": float(unscored),
            "rollouts/skipped": float(skipped),
            "rollouts/failed_jobs": float(unscored - skipped),
        }
        return figures

    def _check_failures(self, replies: Sequence[DusScores | None]) -> None:
        self._jobs += len(replies)
        self._failed_jobs += sum(reply is None for reply in replies)
        if self._jobs >= _MIN_JOBS and self._failed_jobs > self._max_failed_share * self._jobs:
            raise RewardsFailedError(
                f"{self._failed_jobs} of {self._jobs} reward jobs failed, more than the allowed share "
                f"{self._max_failed_share:g} (workers.max_failed_share); the warnings above tell why"
            )

    def _text(self, text: str, sample_id: str) -> TextScores | None:
        if sample_id in self._samples.failed:
            return None
        truth, clock = self._samples.truth(sample_id), self._samples.clock(sample_id)
        return self.preset.score_text(text, truth, clock)

    def _moments(self, sample_id: str) -> bool:
        """Whether a sample is about a clip; answers about one image are not propagated."""
        return self._samples.truth(sample_id).answer == "moments"

    def _value(self, reward: Rewards, name: str) -> float:
        value: float = total(reward, self.preset) if name == "total" else getattr(reward, name)
        return value

    def _compared(
        self,
        rewards: list[Rewards | None],
        sample_ids: Sequence[str],
        num_tokens: Sequence[int],
    ) -> list[Rewards | None]:
        """Pay what the preset pays by comparison; groups are those of this process."""
        groups: dict[str, list[tuple[int, Rewards]]] = defaultdict(list)
        for i, (reward, sample_id) in enumerate(zip(rewards, sample_ids, strict=True)):
            if reward is not None:
                groups[sample_id].append((i, reward))
        paid = list(rewards)
        for group in groups.values():
            rows = [i for i, _ in group]
            compared = self.preset.compare([r for _, r in group], [num_tokens[i] for i in rows])
            for i, reward in zip(rows, compared, strict=True):
                paid[i] = reward
        return paid

    def _column(self, name: str) -> RewardFunction:
        async def column(
            completions: list[Any],
            completion_ids: list[list[int]],
            sample_id: list[str],
            log_metric: Callable[[str, float], None],
            log_extra: Callable[[str, list[Any]], None],
            **_: Any,
        ) -> list[float | None]:
            # The list that TRL hands to all functions of a step is the key of that step.
            if self._batch is None or self._batch[0] is not completions:
                texts = [_content(c) for c in completions]
                lengths = [len(ids) for ids in completion_ids]
                work = self._scored_and_logged(texts, sample_id, lengths, log_metric, log_extra)
                self._batch = (completions, asyncio.ensure_future(work))
            rewards = await self._batch[1]
            return [None if r is None else float(getattr(r, name)) for r in rewards]

        column.__name__ = name
        return column

    async def _scored_and_logged(
        self,
        texts: list[str],
        sample_ids: list[str],
        num_tokens: list[int],
        log_metric: Callable[[str, float], None],
        log_extra: Callable[[str, list[Any]], None],
    ) -> list[Rewards | None]:
        rewards = await self.score(texts, sample_ids, num_tokens)
        for name, value in self.metrics(rewards, sample_ids).items():
            log_metric(name, value)
        log_extra("sample_id", list(sample_ids))
        return rewards


def _content(completion: str | Sequence[Mapping[str, str]]) -> str:
    return completion if isinstance(completion, str) else completion[0]["content"]


def _flat(values: Sequence[float]) -> bool:
    return len(values) > 1 and max(values) - min(values) < _ZERO_STD
