"""The nano thinker's tokenizer: whole pieces of the answer grammar, and ASCII for everything else.

A Unigram model prefers few pieces; the Fuse decoder joins them as they are, so decoding gives back what
was encoded.
"""

from __future__ import annotations

from omni_sdk.demo.texts import format_time
from omni_sdk.demo.world import COLORS, DIGEST, SHAPES, STEP_SECONDS, STEPS
from tokenizers import AddedToken, Tokenizer, decoders, models

SPECIAL = (
    "<|pad|>", "<|im_start|>", "<|im_end|>", "<|vision_bos|>", "<|vision_eos|>", "<|audio_bos|>",
    "<|audio_eos|>", "<|VIDEO|>", "<|AUDIO|>", "<|IMAGE|>",
)  # fmt: skip
UNKNOWN = "<|unk|>"
BOX_OPENER = '[{"bbox_2d":['
GLUE = (
    "user\n", "assistant\n", "\n", "<think>", "</think><answer>", '[{"start_time":"', '","end_time":"',
    '","description":"a', '"},{"start_time":"', '"}]', "</answer>", "Given the expression: 'a",
    "', ground all the referred objects with json bboxs", ",", '],"label":"a',
)  # fmt: skip
"""Pieces that carry no decision, but for `"}]` against another entry."""
DECISIONS = ("[]", BOX_OPENER, " none")
QUERY_WORDS = (
    "the", " the", " shape", " shapes", " that", " enters", " leaves", " moves", " move", " makes",
    " make", " sound", " sounds", " another",
)  # fmt: skip
PERCEPT_WORDS = (" silent", " left", " right", " still", " stops")


def stamps() -> tuple[str, ...]:
    """Return every time on the event grid, as it is written."""
    return tuple(format_time(step * STEP_SECONDS) for step in range(STEPS + 1))


def token_id(tokenizer: Tokenizer, text: str) -> int:
    """Return the number of a whole piece that the tokenizer has."""
    found = tokenizer.token_to_id(text)
    assert found is not None, text
    return int(found)


def pieces(image_pixels: int) -> list[str]:
    """Return all whole pieces, without repetition; numbers run from 0 to `image_pixels`."""
    words = [*GLUE, *DECISIONS, *QUERY_WORDS, *PERCEPT_WORDS, " target"]
    words += [f" {word}" for word in (*DIGEST, *COLORS, *SHAPES)]
    words += [*stamps(), *(f" {s}" for s in stamps()), *(str(n) for n in range(image_pixels + 1))]
    return list(dict.fromkeys(words))


def build_tokenizer(image_pixels: int) -> Tokenizer:
    """Return the tokenizer of a thinker whose grounder sees `image_pixels` a side."""
    whole = pieces(image_pixels)
    ascii_fallback = [chr(code) for code in range(32, 127) if chr(code) not in whole]
    vocabulary = [(token, 0.0) for token in (*SPECIAL, UNKNOWN)]
    vocabulary += [(piece, -1.0) for piece in whole] + [(char, -3.0) for char in ascii_fallback]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=len(SPECIAL)))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return tokenizer
