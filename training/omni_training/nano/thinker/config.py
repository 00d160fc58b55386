"""What the nano thinker is and how it is trained; steps are counted, never the clock."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from omni_training.nano.config import NO_EFFECT, Config, Stage

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class ThinkerSizes:
    """Sizes of the thinker (upstream names in `omni_training.nano.thinker.model`).

    Attributes:
        hidden, layers, heads, kv_heads, intermediate: of the language model.
        vision_hidden, vision_depth, vision_heads, vision_intermediate: of the vision tower.
        audio_hidden, audio_layers: of the audio tower.
        patch, merge, temporal: side of a patch in pixels, patches per side of a token, frames per patch.
        frame_pixels: side of the reasoner's frames.
        image_pixels: side of the grounder's image.
        mel_bins, hop, n_fft: of the spectrogram, in bins and samples at 16 kHz.
        rope_theta: base of the language model's rotary positions.
    """

    hidden: int = 128
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 320
    vision_hidden: int = 96
    vision_depth: int = 3
    vision_heads: int = 4
    vision_intermediate: int = 192
    audio_hidden: int = 64
    audio_layers: int = 1
    patch: int = 8
    merge: int = 2
    temporal: int = 2
    frame_pixels: int = 48
    image_pixels: int = 144
    mel_bins: int = 32
    hop: int = 2000
    n_fft: int = 2048
    rope_theta: float = 50.0


@dataclass(frozen=True, kw_only=True)
class ThinkerStage(Stage):
    """A stage: warm-up, hold, cosine.

    Attributes:
        warmup: steps in which the learning rate rises.
        hold: share of the stage at the full learning rate.
        final: learning rate at the end over the full one.
    """

    warmup: int = 40
    hold: float = 0.3
    final: float = 0.02

    def rate(self, step: int) -> float:
        """Return the learning rate at a step."""
        share = step / self.steps
        factor = min(1.0, (step + 1) / self.warmup)
        if share >= self.hold:
            cosine = 0.5 * (1 + math.cos(math.pi * (share - self.hold) / (1 - self.hold)))
            factor *= max(self.final, cosine)
        return self.learning_rate * factor

    def scaled(self, factor: float) -> Self:
        """Return the stage with `factor` times the steps; a longer one has no longer warm-up."""
        warmup = max(1, round(self.warmup * min(1.0, factor)))
        return dataclasses.replace(super().scaled(factor), warmup=warmup)


@dataclass(frozen=True, kw_only=True)
class ThinkerConfig(Config):
    """The whole training.

    Attributes:
        sizes: of the model.
        dense: vision tower with a dense head: pairs of low-resolution frames and the grounder's frames.
        sound: audio tower with a dense head.
        text: language model on true listings: digest, look-ups, answers.
        sft: everything.
        polish: everything once more, from a high learning rate on: rarely right, then precisely right.
        pairs: low-resolution frame pairs in a dense batch.
        images: grounder's frames in a dense batch (every `image_every`-th step).
        image_every: see `images`.
        sounds: clips in a sound batch.
        texts: rows in a text batch, half of them drills.
        drills: look-ups in a drill.
        texts_beside: rows of words in a batch of sft and polish.
        clips: reasoner's rows in a batch of sft and polish.
        frames: grounder's frames in such a batch.
        descriptions: asked of each such frame at once.
        absent_half: of the absent descriptions, the share with one word that matches a visible object.
        mixture, polish_mixture: batches of sft and polish in turns: g reasoner, d grounder, t text.
        tower_rate: learning rate of the towers over that of the language model in sft and polish.
        frozen_share: of sft, for which the towers stay as the dense stages left them.
        table_weight, dense_weight: of the auxiliary losses in sft and polish.
        box_weight: of the boxes that the language model is asked for at every picture token, in polish.
        early: shares of sft at which a checkpoint is kept (unsaturated starts for GRPO).
        development_clips, development_frames: on which progress is measured.
    """

    sizes: ThinkerSizes = field(default_factory=ThinkerSizes)
    dense: ThinkerStage = ThinkerStage(steps=4800, learning_rate=2.5e-3, report=400)
    sound: ThinkerStage = ThinkerStage(steps=300, learning_rate=2e-3, report=100)
    text: ThinkerStage = ThinkerStage(steps=700, learning_rate=1.7e-3, report=150)
    sft: ThinkerStage = ThinkerStage(
        steps=4800, learning_rate=1.5e-3, warmup=80, hold=0.35, report=300
    )
    polish: ThinkerStage = ThinkerStage(
        steps=6300, learning_rate=1.1e-3, warmup=80, hold=0.25, report=350
    )
    pairs: int = 24
    images: int = 6
    image_every: int = 2
    sounds: int = 32
    texts: int = 48
    drills: int = 5
    texts_beside: int = 24
    clips: int = 24
    frames: int = 10
    descriptions: int = 5
    absent_half: float = 0.7
    mixture: str = "gdgddt"
    polish_mixture: str = "gddgddt"
    tower_rate: float = 0.5
    frozen_share: float = 0.3
    table_weight: float = 0.3
    dense_weight: float = 0.5
    box_weight: float = 0.5
    early: tuple[float, ...] = field(default=(0.05, 0.1, 0.15, 0.2, 0.3), metadata=NO_EFFECT)
    development_clips: int = field(default=96, metadata=NO_EFFECT)
    development_frames: int = field(default=40, metadata=NO_EFFECT)


STAGES = tuple(ThinkerConfig().stages)
"""In order."""
