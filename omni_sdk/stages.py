"""The contracts between the stages: numpy in, dataclasses out.

A reasoner (GRS), a grounder and a tracker (DUS) each satisfy one Protocol, whatever runs inside: the
bundle's graphs, torch, a server, or a user's own code. Arrays are C-contiguous; images are RGB uint8 of
shape (H, W, 3); boxes are float32 (x0, y0, x1, y1) in absolute pixels of the image that they belong to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from omni_sdk.bundle.manifest import SamplingSpec
    from omni_sdk.config import GenerationConfig, TrackingConfig
    from omni_sdk.media.clock import Clock
    from omni_sdk.media.frames import VideoFrame
    from omni_sdk.media.pixels.patch_layout import Patches, PatchLayout

Image = NDArray[np.uint8]
Box = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Observation:
    """What the reasoner is shown of a source.

    Attributes:
        frames: (T, h, w, 3) uint8 RGB, already at the reasoner's `frame_size`; (0, h, w, 3) where
            `patches` holds them.
        clock: maps the reasoner's seconds <-> sampled index <-> real frame index and seconds.
        audio: (N,) float32 mono in [-1, 1] at the reasoner's sampling rate, sample 0 at the first
            video frame; None where there is no sound.
        patches: the frames as a `PatchReader` wants them; None: they are in `frames`.
    """

    frames: Image
    clock: Clock
    audio: NDArray[np.float32] | None = None
    patches: Patches | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """One object of the reasoner's answer, on the reasoner's own clock.

    Attributes:
        start_seconds: start, 0 <= start_seconds <= end_seconds <= clock.duration.
        end_seconds: end.
        description: the question rewritten for this moment.
    """

    start_seconds: float
    end_seconds: float
    description: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What the reasoner answered. An empty `segments` is a real answer: nothing matches.

    Attributes:
        text: the raw completion.
        thinking: the text inside <think>.
        answer: the text inside <answer>.
        segments: parsed moments, in time order.
        num_prompt_tokens: tokens read.
        num_generated_tokens: tokens written.
        timings_ms: "prefill" and "generate".
        thinking_cut: the model had to be made to answer; see `GenerationConfig.thinking_budget`.
    """

    text: str
    thinking: str
    answer: str
    segments: tuple[Segment, ...]
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    timings_ms: dict[str, float] = field(default_factory=dict)
    thinking_cut: bool = False


@dataclass(frozen=True, slots=True)
class GroundedBox:
    """A box found by the grounder: (4,) float32 xyxy pixels of the image it was given, and its label."""

    box_xyxy: Box
    label: str


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no truth value to compare by
class GroundedObject:
    """An object on a keyframe: its id in the tracks, (4,) float32 xyxy pixels, and its label."""

    object_id: int
    box_xyxy: NDArray[np.float32]
    label: str


@dataclass(frozen=True, slots=True)
class Keyframe:
    """A moment that the reasoner chose.

    Attributes:
        start_seconds: start of the moment, real time.
        end_seconds: its end.
        frame_index: the frame that was grounded, presentation order.
        pts_seconds: its time.
        description: the question rewritten for that frame.
        objects: what the grounder found there.
    """

    start_seconds: float
    end_seconds: float
    frame_index: int
    pts_seconds: float
    description: str
    objects: tuple[GroundedObject, ...] = ()


class Reasoner(Protocol):
    """System 1: many low-resolution frames, sound and a question -> moments and descriptions."""

    @property
    def sampling(self) -> SamplingSpec:
        """How a source is to be sampled for this model."""

    @property
    def sampling_rate(self) -> int:
        """Sampling rate in Hz at which sound is wanted."""

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) in pixels at which frames of this size are wanted."""

    def reason(self, observation: Observation, query: str, config: GenerationConfig) -> Reasoning:
        """Find the moments that answer a query.

        Raises:
            ModelOutputError: the model's text holds no readable answer.
            QueryError: the query is empty or too long.
        """

    def ask(self, observation: Observation, question: str, config: GenerationConfig) -> Reasoning:
        """Answer a question in words; `segments` is empty and `answer` is the text."""


@runtime_checkable
class PatchReader(Protocol):
    """A reasoner that also reads frames which are patches already."""

    @property
    def patch_layout(self) -> PatchLayout:
        """How its patches are made."""


class Grounder(Protocol):
    """System 2a: one full-resolution image and a description -> boxes."""

    def ground(
        self, images: Sequence[Image], descriptions: Sequence[str]
    ) -> list[tuple[GroundedBox, ...]]:
        """Return the boxes of each (image, description) pair; none is a legal answer."""


class FrameSource(Protocol):
    """Frames of a source at the tracker's size, at bounded memory, in both directions.

    Images are (S, S, 3), whatever the aspect ratio of the source, as SAM 2 wants them. With `luma` frames
    also carry `VideoFrame.luma`, which warping masks needs (a `TrackingConfig.stride` other than 1).
    """

    height: int
    """Height in pixels of the source; masks have this size."""
    width: int
    num_frames: int

    def forward(self, start: int, stop: int, *, luma: bool = False) -> Iterator[VideoFrame]:
        """Yield frames start, start + 1, ... stop - 1."""

    def backward(self, start: int, stop: int, *, luma: bool = False) -> Iterator[VideoFrame]:
        """Yield frames start, start - 1, ... stop + 1."""


@dataclass(frozen=True, slots=True)
class KeyframePrompt:
    """What is known of N objects on one frame: a box of each, clicks on each, or both.

    Objects of one prompt either all have a box or none has; several prompts may name one frame.

    Attributes:
        frame_index: the frame, in the source.
        boxes_xyxy: (N, 4) float32 pixels of the source frame, or None: every object has clicks.
        object_ids: (N,) known ids, or None: the tracker matches boxes with the objects it already has.
        points: for each object its clicks, (P, 2) float32 xy pixels with (P,) labels (1 on, 0 off the
            object); None where the box says enough. Clicks beside a box correct it.
    """

    frame_index: int
    boxes_xyxy: NDArray[np.float32] | None = None
    object_ids: tuple[int, ...] | None = None
    points: tuple[tuple[NDArray[np.float32], NDArray[np.int64]] | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class ObjectMask:
    """One object's mask on one frame.

    Attributes:
        object_id: stable over the run, from 1.
        counts: COCO compressed RLE string of the (height, width) mask; the mask is empty where the
            object is absent.
        score: the tracker's object score (logit; > 0 means present).
        source: "tracked" by the model, or "propagated" from a tracked frame near by.
        confidence: in [0, 1], of a propagated mask; 1 for tracked ones.
    """

    object_id: int
    counts: bytes
    score: float
    source: str = "tracked"
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class FrameMasks:
    """All objects' masks on one frame."""

    frame_index: int
    pts_seconds: float
    masks: tuple[ObjectMask, ...]


class TrackingRun(Protocol):
    """A run in progress: iterate it for the masks; each frame of the source comes exactly once.

    Frames come in the order in which they are finished (forward from the first keyframe, then
    backward from it). `object_ids[k][n]` is the object of prompt k's box n; complete when the
    iteration ends.
    """

    object_ids: list[tuple[int, ...]]
    timings_ms: dict[str, float]

    def __iter__(self) -> Iterator[FrameMasks]: ...


class Tracker(Protocol):
    """System 2b: boxes on a few frames -> a mask of each object in every frame."""

    @property
    def image_size(self) -> int:
        """Side S in pixels of the square images that the tracker reads."""

    def track(
        self, frames: FrameSource, prompts: Sequence[KeyframePrompt], config: TrackingConfig
    ) -> TrackingRun:
        """Prepare a run; frames are read and masks made while it is iterated.

        Raises:
            PromptError: no prompt, or a box or frame outside the source.
        """
