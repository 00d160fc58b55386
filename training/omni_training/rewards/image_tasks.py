"""Rewards of answers about one image: a phrase for the grounder (Ref-AVS), or a box (refCOCOg).

Ref-AVS as in the paper: the IoU of what the grounder finds for the phrase, as R_A; R_K and R_G are 0, since
there is one moment and no propagation. The published code gave an unreadable reply and an absent object the
same box, (-1, -1, -1, -1), and paid garbage. Here an unreadable answer earns nothing, and "not there" is a
legal answer that is right where the object is not to be seen.

refCOCOg as published (Seg-Zero's sum of IoU, points and distances, at most 4.4), also as R_A; the format
reward asks for one thought and one answer as everywhere.
"""

from __future__ import annotations

from omni_sdk.errors import ModelOutputError
from omni_sdk.grs.parser import parse_description, split_answer

from omni_training.rewards.format import one_of_each_tag
from omni_training.rewards.jobs import GroundingPoint
from omni_training.rewards.refcocog import refcocog_reward
from omni_training.rewards.scores import TextScores
from omni_training.rewards.truth import ClipTruth


def phrase_scores(text: str, truth: ClipTruth, duration_seconds: float) -> TextScores:
    """Score a phrase; its box is the grounder's to find.

    Args:
        text: the completion without special tokens; untrusted.
        truth: of the one image.
        duration_seconds: of the clip.
    """
    unreadable = TextScores({"format": 0.0, "r_k": 0.0}, 0.0, 0.0, (), "unparsed")
    if not one_of_each_tag(text):  # any text is a phrase; only a tagged one is meant as the answer
        return unreadable
    try:
        segments = parse_description(text, duration_seconds).segments
    except ModelOutputError:
        return unreadable
    points = tuple(GroundingPoint(0, 0, s.description) for s in segments[:1])
    status = "found" if points else "absent"
    return TextScores({"format": 1.0, "r_k": 0.0}, 1.0, 0.0, points, status)


def box_scores(text: str, truth: ClipTruth) -> TextScores:
    """Score a box and two points; no detail system is needed."""
    assert truth.points_xy is not None
    paid = float(one_of_each_tag(text))
    _, answer = split_answer(text)
    r_a = refcocog_reward(answer, truth.boxes_xyxy[0, 0], truth.points_xy) if answer else 0.0
    return TextScores({"format": paid, "r_k": 0.0}, paid, 0.0, (), "found", r_a)
