"""Turns of a conversation -> token ids.

ChatML as Qwen2.5-Omni reads it: `<|im_start|>role`, a line break, the content, `<|im_end|>`, a line break.
Special tokens come from here alone: what a user or a file says is plain text, whatever it spells.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omni_sdk.errors import BundleError
from omni_sdk.grs.positions import interleave, row_times
from omni_sdk.media.pixels.patch_layout import Grid

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from omni_sdk.bundle.manifest import DecoderSpec, TokenSpec

IM_START, IM_END = "<|im_start|>", "<|im_end|>"

MediaIds = tuple[int, ...]
"""A medium as token ids: its brackets and expanded placeholders."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: who speaks ("system", "user", ...), and texts and media in order."""

    role: str
    content: tuple[str | MediaIds, ...]


class Chat:
    """Encodes turns with one tokenizer.

    Args:
        tokenizer: kept, and set to treat the text of special tokens as plain text.
        tokens: ids with a meaning.

    Raises:
        BundleError: the tokenizer lacks ChatML's tokens or one of the ids.
    """

    def __init__(self, tokenizer: Tokenizer, tokens: TokenSpec) -> None:
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._start = _id_of(tokenizer, IM_START)
        self._end = _id_of(tokenizer, IM_END)
        brackets = (tokens.vision_start, tokens.vision_end, tokens.audio_start, tokens.audio_end)
        control = {self._start, self._end, tokens.pad, *tokens.eos, *brackets}
        control |= {tokens.image, tokens.video, tokens.audio}
        control |= {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self._control = control
        texts = sorted((_text_of(tokenizer, i) for i in control), key=len, reverse=True)
        self._control_texts = re.compile("|".join(map(re.escape, texts)))

    def encode(self, turns: Sequence[Turn], *, reply: str = "assistant") -> NDArray[np.int64]:
        """Return the (S,) int64 ids of a conversation and of the start of the reply's turn.

        Texts that touch are tokenised in one run, as if the whole conversation were one string.
        """
        ids: list[int] = []
        text = ""
        for turn in turns:
            ids += [*self.plain(text), self._start]
            text = f"{turn.role}\n"
            for part in turn.content:
                if isinstance(part, str):
                    text += part
                else:
                    ids += [*self.plain(text), *part]
                    text = ""
            ids += [*self.plain(text), self._end]
            text = "\n"
        ids += [*self.plain(text), self._start, *self.plain(f"{reply}\n")]
        return np.asarray(ids, np.int64)

    def plain(self, text: str) -> list[int]:
        """Return the ids of a text; none of them is a control token."""
        ids = self._encode(text)
        if self._control.isdisjoint(ids):
            return ids
        # A model that has the special tokens among its ordinary pieces (a Unigram vocabulary may) finds
        # them all the same: their texts are then cut after the first character.
        pieces, start = [], 0
        for match in self._control_texts.finditer(text):
            pieces.append(text[start : match.start() + 1])
            start = match.start() + 1
        ids = [i for piece in [*pieces, text[start:]] for i in self._encode(piece)]
        if not self._control.isdisjoint(ids):
            raise BundleError("the bundle's tokenizer turns plain text into control tokens")
        return ids

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids) if text else []

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens left out."""
        return str(self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True))


def image_ids(tokens: TokenSpec, num_tokens: int) -> MediaIds:
    """Return an image in its brackets."""
    return (tokens.vision_start, *[tokens.image] * num_tokens, tokens.vision_end)


def video_ids(tokens: TokenSpec, num_tokens: int) -> MediaIds:
    """Return a silent video in its brackets."""
    return (tokens.vision_start, *[tokens.video] * num_tokens, tokens.vision_end)


def audio_ids(tokens: TokenSpec, num_tokens: int) -> MediaIds:
    """Return a sound in its brackets."""
    return (tokens.audio_start, *[tokens.audio] * num_tokens, tokens.audio_end)


def video_audio_ids(
    tokens: TokenSpec,
    decoder: DecoderSpec,
    grid: Grid,
    *,
    merge_size: int,
    seconds_per_grid: float,
    num_audio_tokens: int,
) -> MediaIds:
    """Return a video with its sound in double brackets, interleaved by chunks of time.

    Equal to Qwen2_5OmniProcessor wherever its float64 times and the model's float32 ones fall into the
    same chunks; where they do not (never at whole frame rates), ours follow the model's, so that every
    token keeps its own position.
    """
    per_row = grid[1] * grid[2] // merge_size**2
    times = row_times(grid[0], seconds_per_grid, decoder)
    body: list[int] = []
    for video, audio in interleave(times, per_row, num_audio_tokens, decoder):
        body += [tokens.video] * video + [tokens.audio] * audio
    return (tokens.vision_start, tokens.audio_start, *body, tokens.audio_end, tokens.vision_end)


def _id_of(tokenizer: Tokenizer, text: str) -> int:
    token_id = tokenizer.token_to_id(text)
    if token_id is None:
        raise BundleError(f"tokenizer.json has no token {text}; it is not a ChatML tokenizer")
    return int(token_id)


def _text_of(tokenizer: Tokenizer, token_id: int) -> str:
    text = tokenizer.id_to_token(token_id)
    if not text:
        raise BundleError(f"tokenizer.json has no token of id {token_id}, which grs.tokens names")
    return str(text)
