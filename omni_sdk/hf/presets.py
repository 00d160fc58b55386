"""What the published checkpoints do not say of themselves: budgets, sampling and prompts, one preset each."""

from __future__ import annotations

from dataclasses import dataclass

from omni_sdk.bundle.manifest import PromptSpec, SamplingSpec


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings that go with a family of checkpoints.

    Attributes:
        video_pixels: least and most pixels of a frame shown to the reasoner.
        image_pixels: least and most pixels of an image shown to the grounder.
        max_seconds: longer sounds are cut.
        sampling: which frames the reasoner sees.
        prompts: named templates and bounds.
    """

    video_pixels: tuple[int, int]
    image_pixels: tuple[int, int]
    max_seconds: float
    sampling: SamplingSpec
    prompts: PromptSpec


QWEN_OMNI = Preset(
    # Paper (arXiv 2505.20256) and its code: 128 and 900 merged patches of 28 pixels a side.
    video_pixels=(16 * 28 * 28, 128 * 28 * 28),
    image_pixels=(64 * 28 * 28, 900 * 28 * 28),
    max_seconds=300.0,
    sampling=SamplingSpec(
        fps=2.0,
        min_frames=8,
        max_frames=24,
        strategy="linspace",
        virtual_fps=2.0,
        audio_in_video=True,
        missing_audio="omit",
    ),
    prompts=PromptSpec(
        system="You are a helpful assistant.",  # the published chat template's default
        reason="omni-r1-force",
        ask="qwen-ask",
        ground="omni-r1-ground",
        max_new_tokens=2048,
        ground_max_new_tokens=512,
    ),
)
"""Qwen2.5-Omni and Omni-R1."""

NANO = Preset(
    # Trained on exactly 16 frames and single images; a checkpoint's own sizes replace these.
    video_pixels=(48 * 48, 48 * 48),
    image_pixels=(96 * 96, 96 * 96),
    max_seconds=8.0,
    sampling=SamplingSpec(
        fps=2.0,
        min_frames=16,
        max_frames=16,
        strategy="bins",
        virtual_fps=2.0,
        audio_in_video=False,
        missing_audio="silence",
    ),
    prompts=PromptSpec(
        system=None,
        reason="nano",
        ask="nano",
        ground="omni-r1-ground",
        # The longest answers in training have about 75 and 11 tokens.
        max_new_tokens=96,
        ground_max_new_tokens=32,
    ),
)
"""The small checkpoints trained on the procedural world."""
