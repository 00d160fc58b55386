"""A completion -> thinking, answer, moments, boxes.

The text is untrusted: it chooses which object is looked for, and nothing else. Only `ModelOutputError`
leaves; counts and text sizes are bounded. Inference, rewards and evaluation share this parser.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np

from omni_sdk.errors import ModelOutputError
from omni_sdk.grs.literals import find_objects
from omni_sdk.stages import Box, Segment

MAX_SEGMENTS = 64
MAX_BOXES = 64
MAX_DESCRIPTION_CHARS = 500
_MAX_SECONDS = 1e9

_THINK = re.compile(r"<think>", re.IGNORECASE)
_THINK_END = re.compile(r"</think>", re.IGNORECASE)
_ANSWER = re.compile(r"<answer>", re.IGNORECASE)
_ANSWER_END = re.compile(r"</answer>", re.IGNORECASE)
_MOMENT = re.compile(r"\bstart(?:_time)?[\"']?\s*:", re.IGNORECASE)
_SECONDS = r"[0-9]{1,9}(?:[.,][0-9]{0,9})?|[.,][0-9]{1,9}"
_CLOCK = re.compile(rf"([-+]?)(?:(?:([0-9]{{1,6}}):)?([0-9]{{1,6}}):)?({_SECONDS})")
_UNIT = re.compile(r"\s*(?:s|sec|secs|second|seconds)\.?$", re.IGNORECASE)
_NOTHING = re.compile(
    r"(?:none|null|nothing|absent|not found|not present|no (?:matching )?(?:object|match|target)s?"
    r"|no matches)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """A reasoner's completion, read.

    Attributes:
        thinking: what stands inside <think>.
        answer: what stands inside <answer>, or in its place.
        segments: moments in time order on the reasoner's clock; empty: nothing matches.
    """

    thinking: str
    answer: str
    segments: tuple[Segment, ...]


def split_answer(text: str) -> tuple[str, str]:
    """Return (thinking, answer) of a completion; missing tags are made up for, nothing raises.

    The answer is what follows <answer>, else what follows </think>, else, unless a thought was begun, the
    whole text. A thought that never ends leaves no answer.
    """
    think, think_end = _THINK.search(text), _THINK_END.search(text)
    start = think_end.end() if think_end else 0
    opening = _ANSWER.search(text, start) or _ANSWER.search(text)
    if opening:
        closing = _ANSWER_END.search(text, opening.end())
        answer = text[opening.end() : closing.start() if closing else len(text)]
    elif think_end or not think:
        answer = text[start:]
    else:
        answer = ""
    if not think and not think_end:
        return "", answer.strip()
    first = think.end() if think and (not think_end or think.end() <= think_end.start()) else 0
    last = think_end or opening
    return text[first : max(first, last.start()) if last else len(text)].strip(), answer.strip()


def awaits_answer(text: str, *, moments: bool) -> bool:
    """Return whether a completion so far is still thinking.

    Args:
        text: the completion's beginning.
        moments: the answer is to be a list of moments, so text without any tag that does not hold one yet
            is thinking, too; otherwise it may be the answer.
    """
    if _ANSWER.search(text) or _THINK_END.search(text):
        return False
    return bool(_THINK.search(text)) or (moments and not _MOMENT.search(text))


def parse_answer(text: str, duration_seconds: float) -> ParsedAnswer:
    """Read a reasoner's completion.

    Times may be numbers, "s", "mm:ss", "mm:ss.fff" or "h:mm:ss" with any decimals; a missing end or start
    is the other one; swapped ones are put right, and all are clamped to the clip. Objects without a
    readable time or a description are left out.

    Args:
        text: the raw completion.
        duration_seconds: length of the clip on the reasoner's clock, >= 0.

    Raises:
        ModelOutputError: no such object, and no sign either that nothing matches ("[]", "no object").
    """
    thinking, answer = split_answer(text)
    found = find_objects(answer or _unfinished_thought(text))
    segments = []
    for item in found.objects:
        segment = _segment(item, duration_seconds)
        if segment is not None and segment not in segments:
            segments.append(segment)
        if len(segments) == MAX_SEGMENTS:
            break
    if not segments and not (answer and (found.empty_list or _says_nothing(answer))):
        raise ModelOutputError(
            'expected a JSON list of {"start_time", "end_time", "description"} inside <answer>, or [], '
            f"found {_shorten(answer or text)!r}",
            text,
        )
    segments.sort(key=lambda s: (s.start_seconds, s.end_seconds))
    return ParsedAnswer(thinking, answer, tuple(segments))


def parse_description(text: str, duration_seconds: float) -> ParsedAnswer:
    """Read the completion of a template whose answer is a phrase: it holds for the whole clip.

    Objects as in `parse_answer` are accepted too.

    Raises:
        ModelOutputError: there is no answer.
    """
    try:
        return parse_answer(text, duration_seconds)
    except ModelOutputError:
        thinking, answer = split_answer(text)
        description = clean_text(answer)
        if not description or not any(c.isalnum() for c in description):
            raise
    return ParsedAnswer(thinking, answer, (Segment(0.0, max(0.0, duration_seconds), description),))


def parse_boxes(text: str, width: int, height: int) -> list[tuple[Box, str]]:
    """Read a grounder's completion: objects {"bbox_2d": [x0, y0, x1, y1], "label": ..}.

    Inverted boxes are put right, all are clipped to the image; boxes without area inside it, with NaN or
    infinite numbers or of another length are left out, as are repeated ones.

    Args:
        text: the raw completion.
        width: of the image as the model saw it, in pixels.
        height: likewise.

    Returns:
        (box, label) pairs: (4,) float32 xyxy in those pixels, and a label, "" where there is none; an
        empty list is a legal answer.

    Raises:
        ModelOutputError: neither a readable box nor a sign that there is none.
    """
    _, answer = split_answer(text)
    found = find_objects(answer or _unfinished_thought(text))
    boxes: dict[tuple[float, ...], str] = {}
    readable = False
    for item in found.objects:
        corners = _corners(item.get("bbox_2d", item.get("bbox")))
        if corners is None:
            continue
        readable = True
        x0, x1 = sorted(min(max(x, 0.0), float(width)) for x in corners[::2])
        y0, y1 = sorted(min(max(y, 0.0), float(height)) for y in corners[1::2])
        if x1 > x0 and y1 > y0 and len(boxes) < MAX_BOXES:
            label = item.get("label")
            boxes.setdefault((x0, y0, x1, y1), clean_text(label) if isinstance(label, str) else "")
    if not readable and not (answer and (found.empty_list or _says_nothing(answer))):
        raise ModelOutputError(
            f'expected a JSON list of {{"bbox_2d", "label"}}, or [], found {_shorten(text)!r}', text
        )
    return [(np.asarray(corners, np.float32), label) for corners, label in boxes.items()]


def parse_time(value: object) -> float | None:
    """Return seconds of a number or a text such as "1.5", "01:02.50" or "1:02:03"; None if it is none.

    Decimals are decimals: "00:01.5" is 1.5 s (the reference code reads 1.05 s).
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if abs(value) <= _MAX_SECONDS else None
    if not isinstance(value, str) or len(value) > 64:
        return None
    match = _CLOCK.fullmatch(_UNIT.sub("", value.strip()))
    if match is None:
        return None
    sign, hours, minutes, seconds = match.groups()
    total = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds.replace(",", "."))
    return -total if sign == "-" else total


def clean_text(text: str) -> str:
    """Return one line of at most 500 characters: whitespace joined, control characters removed."""
    text = " ".join(text[: 4 * MAX_DESCRIPTION_CHARS].split())
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cs"))
    return text[:MAX_DESCRIPTION_CHARS].strip()


def _segment(item: dict[str, Any], duration: float) -> Segment | None:
    start = parse_time(item.get("start_time", item.get("start")))
    end = parse_time(item.get("end_time", item.get("end")))
    description = item.get("description")
    description = clean_text(description) if isinstance(description, str) else ""
    times = [t for t in (start, end) if t is not None]
    if not times or not description:
        return None
    low, high = (min(max(t, 0.0), max(duration, 0.0)) for t in (min(times), max(times)))
    return Segment(low, high, description)


def _corners(value: object) -> list[float] | None:
    """Return four finite numbers, or None."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(isinstance(v, float) and math.isfinite(v) for v in value):
        return None
    return value


def _unfinished_thought(text: str) -> str:
    """Return a completion without any answer section, else nothing.

    Objects in a thought that was cut short are better than none; a "[]" there is no answer.
    """
    return "" if _ANSWER.search(text) or _THINK_END.search(text) else text


def _says_nothing(answer: str) -> bool:
    return len(answer) < 64 and _NOTHING.fullmatch(answer.strip(" .!\"'`\n")) is not None


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:40]} ... {text[-35:]}"
