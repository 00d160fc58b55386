"""Scenes equal those that models are trained and examined on, and hold what the world promises."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from omni_sdk.demo import facts, texts
from omni_sdk.demo.render import object_map
from omni_sdk.demo.scene import Scene, make_scene
from omni_sdk.demo.world import (
    FAMILIES,
    MIN_TRAVEL,
    PROBABILITIES,
    STAGE,
    STEP_SECONDS,
    STEPS,
    demo_clips,
    held_out_seed,
)

COUNT = 60
# Digests of 100 scenes each, made before the first model was trained on them: held-out seeds of a family from
# its first on; seeds 0..99 where the family is drawn as well.
GOLDEN = {
    "direct": "760f7879179d872a986e67342b8db440",
    "last": "efb96a9f2e7017f6fca61204cab738c0",
    "leaves": "ba5803ac7c136933bb033c38dc3d50d8",
    "moves": "adfe1aa7d718c09d043816e7ae3b1215",
    "sound": "f28c228975afb43b540cf16bf8782490",
    "null": "9028795c6a5031213394304e36b31ac7",
    "stops": "97ef5c676a75678b0ff8c32c7cd79f7c",
    "two": "4726f7c5a81c70faa80cc88d18b9efa2",
    "occluded": "97855437eed411169bec589232f6aab2",
    "distractor": "9568c6e55337ad681848f452b4d7b8d0",
    "while": "48ef0245ff5ee273ac375817238cac25",
    None: "49f775e6de5b0b6973ba464882e6dd24",
}


def canonical(scene: Scene) -> bytes:
    """Everything about a scene: what is asked and answered, where things are, the background and noise."""
    places = [(o.radius, *(round(v, 6) for v in o.start_xy + o.velocity_xy)) for o in scene.objects]
    text = f"{scene.family}|{scene.query}|{texts.grs_answer(scene)}|{places}"
    return f"{text}|{scene.background:.6f}|{scene.noise_seed}\n".encode()


@pytest.mark.parametrize("family", GOLDEN)
def test_scenes_are_those_of_the_training_data(family: str | None) -> None:
    digest = hashlib.sha256()
    for number in range(100):
        seed = number if family is None else held_out_seed(family, number)
        digest.update(canonical(make_scene(seed, family)))
    assert digest.hexdigest()[:32] == GOLDEN[family]


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scene]]:
    return {
        family: [make_scene(held_out_seed(family, i), family) for i in range(COUNT)]
        for family in FAMILIES
    }


def all_of(scenes: dict[str, list[Scene]]) -> list[Scene]:
    return [scene for group in scenes.values() for scene in group]


def test_families_are_drawn_by_their_probabilities() -> None:
    assert len(FAMILIES) == len(PROBABILITIES)
    assert sum(PROBABILITIES) == pytest.approx(1)
    assert len({make_scene(i).family for i in range(150)}) == len(FAMILIES)


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
                assert abs(travel) >= MIN_TRAVEL - 1e-6
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
        word = texts.deciding_word(scene.query)
        assert list(scene.answers) == facts.answers(scene, word)
        assert len(scene.answers) == wanted
        assert (scene.target is None) == (scene.span is None) == (wanted == 0)
        names = [scene.objects[i].name for i, _ in scene.answers]
        assert texts.lookup(scene, word) == f" target {word} {' '.join(names) or 'none'}"


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


def test_demo_clips_share_out_evenly_on_held_out_seeds() -> None:
    clips = list(demo_clips(44, seed=7))
    assert Counter(family for _, family in clips) == dict.fromkeys(FAMILIES, 4)
    assert clips[0] == (5_000_007, "direct")
    assert clips[-1] == (6_000_010, "while")
    assert len({seed for seed, _ in clips}) == 44
    assert set(Counter(family for _, family in demo_clips(100)).values()) == {9, 10}
    assert list(demo_clips(0)) == []


@pytest.mark.parametrize("number", [-1, 100_000])
def test_numbers_outside_the_held_out_range(number: int) -> None:
    with pytest.raises(ValueError, match="number in"):
        held_out_seed("direct", number)
    with pytest.raises(ValueError, match="number in"):
        list(demo_clips(1, seed=number))


def test_unknown_family_and_negative_count() -> None:
    with pytest.raises(ValueError, match="unknown family 'dance'"):
        make_scene(0, "dance")
    with pytest.raises(ValueError, match="0 or more"):
        list(demo_clips(-1))
