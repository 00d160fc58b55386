"""The procedural world as training clips: exact masks, no files. For the nano run, tests and benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from omni_sdk.demo.render import object_map, render
from omni_sdk.demo.scene import Scene, make_scene
from omni_sdk.demo.world import DURATION_SECONDS, FAMILIES, STEP_SECONDS, STEPS
from omni_sdk.errors import DatasetError
from omni_sdk.media.clock import Clock
from omni_sdk.media.frame_source import ImageFrameSource
from omni_sdk.stages import Image

from omni_training.rewards.truth import ClipTruth
from omni_training.workers.encodings import CachedGraphs
from omni_training.workers.scorer import ClipScorer

ANY = "any"
"""Stands for a family in a sample's name: the family is drawn as the world does."""


def world_scene(sample_id: str) -> Scene:
    """Return the scene of a sample "FAMILY:SEED" (FAMILY may be "any").

    Raises:
        DatasetError: not such a name.
    """
    family, _, seed = sample_id.rpartition(":")
    if family not in (*FAMILIES, ANY) or not seed.isdecimal() or len(seed) > 18:
        raise DatasetError(
            f"expected a sample 'FAMILY:SEED' with a family of {', '.join(FAMILIES)}, {ANY}, "
            f"got {sample_id!r}"
        )
    return make_scene(int(seed), None if family == ANY else family)


def world_clock() -> Clock:
    """Return the clock of the 16 frames that a clip is sampled at; told and real seconds agree."""
    steps = np.arange(STEPS)
    return Clock(
        steps, (steps * STEP_SECONDS).astype(np.float64), DURATION_SECONDS, 1 / STEP_SECONDS
    )


class WorldClip:
    """`workers.scorer.RewardClip` over a scene: 16 frames, rendered when they are asked for."""

    def __init__(self, sample_id: str, *, size: int = 96, tracker_size: int = 96) -> None:
        """Render the truth.

        Args:
            sample_id: "FAMILY:SEED"; see `world_scene`.
            size: side in pixels of the frames that the grounder sees and of the masks.
            tracker_size: side in pixels of the frames that the tracker reads.
        """
        self.scene = world_scene(sample_id)
        self._size = (size, size)
        maps = np.stack(
            [object_map(self.scene, t * STEP_SECONDS, self._size) for t in range(STEPS)]
        )
        answers = self.scene.answers
        masks = np.stack([maps == index + 1 for index, _ in answers] or [np.zeros_like(maps, bool)])
        self._masks = np.logical_or.reduce(masks)
        spans = np.array([span for _, span in answers], np.float64) * STEP_SECONDS
        self.truth = ClipTruth.from_masks(
            masks[: len(answers)], spans if answers else None, num_moments=len(answers)
        )
        times = [t * STEP_SECONDS for t in range(STEPS)]
        self.frames = ImageFrameSource(
            lambda t, size: render(self.scene, times[t], size), times, self._size, tracker_size
        )

    def image(self, frame_index: int) -> Image:
        """Return the (size, size, 3) frame."""
        return render(self.scene, frame_index * STEP_SECONDS, self._size)

    def true_masks(self) -> dict[int, NDArray[np.bool_]]:
        """Return the union of the targets' masks on every frame."""
        return dict(enumerate(self._masks))


def world_scorer(
    bundle: str | None = None,
    *,
    size: int = 96,
    max_clips: int = 4,
    cache_mb: int = 256,
    threads: int | None = None,
) -> ClipScorer:
    """Make a reward worker for the world (a factory for `workers`).

    Args:
        bundle: whose grounder and tracker judge; None: jobs bring their boxes and ask for no masks.
        size: side in pixels of the grounder's frames and of the masks.
        max_clips: clips held.
        cache_mb: of tracker encodings held.
        threads: CPU threads of one operator of the bundle's graphs; None: the engine decides.
    """
    grounder: Any = None
    tracker: Any = None
    if bundle is not None:
        grounder, tracker = open_detail(bundle, cache_mb << 20, threads=threads)
    side = 96 if tracker is None else tracker.image_size
    return ClipScorer(
        lambda sample_id: WorldClip(sample_id, size=size, tracker_size=side),
        grounder,
        tracker,
        max_clips=max_clips,
    )


def open_detail(bundle: str, cache_bytes: int, *, threads: int | None = None) -> tuple[Any, Any]:
    """Return a bundle's grounder and its tracker, which remembers encodings.

    Raises:
        DatasetError: the bundle lacks one of them.
        OmniError: it cannot be loaded.
    """
    from omni_sdk import Pipeline

    pipeline = Pipeline.from_pretrained(bundle, threads=threads)
    if pipeline.tracker is None or pipeline.grounder is None:
        raise DatasetError(f"bundle {bundle!r} lacks a grounder or a tracker; rewards need both")
    return pipeline.grounder, share_encodings(pipeline.tracker, cache_bytes)


def share_encodings(tracker: Any, max_bytes: int) -> Any:
    """Return a tracker that encodes a frame once for all rollouts; others than SAM 2's come back as given."""
    from omni_sdk.dus.sam2.tracker import Sam2Tracker

    if not isinstance(tracker, Sam2Tracker):
        return tracker
    return tracker.with_graphs(CachedGraphs(tracker.graphs, max_bytes))
