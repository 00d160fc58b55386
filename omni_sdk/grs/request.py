"""What goes into the thinker and what comes out: one prepared request, one completion.

The processor (numpy) makes requests; a thinker runs them: the bundle's graphs (`omni_sdk.grs.thinker`) or
torch (`omni_sdk.hf.thinker`). The reasoner and the grounder are two prompts over one thinker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from omni_sdk.config import GenerationConfig


@dataclass(frozen=True, slots=True)
class VisionInput:
    """One image or video as patches.

    Attributes:
        kind: "image" or "video"; decides the placeholder token.
        pixel_values: (t*h*w, channels*temporal_patch*patch*patch) float32 normalised patches, in
            the order of Qwen2VLImageProcessor; float16 for a vision graph that reads that.
        grid_thw: patches along time, height and width.
        seconds_per_grid: seconds between two rows of the grid in time; 0 for an image.
    """

    kind: str
    pixel_values: NDArray[np.float32 | np.float16]
    grid_thw: tuple[int, int, int]
    seconds_per_grid: float = 0.0


@dataclass(frozen=True, slots=True)
class ThinkerRequest:
    """One prompt, ready to run.

    Attributes:
        input_ids: (S,) int64 with media placeholders expanded.
        position_ids: (3, S) int64 time, height, width positions (TMRoPE).
        vision: images and videos in the order of their placeholders.
        mel: log-mel of each sound in order, (num_mel_bins, L) float32 with L mel frames.
        audio_in_video: the sound's tokens are interleaved with the video's.
        moments: the answer is to be a list of moments inside <answer>; see `awaits_answer`.
    """

    input_ids: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    vision: tuple[VisionInput, ...] = ()
    mel: tuple[NDArray[np.float32], ...] = ()
    audio_in_video: bool = False
    moments: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated text.

    Attributes:
        token_ids: (n,) int64 generated tokens, the end token and stop texts excluded.
        text: decoded, special tokens kept out.
        finish: "eos", "stop" or "length".
        prefill_ms: wall time until the first token's logits (shared by a batch).
        generate_ms: wall time of all further steps (shared by a batch).
        thinking_cut: the thought was closed by `GenerationConfig.thinking_budget`; the tokens that did so
            are among `token_ids`.
    """

    token_ids: NDArray[np.int64]
    text: str
    finish: str
    prefill_ms: float = 0.0
    generate_ms: float = 0.0
    thinking_cut: bool = False


class Thinker(Protocol):
    """Runs prepared requests."""

    def generate(
        self, requests: Sequence[ThinkerRequest], config: GenerationConfig
    ) -> list[Completion]:
        """Complete each request; a batch is left-padded and gives the texts that each gives alone.

        `config.max_new_tokens` must not be None.

        Raises:
            QueryError: a prompt plus max_new_tokens exceeds the model's positions.
        """
