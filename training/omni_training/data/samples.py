"""Training samples: what the trainer and the rewards ask of data, and what happens to unreadable ones."""

from __future__ import annotations

import logging
from typing import Any, Protocol, runtime_checkable

from omni_sdk.errors import DatasetError, OmniError
from omni_sdk.grs.request import ThinkerRequest
from omni_sdk.media.clock import Clock

from omni_training.rewards.truth import ClipTruth

logger = logging.getLogger(__name__)

SAMPLE_ID = "sample_id"
"""Column of the training data set that names a sample; the media are read when the sample is used."""

GROUP = "group"
"""Column with the kind of task, where there are several."""


class SampleStore(Protocol):
    """Samples by id. Each method raises an `OmniError` for a sample whose files are missing or broken."""

    def request(self, sample_id: str) -> ThinkerRequest:
        """Return the prompt with its media."""

    def truth(self, sample_id: str) -> ClipTruth:
        """Return the true objects on the frames of that prompt."""

    def clock(self, sample_id: str) -> Clock:
        """Return the clock of those frames."""

    def clip_id(self, sample_id: str) -> str:
        """Return the clip that the sample is about."""


@runtime_checkable
class GroupedStore(SampleStore, Protocol):
    """A store of several kinds of task, which a batch does not mix."""

    def group(self, sample_id: str) -> str:
        """Return the kind of task of a sample, without reading it."""


class SampleGuard:
    """A store whose unreadable samples are reported, counted and skipped; too many stop the run.

    Nothing takes a skipped sample's place: its rollouts are text only, have no reward, and count in no
    loss (the batch keeps its shape, so that processes stay in step).

    Attributes:
        failed: skipped sample -> why.
    """

    def __init__(
        self,
        store: SampleStore,
        *,
        max_failed_share: float = 0.05,
        min_seen: int = 20,
        max_prompt_tokens: int = 32768,
    ) -> None:
        """Wrap a store.

        Args:
            store: the samples.
            max_failed_share: run on while at most this share of the distinct samples seen has failed, [0, 1].
            min_seen: distinct samples after which the share is checked; one bad file among the first
                few is no verdict. Whoever ends a run calls `check_share`, so that short ones are checked too.
            max_prompt_tokens: a longer prompt counts as unreadable; cut, its media would not fit its text.
        """
        if not 0 <= max_failed_share <= 1 or min_seen < 1:
            raise ValueError(
                f"expected max_failed_share in [0, 1] and min_seen >= 1, got {max_failed_share} and "
                f"{min_seen}"
            )
        self.failed: dict[str, str] = {}
        self._store = store
        self._max_share = max_failed_share
        self._min_seen = min_seen
        self._max_tokens = max_prompt_tokens
        self._seen: set[str] = set()

    def request(self, sample_id: str) -> ThinkerRequest | None:
        """Return the prompt, or None where the sample is unreadable.

        Truth and clock are read here too, so that a sample is either whole or skipped.

        Raises:
            DatasetError: more than the stated share of the samples seen so far has failed.
        """
        if sample_id in self.failed:
            return None
        self._seen.add(sample_id)
        try:
            request = self._store.request(sample_id)
            if len(request.input_ids) > self._max_tokens:
                raise DatasetError(
                    f"the prompt has {len(request.input_ids)} tokens, more than max_prompt_tokens="
                    f"{self._max_tokens}; show fewer frames"
                )
            truth, clock = self._store.truth(sample_id), self._store.clock(sample_id)
            if truth.num_frames != clock.num_frames:
                raise DatasetError(
                    f"truth has {truth.num_frames} frames, the clock {clock.num_frames}"
                )
        except (OmniError, OSError) as e:
            self.failed[sample_id] = str(e)
            logger.warning("sample %r is skipped: %s", sample_id, e)
            if len(self._seen) >= self._min_seen:
                self.check_share()
            return None
        return request

    def truth(self, sample_id: str) -> ClipTruth:
        """Return the true objects of a readable sample."""
        return self._store.truth(sample_id)

    def clock(self, sample_id: str) -> Clock:
        """Return the clock of a readable sample."""
        return self._store.clock(sample_id)

    def clip_id(self, sample_id: str) -> str:
        """Return the clip of a sample."""
        return self._store.clip_id(sample_id)

    def check_share(self) -> None:
        """Raise DatasetError if more than the stated share of the samples seen so far has failed."""
        seen, failed = len(self._seen), len(self.failed)
        if failed > self._max_share * seen:
            shown = "; ".join(f"{k}: {v}" for k, v in list(self.failed.items())[:3])
            raise DatasetError(
                f"{failed} of {seen} samples cannot be read, more than the allowed share "
                f"{self._max_share:g} (max_failed_share); run `omni-train check-data`. First: {shown}"
            )


def dataset_rows(sample_ids: list[str], store: SampleStore | None = None) -> list[dict[str, Any]]:
    """Return rows for TRL: an empty conversation, since the store makes the prompt, and the sample's id.

    Args:
        sample_ids: of the run.
        store: if it has groups, each row has its own in the column "group".
    """
    prompt = [{"role": "user", "content": ""}]
    rows: list[dict[str, Any]] = [{"prompt": prompt, SAMPLE_ID: name} for name in sample_ids]
    if isinstance(store, GroupedStore):
        rows = [row | {GROUP: store.group(row[SAMPLE_ID])} for row in rows]
    return rows
