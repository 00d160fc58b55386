"""What the tracker's training depends on: nothing else does, so a seed gives one model."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from omni_sdk.demo.world import STAGE

from omni_training.nano.config import NO_EFFECT, Config, Stage

if TYPE_CHECKING:
    from typing_extensions import Self

CELL = 4
"""Pixels of the input per mask logit, in every SAM 2."""


@dataclass(frozen=True)
class TrackerSizes:
    """A `Sam2VideoModel` for square images, small enough for one core.

    Attributes:
        image_size: side of the input in pixels, a multiple of 32.
        channels: of features, a multiple of 64: an object pointer is read as `channels / 64` tokens, 2 or
            more (transformers fails on 1).
        widths: channels of the encoder's four stages, at 1/4 to 1/32 of the input; rising (a stage halves
            the map only where the width changes).
        blocks: transformer blocks of each stage.
        heads: attention heads of each stage.
        attention_layers: layers of the memory attention.
    """

    image_size: int = 128
    channels: int = 128
    widths: tuple[int, int, int, int] = (16, 32, 96, 128)
    blocks: tuple[int, int, int, int] = (1, 1, 3, 1)
    heads: tuple[int, int, int, int] = (1, 2, 4, 4)
    attention_layers: int = 2

    def __post_init__(self) -> None:
        if self.image_size % 32 or self.image_size < STAGE:
            raise ValueError(
                f"image_size must be a multiple of 32, {STAGE} or more; got {self.image_size}"
            )
        if any(a >= b for a, b in zip(self.widths, self.widths[1:], strict=False)):
            raise ValueError(f"widths must rise from stage to stage, got {self.widths}")
        if self.channels % 64 or self.channels < 128:
            raise ValueError(f"channels must be a multiple of 64, 128 or more; got {self.channels}")


@dataclass(frozen=True, kw_only=True)
class TrackerStage(Stage):
    """A stage: warm-up, cosine to `final_rate` of the learning rate.

    Attributes:
        clips: clips per step (single frames are clips of length 1).
        objects: objects per clip, at most.
        frames: (shortest, longest) clip in frames.
        warmup: share of the steps.
        final_rate: share of the learning rate at the end.
        balance: share of the mask loss, at the start and at the end, in which object and background weigh
            the same; without it a model from nothing stays at "all background", with it edges move outward.
        single_frame_share: of the steps that show single frames instead, as many frames in all.
        own_presence_share: of the steps whose memories believe the model's own object score; the others
            are told the truth.
        crossing_share: of the clips in which one object hides another on its way, for as long as in the
            world's own "occluded" clips.
    """

    clips: int
    objects: int
    frames: tuple[int, int]
    warmup: float
    final_rate: float = 0.02
    balance: tuple[float, float] = (0.0, 0.0)
    single_frame_share: float = 0.0
    own_presence_share: float = 0.0
    crossing_share: float = 0.0
    report: int = field(default=200, metadata=NO_EFFECT)

    def __post_init__(self) -> None:
        if min(self.steps, self.clips, self.objects, self.frames[0]) < 1:
            raise ValueError(f"steps, clips, objects and frames must be 1 or more: {self}")
        if self.frames[0] > self.frames[1]:
            raise ValueError(f"frames must be (shortest, longest), got {self.frames}")

    def rate(self, step: int) -> float:
        """Return the learning rate at a step."""
        share = step / self.steps
        warm = min(1.0, (step + 1) / max(1.0, self.warmup * self.steps))
        cosine = 0.5 * (1 + math.cos(math.pi * share))
        return self.learning_rate * warm * (self.final_rate + (1 - self.final_rate) * cosine)


@dataclass(frozen=True, kw_only=True)
class TrackerConfig(Config):
    """A training of the tracker from nothing.

    Attributes:
        sizes: of the model.
        box: stage 1, a box gives a mask on single frames.
        clip: stage 2, clips are unrolled through the memory.
        long: stage 3, clips in which an object may be away for longer than the memory of recent frames
            reaches: it must be found again from the prompted frame.
        hidden: stage 4, the same once more, in most clips with one object behind another: the tracker used to
            go away with what hides it, or to call it absent for good.
        evaluation_clips: held-out ones, on which progress is measured.
    """

    seed: int = 0
    weight_decay: float = 0.02
    sizes: TrackerSizes = field(default_factory=TrackerSizes)
    box: TrackerStage = TrackerStage(
        steps=1000,
        clips=14,
        objects=3,
        frames=(1, 1),
        learning_rate=1.2e-3,
        warmup=0.04,
        final_rate=0.1,
        balance=(1.2, -0.4),
    )
    clip: TrackerStage = TrackerStage(
        steps=2000,
        clips=4,
        objects=3,
        frames=(4, 10),
        learning_rate=8e-4,
        warmup=0.03,
        single_frame_share=0.15,
        own_presence_share=0.4,
    )
    long: TrackerStage = TrackerStage(
        steps=1200,
        clips=2,
        objects=3,
        frames=(8, 20),
        learning_rate=4e-4,
        warmup=0.03,
        single_frame_share=0.1,
        own_presence_share=0.6,
        crossing_share=0.5,
    )
    hidden: TrackerStage = TrackerStage(
        steps=2000,
        clips=2,
        objects=3,
        frames=(8, 24),
        learning_rate=3e-4,
        warmup=0.03,
        single_frame_share=0.1,
        own_presence_share=0.7,
        crossing_share=0.65,
    )
    evaluation_clips: int = field(default=12, metadata=NO_EFFECT)

    def scaled(self, factor: float) -> Self:
        """Return the same training at `factor` times the steps, and no more clips to evaluate on."""
        clips = max(1, round(self.evaluation_clips * min(1.0, factor)))
        return dataclasses.replace(super().scaled(factor), evaluation_clips=clips)
