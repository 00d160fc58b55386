"""Scenes by the rules of the next model: what the rules promise holds in every one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from omni_sdk.demo import facts, texts
from omni_sdk.demo.render import object_map
from omni_sdk.demo.scene import Scene, make_scene
from omni_sdk.demo.sound import waveform
from omni_sdk.demo.world import (
    FAMILIES,
    NEXT,
    PITCH_HZ,
    SHIPPED,
    STAGE,
    STEP_SECONDS,
    STEPS,
    held_out_seed,
)

COUNT = 60


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scene]]:
    return {
        family: [make_scene(held_out_seed(family, i), family, NEXT) for i in range(COUNT)]
        for family in FAMILIES
    }


def all_of(scenes: dict[str, list[Scene]]) -> list[Scene]:
    return [scene for group in scenes.values() for scene in group]


def test_rules_are_whole() -> None:
    for rules in (SHIPPED, NEXT):
        assert len(rules.families) == len(rules.probabilities)
        assert sum(rules.probabilities) == pytest.approx(1)
    assert NEXT.families == FAMILIES


def test_shipped_rules_know_no_new_family() -> None:
    with pytest.raises(ValueError, match="unknown family 'stops'"):
        make_scene(0, "stops")


def test_the_same_seed_gives_the_same_scene() -> None:
    assert make_scene(12, None, NEXT) == make_scene(12, None, NEXT)
    assert len({make_scene(i, None, NEXT).family for i in range(150)}) == len(FAMILIES)


def test_movers_cross_the_stage_and_stay_whole(scenes: dict[str, list[Scene]]) -> None:
    """A motion that 16-pixel cells can show, and every object inside the stage while it is visible."""
    for scene in all_of(scenes):
        for item in scene.objects:
            places = [item.centre(t * STEP_SECONDS) for t in range(item.enter, item.leave)]
            xs, ys = np.array(places).T
            assert min(xs.min(), ys.min()) >= item.radius - 1e-6
            assert max(xs.max(), ys.max()) <= STAGE - item.radius + 1e-6
            assert len(places) >= 5
            travel = xs[-1] - xs[0]
            if item.direction == "still":
                assert (xs == xs[0]).all()
                assert (ys == ys[0]).all()
            else:
                assert abs(travel) >= NEXT.min_travel - 1e-6
                assert (travel > 0) == (item.direction == "right")


def test_who_stops_moves_first_and_rests_after(scenes: dict[str, list[Scene]]) -> None:
    stops = 0
    for scene in all_of(scenes):
        for item in scene.objects:
            if item.stop is None:
                continue
            stops += 1
            assert item.enter + 3 <= item.stop <= item.leave - 4
            at = item.centre(item.stop * STEP_SECONDS)
            assert item.centre((item.leave - 1) * STEP_SECONDS) == at
            assert item.centre((item.stop - 1) * STEP_SECONDS) != at
        assert sum(item.stop is not None for item in scene.objects) <= 1
    assert stops > COUNT


@pytest.mark.parametrize("family", FAMILIES)
def test_the_recorded_answers_are_all_the_answers(
    scenes: dict[str, list[Scene]], family: str
) -> None:
    wanted = {"null": 0, "two": 2}.get(family, 1)
    for scene in scenes[family]:
        word = texts.deciding_word(scene.query, NEXT)
        assert list(scene.answers) == facts.answers(scene, word)
        assert len(scene.answers) == wanted
        answer = json.loads(texts.json_answer(scene))
        assert [a["description"] for a in answer] == [
            f"a {scene.objects[i].name}" for i, _ in scene.answers
        ]
        assert f" target {word} " in texts.thinking(scene)
        assert texts.thinking(scene).endswith(
            " ".join(scene.objects[i].name for i, _ in scene.answers) or " none"
        )


def test_what_a_family_promises(scenes: dict[str, list[Scene]]) -> None:
    for scene in scenes["distractor"]:
        absent = [tone for tone in scene.tones if tone.source is None]
        assert len(scene.tones) == 2
        assert len(absent) == 1
        assert absent[0].absent_shape not in {o.shape for o in scene.objects}
    for scene in scenes["while"]:
        assert len(facts.matches(scene, "heard")) == 2
        assert len(facts.matches(scene, "while")) == 1
    for scene in scenes["sound"]:
        assert len(scene.tones) == 1
    for scene in scenes["moves"]:
        side = scene.query.split()[-1]
        assert [o.direction for o in scene.objects].count(side) == 1
    queries = {scene.query for scene in scenes["null"]}
    assert {"the shape that stops", "the shape that makes the sound"} <= queries


def test_tones_never_touch(scenes: dict[str, list[Scene]]) -> None:
    for scene in all_of(scenes):
        for tone in scene.tones:
            assert 0 <= tone.start < tone.end <= STEPS
            if tone.source is not None:
                who = scene.objects[tone.source]
                assert who.enter <= tone.start < tone.end <= who.leave
        if len(scene.tones) == 2:
            assert scene.tones[0].end < scene.tones[1].start


def test_occluded_targets_are_hidden_in_the_middle_of_their_visit(
    scenes: dict[str, list[Scene]],
) -> None:
    hidden = []
    for scene in scenes["occluded"]:
        ((index, (start, end)),) = scene.answers
        areas = []
        for step in range(start, end):
            ids = object_map(scene, step * STEP_SECONDS, (96, 96))
            areas.append(int((ids == index + 1).sum()))
        middle = object_map(scene, (start + end) / 2 * STEP_SECONDS, (96, 96))
        hidden.append(int((middle == index + 1).sum()) < 0.4 * max(areas))
    assert np.mean(hidden) > 0.9


def test_both_tones_are_heard() -> None:
    scene = make_scene(held_out_seed("distractor", 0), "distractor", NEXT)
    wave = waveform(scene)
    for tone in scene.tones:
        part = wave[int(tone.start * 8000) : int(tone.end * 8000)]
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part))))
        peak = spectrum.argmax() * 16_000 / len(part)
        assert peak == pytest.approx(PITCH_HZ[scene.tone_shape(tone)], rel=0.05)


def test_the_grammar_of_a_listing() -> None:
    scene = make_scene(held_out_seed("stops", 0), "stops", NEXT)
    stopper = next(o for o in scene.objects if o.stop is not None)
    start, end = (texts.format_time(s) for s in stopper.span_seconds)
    stop = texts.format_time(stopper.stop * STEP_SECONDS if stopper.stop else 0)
    entry = f" {stopper.name} {stopper.direction} {start} {end} stops {stop}"
    assert entry in texts.listing(scene)
    assert f" stops {stopper.color} left " in texts.digest(scene)
