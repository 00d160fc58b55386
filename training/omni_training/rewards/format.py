"""The format reward: is the completion one thought and one readable answer?"""

from __future__ import annotations

import re

from omni_sdk.errors import ModelOutputError
from omni_sdk.grs.parser import parse_answer

_TAGS = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)


def tags_match(text: str) -> bool:
    """Return whether the whole text is <think>..</think><answer>..</answer> (the published test).

    The lazy groups may swallow further tags: a text with two answers matches too.
    """
    return _TAGS.fullmatch(text) is not None


def one_of_each_tag(text: str) -> bool:
    """Return whether the text is one thought and one answer: the tags match and each comes once."""
    once = all(text.count(tag) == 1 for tag in ("<think>", "</think>", "<answer>", "</answer>"))
    return once and tags_match(text.strip())


def format_reward(text: str, duration_seconds: float) -> float:
    """Return 1 for exactly one <think> and one <answer> whose content can be read, else 0.

    The published reward pays for tags around anything. Here the answer must parse as well (an empty
    list, "nothing matches", does), and each tag must come once: a second answer would be ignored by
    inference, and must not be paid.

    Args:
        text: the completion without special tokens.
        duration_seconds: length of the clip on the reasoner's clock.
    """
    if not one_of_each_tag(text):
        return 0.0
    try:
        parse_answer(text, duration_seconds)
    except ModelOutputError:
        return 0.0
    return 1.0
