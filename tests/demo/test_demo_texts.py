"""What is said about a scene."""

from __future__ import annotations

import pytest

from omni_sdk.demo import texts
from omni_sdk.demo.scene import make_scene
from omni_sdk.demo.world import STEP_SECONDS, held_out_seed

# Of the first held-out clip of a family.
GOLDEN_ANSWERS = [
    (
        "direct",
        "the bar",
        "<think> sound bar 00:06.50 00:08.00 red bar right 00:05.50 00:08.00 magenta circle still "
        "00:02.50 00:08.00 last red first none stops none left none right red heard red while none "
        'target bar red bar</think><answer>[{"start_time":"00:05.50","end_time":"00:08.00",'
        '"description":"a red bar"}]</answer>',
    ),
    (
        "null",
        "the magenta shape",
        "<think> sound cross 00:06.00 00:08.00 green cross still 00:00.00 00:08.00 yellow pole left "
        "00:03.50 00:08.00 last yellow first none stops none left yellow right none heard green while "
        "green target magenta none</think><answer>[]</answer>",
    ),
    (
        "two",
        "the shapes that move left",
        "<think> sound bar 00:02.50 00:05.00 green pole left 00:00.00 00:08.00 stops 00:05.50 blue bar "
        "right 00:00.00 00:08.00 cyan circle left 00:04.50 00:08.00 last cyan first none stops green "
        "left green cyan right blue heard blue while blue target left green pole cyan circle</think>"
        '<answer>[{"start_time":"00:00.00","end_time":"00:08.00","description":"a green pole"},'
        '{"start_time":"00:04.50","end_time":"00:08.00","description":"a cyan circle"}]</answer>',
    ),
    (
        "while",
        "the shape that sounds while another moves",
        "<think> sound bar 00:00.00 00:01.50 sound circle 00:03.50 00:06.00 green circle still 00:02.00 "
        "00:08.00 yellow cross still 00:01.00 00:06.50 cyan bar left 00:00.00 00:07.50 stops 00:04.50 "
        "last green first yellow stops cyan left cyan right none heard green cyan while green target "
        'while green circle</think><answer>[{"start_time":"00:03.50","end_time":"00:06.00",'
        '"description":"a green circle"}]</answer>',
    ),
]


@pytest.mark.parametrize(("family", "query", "answer"), GOLDEN_ANSWERS)
def test_answers(family: str, query: str, answer: str) -> None:
    scene = make_scene(held_out_seed(family, 0), family)
    assert scene.query == query
    assert texts.grs_answer(scene) == answer


def test_every_step_of_a_clip_has_its_exact_time() -> None:
    steps = range(round(600 / STEP_SECONDS))
    assert [texts.format_time(step * STEP_SECONDS) for step in steps] == [
        f"{step // 120:02d}:{step // 2 % 60:02d}.{step % 2 * 50:02d}" for step in steps
    ]


def test_grounder_texts() -> None:
    query = texts.grounder_query("a red cross")
    assert query == (
        "Given the expression: 'a red cross', ground all the referred objects with json bboxs"
    )
    answer = texts.grounder_answer("a red cross", (1, 22, 30, 96))
    assert answer == '[{"bbox_2d":[1,22,30,96],"label":"a red cross"}]'
    assert texts.grounder_answer("a red cross", None) == "[]"
