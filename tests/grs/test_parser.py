"""The answer parser: what it accepts, and that it is total and linear."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_sdk.errors import ModelOutputError
from omni_sdk.grs.literals import find_objects
from omni_sdk.grs.parser import (
    MAX_BOXES,
    MAX_DESCRIPTION_CHARS,
    MAX_SEGMENTS,
    parse_answer,
    parse_boxes,
    parse_description,
    parse_time,
    split_answer,
)
from omni_sdk.stages import Segment

OBJECT = '{"start_time":"00:01.50","end_time":"00:03.00","description":"a red car"}'
ONE = (Segment(1.5, 3.0, "a red car"),)


@pytest.mark.parametrize(
    "text",
    [
        f"<think>so</think><answer>[{OBJECT}]</answer>",
        f"<think>so</think>\n<answer>\n```json\n[{OBJECT},]\n```</answer>",
        f"<think>so</think> <answer>{OBJECT}",
        f'<think>so</think> "answer": {OBJECT}',
        f"<think>so<answer>[{OBJECT}]</answer>",
        f"so</think><answer>[{OBJECT}]</answer>",
        f"<THINK>so</THINK><ANSWER>{{'answer': [{OBJECT}]}}</ANSWER>",
        f"<think>so</think><answer>[{OBJECT[:-1]}",
        f"<think>so</think><answer>{OBJECT.replace(chr(34), chr(39))}</answer>",
        "<think>so</think><answer>{start_time: 00:01.5, end_time: 3, description: a red car}</answer>",
        '<think>so</think><answer>[{"start_time": 3.0 "end_time": 1.5 "description": "a red car"}]',
        f"<think>so</think><answer>[{OBJECT}, {OBJECT}, {{}}, 7, null]</answer>",
    ],
)
def test_one_object_in_many_forms(text):
    parsed = parse_answer(text, 10)
    assert parsed.segments == ONE
    assert parsed.thinking == "so"


def test_texts_with_quotes_and_braces():
    text = (
        "<answer>[{'start_time': '1', 'end_time': '2', 'description': 'the dog's {red} [ball]'},"
        '{"start_time":1,"end_time":2,"description":"the \\"big\\" \\u00e9, the "small" one"}]</answer>'
    )
    assert [s.description for s in parse_answer(text, 10).segments] == [
        "the dog's {red} [ball]",
        'the "big" é, the "small" one',
    ]


def test_without_tags_the_whole_text_is_the_answer():
    parsed = parse_answer(f"Here it is: [{OBJECT}] as you asked", 10)
    assert parsed.segments == ONE
    assert parsed.thinking == ""


def test_an_unfinished_thought():
    assert parse_answer(f"<think>perhaps {OBJECT} or", 10).segments == ONE
    with pytest.raises(ModelOutputError):
        parse_answer("<think>the list [] is", 10)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("00:01.5", 1.5),
        ("00:01.500", 1.5),
        ("00:01", 1),
        ("01:02:03.00", 3723),
        ("09:00", 540),
        ("1:5", 65),
        ("7", 7),
        ("2.25s", 2.25),
        ("2 seconds", 2),
        (" 3,5 ", 3.5),
        (4, 4),
        (2.5, 2.5),
        ("-1", -1),
        ("90", 90),
        ("", None),
        ("soon", None),
        ("1:2:3:4", None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        (True, None),
        (None, None),
        ([1], None),
        ("9" * 500, None),
        ("٣", None),
    ],
)
def test_times(value, seconds):
    assert parse_time(value) == seconds


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("8", "2", (2, 8)),
        ("2", "99", (2, 10)),
        ("-5", "1", (0, 1)),
        ("50", "60", (10, 10)),
        ("2", None, (2, 2)),
        ("NaN", "3", (3, 3)),
    ],
)
def test_clamped_and_swapped(start, end, expected):
    item = {"start_time": start, "end_time": end, "description": "x"}
    (segment,) = parse_answer(json.dumps([item]), 10).segments
    assert (segment.start_seconds, segment.end_seconds) == expected


def test_segments_come_in_time_order_and_are_capped():
    items = [
        {"start_time": 200 - i, "end_time": 200, "description": f"{i} " + "x" * 9000}
        for i in range(150)
    ]
    segments = parse_answer(json.dumps(items), 500).segments
    assert len(segments) == MAX_SEGMENTS
    assert list(segments) == sorted(segments, key=lambda s: s.start_seconds)
    assert max(len(s.description) for s in segments) == MAX_DESCRIPTION_CHARS


def test_descriptions_are_one_clean_line():
    item = {"start_time": 0, "end_time": 1, "description": " a\n\tred\x00 \x1b[31mcar\ud800 "}
    (segment,) = parse_answer(json.dumps([item]), 5).segments
    assert segment.description == "a red [31mcar\ufffd"


@pytest.mark.parametrize(
    "answer", ["[]", " [ ] ", "```json\n[]\n```", "No object.", "none", "no matching objects"]
)
def test_nothing_matches(answer):
    parsed = parse_answer(f"<think>hm [1]</think><answer>{answer}</answer>", 10)
    assert parsed.segments == ()
    assert parse_answer(answer, 10).segments == ()
    assert parse_boxes(answer, 10, 10) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot tell.",
        "<think>[]</think>",
        "<answer></answer>",
        f"<think>{OBJECT}</think><answer></answer>",
        f"<think>{OBJECT}</think>",
        "<answer>{}</answer>",
        "<answer>[[]]</answer>",
        '<answer>[{"start_time":"soon","description":"x"}]</answer>',
        '<answer>[{"start_time":1,"end_time":2,"description":"  "}]</answer>',
        '<answer>[{"start_time":1,"end_time":2,"description":"a re',
    ],
)
def test_nothing_to_read(text):
    with pytest.raises(ModelOutputError, match="expected a JSON list") as error:
        parse_answer(text, 10)
    assert error.value.text == text


def test_a_phrase_holds_for_the_whole_clip():
    parsed = parse_description("<think>a guitar</think><answer>the brown guitar</answer>", 5)
    assert parsed.segments == (Segment(0, 5, "the brown guitar"),)
    assert parse_description("<answer>none</answer>", 5).segments == ()
    assert parse_description(f"<answer>[{OBJECT}]</answer>", 5).segments == ONE
    with pytest.raises(ModelOutputError):
        parse_description("<answer>...</answer>", 5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("just words", ("", "just words")),
        ("<think>a</think>b", ("a", "b")),
        ("<think>a</think><answer>b</answer>c", ("a", "b")),
        ("<answer>b</answer></think>", ("<answer>b</answer>", "b")),
        ("<think>a", ("a", "")),
        ("<think>a<answer>b", ("a", "b")),
        ("</think><think>", ("", "<think>")),
    ],
)
def test_split(text, expected):
    assert split_answer(text) == expected


# -- boxes ------------------------------------------------------------------------------------------


def boxes(text: str) -> list[tuple[list[float], str]]:
    return [(box.tolist(), label) for box, label in parse_boxes(text, 100, 50)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"bbox_2d":[1,2,30,40],"label":"a cat"}]', [([1, 2, 30, 40], "a cat")]),
        ('```json\n[{"bbox_2d": [1.5, 2, 30, 40.25]}]\n```', [([1.5, 2, 30, 40.25], "")]),
        ("[{'bbox_2d': [30, 40, 1, 2], 'label': 7}]", [([1, 2, 30, 40], "")]),
        ('[{"bbox_2d":[-5,-1e30,1e30,60],"label":"x"}]', [([0, 0, 100, 50], "x")]),
        ('[{"bbox_2d":[200,10,300,20]},{"bbox_2d":[5,5,5,9]}]', []),
        ('[{"bbox_2d":[1,2,3,4]},{"bbox_2d":[1,2,3,4],"label":"b"}]', [([1, 2, 3, 4], "")]),
        (
            '[{"bbox_2d":[1,2,3,4]},{"bbox_2d":[NaN,2,3,4]},{"bbox_2d":[1,2,3]}]',
            [([1, 2, 3, 4], "")],
        ),
        ('<think>x</think><answer>{"bbox_2d":[1,2,3,4]}</answer>', [([1, 2, 3, 4], "")]),
        ('[{"bbox_2d":[1,2,3,4],"label":"a"},{"bbox_2d":[9,9,', [([1, 2, 3, 4], "a")]),
        ("[]", []),
    ],
)
def test_boxes(text, expected):
    assert boxes(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "there is a cat",
        '[{"bbox_2d":[1,2,3]}]',
        '[{"bbox_2d":[1,2,3,1e999]}]',
        '[{"bbox_2d":[1,2,3,NaN]}]',
        '[{"bbox_2d":[1,2,3,' + "9" * 5000 + "]}]",
        '[{"bbox_2d":"1,2,3,4"}]',
    ],
)
def test_no_boxes_to_read(text):
    with pytest.raises(ModelOutputError, match="bbox_2d") as error:
        parse_boxes(text, 100, 50)
    assert error.value.text == text


def test_boxes_are_capped():
    text = json.dumps([{"bbox_2d": [i, 0, i + 1, 9]} for i in range(200)])
    assert len(parse_boxes(text, 1000, 10)) == MAX_BOXES


# -- totality ---------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=3), st.booleans())
def test_every_json_list_of_objects_is_read_exactly(items, ascii_only):
    """Objects come out equal and in order; nested ones besides."""
    found = iter(find_objects(json.dumps(items, ensure_ascii=ascii_only)).objects)
    assert all(any(item == other for other in found) for item in items)


TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
MARKS = ["[", "]", "{", "}", '"', "'", ":", ",", "\\", "-", " ", "\n", "[]"]
WORDS = ["start_time", "end_time", "description", "bbox_2d", "label", "00:01.5", "1e999", "NaN"]
ODDITIES = ["null", "\ud800", "\x00", "é", "\\u12", OBJECT]
pieces = st.sampled_from([*TAGS, *MARKS, *WORDS, *ODDITIES])
mutated = st.tuples(
    st.sampled_from(
        [
            f"<think>a</think><answer>[{OBJECT},{OBJECT}]</answer>",
            '[{"bbox_2d":[1,2,30,40],"label":"a cat"},{"bbox_2d":[5,6,7,8],"label":"b"}]',
        ]
    ),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), pieces), max_size=6),
).map(lambda pair: _mutate(*pair))


def _mutate(text: str, edits: list[tuple[float, int, str]]) -> str:
    for where, removed, inserted in edits:
        at = int(where * len(text))
        text = text[:at] + inserted + text[at + removed :]
    return text


@settings(deadline=None, max_examples=250)
@given(
    st.one_of(st.text(), st.lists(pieces, max_size=40).map("".join), mutated),
    st.floats(0, 1e4),
)
def test_only_model_output_errors_escape(text, duration):
    for parse in (parse_answer, parse_description):
        try:
            parsed = parse(text, duration)
        except ModelOutputError:
            continue
        assert len(parsed.segments) <= MAX_SEGMENTS
        for segment in parsed.segments:
            assert 0 <= segment.start_seconds <= segment.end_seconds <= duration
            assert 0 < len(segment.description) <= MAX_DESCRIPTION_CHARS
            segment.description.encode()
    try:
        found = parse_boxes(text, 64, 48)
    except ModelOutputError:
        return
    for box, label in found:
        assert box.dtype == np.float32
        assert 0 <= box[0] < box[2] <= 64
        assert 0 <= box[1] < box[3] <= 48
        assert len(label) <= MAX_DESCRIPTION_CHARS


@pytest.mark.parametrize(
    "unit",
    [
        *("[", "{", "]", '"', "'", "[{", '{"a":', '{"', '["', "['", '[ " ', "[]", "{}", "\\"),
        *('["\\"', "[a'", "1", ",", ":", "[1,", '{"a":{"bbox_2d":[1', " ", "[ \n", *TAGS),
    ],
)
def test_linear_time(unit):
    """Quadratic time would be many minutes."""
    text = (unit * (200_000 // len(unit) + 1))[:200_000]
    start = time.process_time()
    for candidate in (text, "[" + text, '{"a":"' + text):
        find_objects(candidate)
        split_answer(candidate)
    assert time.process_time() - start < 20


@pytest.mark.parametrize("unit", ["[", "{", '["'])
def test_a_megabyte_of_brackets(unit):
    """Some seconds at worst; quadratic time would be hours."""
    start = time.process_time()
    with pytest.raises(ModelOutputError):
        parse_answer(unit * (1_000_000 // len(unit)), 10)
    assert time.process_time() - start < 20
