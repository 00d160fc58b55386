"""The procedural world as training samples: prompts rendered from arrays, truth from the scene itself.

Same kind of store as `video_samples`, without files. Pictures are rendered at the reasoner's own size, where
the pipeline would resize a decoded frame to it; sound is the scene's at the model's sampling rate. A sample
is named "FAMILY:SEED", so a data set is a list of seeds and nothing is kept on a disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from omni_sdk.demo.render import render
from omni_sdk.demo.scene import Scene
from omni_sdk.demo.sound import waveform
from omni_sdk.demo.world import FAMILIES, STAGE, STEP_SECONDS, STEPS
from omni_sdk.errors import DatasetError
from omni_sdk.grs.processor import Processor
from omni_sdk.grs.request import ThinkerRequest
from omni_sdk.media.clock import Clock
from omni_sdk.stages import Observation

from omni_training.data.world import ANY, WorldClip, world_clock, world_scene
from omni_training.rewards.truth import ClipTruth

TRAINING_BASE = 20_000_000
"""First seed of samples for GRPO: past the held-out ones and those that the nano models are made from."""


class WorldSamples:
    """`samples.SampleStore` over seeds."""

    def __init__(self, processor: Processor, *, size: int = STAGE) -> None:
        """Keep what makes prompts.

        Args:
            processor: of the model.
            size: side in pixels of the pictures that truth (and the reward workers) refer to.
        """
        self._processor = processor
        self._size = size
        # Truth is asked for by every rollout of a group.
        self._truth = lru_cache(maxsize=64)(self._read_truth)

    def request(self, sample_id: str) -> ThinkerRequest:
        """Render the clip and make the prompt; DatasetError where the id names none."""
        scene = world_scene(sample_id)
        return self._processor.reason_request(observe_scene(scene, self._processor), scene.query)

    def truth(self, sample_id: str) -> ClipTruth:
        """Return the true object and span on the 16 frames."""
        return self._truth(sample_id)

    def clock(self, sample_id: str) -> Clock:
        """Return the clock of the 16 frames."""
        return world_clock()

    def clip_id(self, sample_id: str) -> str:
        """Return the sample itself: each has a clip of its own."""
        return sample_id

    def _read_truth(self, sample_id: str) -> ClipTruth:
        return WorldClip(sample_id, size=self._size).truth


def observe_scene(scene: Scene, processor: Processor) -> Observation:
    """Show a scene to a reasoner: 16 frames at 2 fps at its own size, and the sound."""
    size = processor.frame_size(STAGE, STAGE)
    frames = np.stack([render(scene, t * STEP_SECONDS, size) for t in range(STEPS)])
    sound = waveform(scene, processor.spec.audio.sampling_rate)
    return Observation(frames, world_clock(), sound)


def training_ids(count: int, *, first: int = 0, families: Sequence[str] = (ANY,)) -> list[str]:
    """Return `count` samples from seed `TRAINING_BASE + first` on, families taking turns.

    Args:
        count: how many, at least 1.
        first: offset of the first seed, not negative.
        families: of `FAMILIES`, or "any", which draws the family as the world does.

    Raises:
        DatasetError: unknown family, or a number out of range.
    """
    known = (*FAMILIES, ANY)
    if not families or any(f not in known for f in families):
        raise DatasetError(f"expected families of {', '.join(known)}, got {tuple(families)}")
    if count < 1 or first < 0:
        raise DatasetError(f"expected count >= 1 and first >= 0, got {count} and {first}")
    start = TRAINING_BASE + first
    return [f"{families[i % len(families)]}:{start + i}" for i in range(count)]


def world_samples(
    model: str,
    *,
    count: int,
    first: int = 0,
    families: Sequence[str] = (ANY,),
    size: int = STAGE,
) -> tuple[list[str], WorldSamples]:
    """Make the samples of a run (a `data.factory`).

    Args:
        model: directory of the thinker's checkpoint, or a bundle: it decides sizes and prompt.
        count: as for `training_ids`, likewise the next two.
        first: offset of the first seed.
        families: which take turns.
        size: side in pixels of the pictures that the reward workers see.
    """
    from omni_training.data.video_samples import open_processor

    ids = training_ids(count, first=first, families=families)
    return ids, WorldSamples(open_processor(model), size=size)
