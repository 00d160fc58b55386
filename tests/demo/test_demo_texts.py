"""What is said about a scene."""

from __future__ import annotations

import pytest

from omni_sdk.demo import texts
from omni_sdk.demo.scene import make_scene

# Made once by the program that drew the training data.
GOLDEN_ANSWERS = [
    (
        5000000,
        "direct",
        "the circle",
        "<think> sound circle 00:03.00 00:05.50 red bar 00:00.00 00:05.50 left magenta ci"
        "rcle 00:03.00 00:08.00 left last magenta first red target circle magenta circle"
        '</think><answer>[{"start_time":"00:03.00","end_time":"00:08.00",'
        '"description":"a magenta circle"}]</answer>',
    ),
    (
        5100000,
        "last",
        "the shape that enters last",
        "<think> sound cross 00:04.50 00:06.50 red pole 00:00.00 00:08.00 right yellow cr"
        "oss 00:03.00 00:08.00 left last yellow first none target last yellow cross"
        '</think><answer>[{"start_time":"00:03.00","end_time":"00:08.00",'
        '"description":"a yellow cross"}]</answer>',
    ),
    (
        5200000,
        "leaves",
        "the shape that leaves first",
        "<think> sound pole 00:04.50 00:06.00 blue cross 00:00.50 00:07.00 right magenta "
        "pole 00:04.50 00:06.50 right last magenta first magenta target first magenta pole"
        '</think><answer>[{"start_time":"00:04.50","end_time":"00:06.50",'
        '"description":"a magenta pole"}]</answer>',
    ),
    (
        5300000,
        "moves",
        "the shape that moves right",
        "<think> sound cross 00:03.00 00:05.50 red circle 00:00.00 00:08.00 right blue po"
        "le 00:00.00 00:07.50 left cyan cross 00:03.00 00:08.00 "
        "left last cyan first blue target right red circle"
        '</think><answer>[{"start_time":"00:00.00","end_time":"00:08.00",'
        '"description":"a red circle"}]</answer>',
    ),
    (
        5400000,
        "sound",
        "the shape that makes the sound",
        "<think> sound pole 00:06.50 00:08.00 blue bar 00:04.00 00:08.00 right yellow pol"
        "e 00:00.00 00:08.00 right last blue first none target sound pole yellow pole"
        '</think><answer>[{"start_time":"00:06.50","end_time":"00:08.00",'
        '"description":"a yellow pole"}]</answer>',
    ),
    (
        5500000,
        "null",
        "the bar",
        "<think> sound cross 00:02.50 00:04.50 green circle 00:00.00 00:07.50 right magen"
        "ta cross 00:01.50 00:07.00 right last magenta first magenta target bar none"
        "</think><answer>[]</answer>",
    ),
]


@pytest.mark.parametrize(("seed", "family", "query", "answer"), GOLDEN_ANSWERS)
def test_answers(seed: int, family: str, query: str, answer: str) -> None:
    scene = make_scene(seed, family)
    assert scene.query == query
    assert texts.grs_answer(scene) == answer


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00.00"), (7.5, "00:07.50"), (8, "00:08.00"), (61.25, "01:01.25"), (600, "10:00.00")],
)
def test_format_time(seconds: float, text: str) -> None:
    assert texts.format_time(seconds) == text


def test_grounder_texts() -> None:
    query = texts.grounder_query("a red cross")
    assert query == (
        "Given the expression: 'a red cross', ground all the referred objects with json bboxs"
    )
    answer = texts.grounder_answer("a red cross", (1, 22, 30, 96))
    assert answer == '[{"bbox_2d":[1,22,30,96],"label":"a red cross"}]'
    assert texts.grounder_answer("a red cross", None) == "[]"
