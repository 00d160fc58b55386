"""Several data sets in one run, as published: videos with expressions, Ref-AVS and refCOCOg.

A batch holds prompts of one kind of task only (`sampler.GroupSampler`): the published code took the kind of
the whole batch from its first row. Here rewards are found row by row, so a mixed batch would be right too;
but images and clips differ tenfold in length, and padding them to each other wastes most of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omni_sdk.errors import DatasetError
from omni_sdk.grs.request import ThinkerRequest
from omni_sdk.media.clock import Clock

from omni_training.data.image_samples import (
    REFAVS,
    REFCOCOG,
    RefAvsSamples,
    open_refavs_samples,
    open_refcocog_samples,
)
from omni_training.data.prompts import open_model
from omni_training.data.samples import SampleStore
from omni_training.data.video_samples import VideoSamples, load_videos, open_videos
from omni_training.rewards.truth import ClipTruth
from omni_training.workers.scorer import ClipScorer, RewardClip

VIDEOS = "videos"
Source = dict[str, Any]


class MixedSamples:
    """`samples.GroupedStore` over stores; a sample belongs to the store that named it."""

    def __init__(self, parts: Sequence[tuple[list[str], str, SampleStore]]) -> None:
        """Join (sample ids, group, store) of each part; DatasetError if two name a sample alike."""
        self._owner: dict[str, tuple[str, SampleStore]] = {}
        for ids, group, store in parts:
            for name in ids:
                if name in self._owner:
                    raise DatasetError(f"two sources name a sample {name!r}")
                self._owner[name] = (group, store)

    @property
    def ids(self) -> list[str]:
        """Every sample, source by source."""
        return list(self._owner)

    def request(self, sample_id: str) -> ThinkerRequest:
        """Return the prompt with its media."""
        return self._store(sample_id).request(sample_id)

    def truth(self, sample_id: str) -> ClipTruth:
        """Return the true objects."""
        return self._store(sample_id).truth(sample_id)

    def clock(self, sample_id: str) -> Clock:
        """Return the clock of the prompt."""
        return self._store(sample_id).clock(sample_id)

    def clip_id(self, sample_id: str) -> str:
        """Return the clip that the sample is about."""
        return self._store(sample_id).clip_id(sample_id)

    def group(self, sample_id: str) -> str:
        """Return the kind of task."""
        return self._find(sample_id)[0]

    def _store(self, sample_id: str) -> SampleStore:
        return self._find(sample_id)[1]

    def _find(self, sample_id: str) -> tuple[str, SampleStore]:
        if sample_id not in self._owner:
            raise DatasetError(f"no sample {sample_id!r} among {len(self._owner)}")
        return self._owner[sample_id]


def mixed_samples(
    sources: Sequence[Source], *, model: str, seed: int = 0, prompt: str = "model", **options: Any
) -> tuple[list[str], MixedSamples]:
    """Make the samples of a run (a `data.factory`).

    Args:
        sources: {"dataset", "root", "split"} of each data set of videos; {"dataset": "refavs", "root"} with
            "split" and "count" if they differ from train and 1,600; {"dataset": "refcocog_2k_840", "root":
            the .jsonl or .parquet file}.
        model: checkpoint or bundle: it decides sizes and tokens.
        seed: of all draws.
        prompt: variant of the videos' prompts; see `prompts.template_of`.
        **options: of `video_samples.choose_visits`.

    Raises:
        DatasetError: a source or an option has a key that nothing reads; or as the readers say.
    """
    opened = open_model(model)
    parts: list[tuple[list[str], str, SampleStore]] = []
    videos = _videos(sources)
    if videos or options:
        visits = open_videos(videos, seed=seed, **options)
        parts.append((list(visits), VIDEOS, VideoSamples(visits, opened, prompt=prompt, seed=seed)))
    for source in sources:
        if source["dataset"] == REFAVS:
            given = _given(source, "split", "count")
            ids, store = open_refavs_samples(source["root"], opened, seed=seed, **given)
            parts.append((ids, REFAVS, store))
        elif source["dataset"] == REFCOCOG:
            _given(source)
            rows, images = open_refcocog_samples(source["root"], opened)
            parts.append((rows, REFCOCOG, images))
    mixed = MixedSamples(parts)
    return mixed.ids, mixed


def mixed_scorer(
    sources: Sequence[Source],
    *,
    bundle: str,
    seed: int = 0,
    max_clips: int = 2,
    cache_mb: int = 1024,
    **options: Any,
) -> ClipScorer:
    """Make a reward worker for the same samples (a `workers.factory`); arguments as for `mixed_samples`.

    Args:
        sources: as for `mixed_samples`; refCOCOg needs no worker and is left out.
        bundle: whose grounder and tracker judge.
        seed: as for `mixed_samples`.
        max_clips: clips whose masks are held.
        cache_mb: of tracker encodings held.
        **options: of `video_samples.choose_visits`.
    """
    from omni_training.data.world import open_detail

    grounder, tracker = open_detail(bundle, cache_mb << 20)
    visits = open_videos(_videos(sources), seed=seed, **options)
    rows: dict[str, RefAvsSamples] = {}
    for source in sources:
        if source["dataset"] == REFAVS:
            given = _given(source, "split", "count")
            ids, store = open_refavs_samples(source["root"], open_model(bundle), seed=seed, **given)
            rows |= dict.fromkeys(ids, store)

    load_video = load_videos(visits, tracker.image_size)

    def load(sample_id: str) -> RewardClip:
        if sample_id in rows:
            return rows[sample_id].reward_clip(sample_id, tracker.image_size)
        return load_video(sample_id)

    return ClipScorer(load, grounder, tracker, max_clips=max_clips)


def _videos(sources: Sequence[Source]) -> list[Source]:
    if nameless := [s for s in sources if not {"dataset", "root"} <= set(s)]:
        raise DatasetError(f"expected a source to name its dataset and root, got {nameless[0]}")
    return [s for s in sources if s["dataset"] not in (REFAVS, REFCOCOG)]


def _given(source: Source, *known: str) -> dict[str, Any]:
    """Return what a source says beyond its name and root; DatasetError for a key that nothing reads."""
    given = {k: v for k, v in source.items() if k not in ("dataset", "root")}
    if unknown := sorted(set(given) - set(known)):
        raise DatasetError(
            f"source {source['dataset']!r}: nothing reads {unknown}; known: {['dataset', 'root', *known]}"
        )
    return given
