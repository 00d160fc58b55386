r"""How the published code reads an answer, with its bugs. Used by the `reference` preset only.

Source: github.com/aim-uofa/Omni-R1 at 1de42f8, src/omni_r1/load_datasets/revos.py
(`time_reward_multi_time`) and src/omni_r1/reward.py (`extract_answer`). Numbers in square brackets are
those of omni-r1.md section 3. Bugs kept:

- [1] times match `(\d+):(\d+)\.(\d+)` and the fraction counts hundredths whatever its length:
  "00:01.5" is 1.05 s, "00:01.500" is 6 s; "00:01", "01:02:03.00" and plain seconds do not match, and
  the object is dropped.
- [2] objects are found by `({[\s\S]*?})`: a brace inside a description, or one level of nesting, breaks
  the object, and a broken object still counts in the average.
- [3] an end after the clip, or a start after the end, drops the object instead of clamping or swapping.
- only the first <answer> is read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

FPS = 2
_ANSWER = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL)
_OBJECT = re.compile(r"({[\s\S]*?})")
_TIME = re.compile(r"(\d+):(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class ReferenceSegment:
    """One accepted object: seconds of the virtual 2 fps clock and its description."""

    start_seconds: float
    end_seconds: float
    description: str


@dataclass(frozen=True, slots=True)
class ReferenceAnswer:
    """What the published code sees in a text.

    Attributes:
        num_objects: matches of the object pattern, broken ones included.
        num_complete: objects with two times and a description.
        segments: complete objects within the clip.
    """

    num_objects: int
    num_complete: int
    segments: tuple[ReferenceSegment, ...]


def extract_answer(text: str) -> str:
    """Return the content of the first <answer>, or an empty text."""
    match = _ANSWER.search(text)
    return match.group(1).strip() if match else ""


def objects_in(text: str) -> list[str]:
    """Return what the published pattern takes for JSON objects."""
    return _OBJECT.findall(text)


def parse_time(text: str) -> float | None:
    """Return seconds as the published code reads them, or None where its pattern does not match."""
    match = _TIME.match(text)
    if match is None:
        return None
    minutes, seconds, fraction = (int(group[:9]) for group in match.groups())
    return minutes * 60 + seconds + fraction * 10 / 1000


def read_answer(answer: str, num_frames: int) -> ReferenceAnswer:
    """Read the content of <answer>.

    Args:
        answer: text between the tags.
        num_frames: sampled frames N; the clip lasts N / 2 seconds.
    """
    found = objects_in(answer)
    complete, segments = 0, []
    for text in found:
        fields = _fields(text)
        if fields is None:
            continue
        complete += 1
        start, end, description = fields
        if start > end or end > num_frames / FPS:
            continue
        segments.append(ReferenceSegment(start, end, description))
    return ReferenceAnswer(len(found), complete, tuple(segments))


def _fields(text: str) -> tuple[float, float, str] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    start, end = value.get("start_time"), value.get("end_time")
    description = value.get("description")
    if not isinstance(start, str) or not isinstance(end, str) or description is None:
        return None
    first, last = parse_time(start), parse_time(end)
    if first is None or last is None:
        return None
    return first, last, str(description)
