"""Scenes equal those that the shipped model was trained and evaluated on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import numpy as np
import pytest

from omni_sdk.demo import texts
from omni_sdk.demo.scene import Scene, make_scene
from omni_sdk.demo.world import (
    COLORS,
    DEMO_FAMILIES,
    SHAPES,
    SHIPPED,
    STEP_SECONDS,
    STEPS,
    demo_clips,
    held_out_seed,
)

# Digests of 200 scenes each, made once by the program that drew the training data: held-out seeds of a
# family from its first on; seeds 0..199 where the family is drawn as well.
GOLDEN = {
    "direct": "aa39e3ca617af5f76d415b19229fa850",
    "last": "1cacc361ec3ed78dc88b490399e1a8b5",
    "leaves": "b8fb4acdfc9fb08dd8dad4e20e1a9435",
    "moves": "2438ef05db3ab45ec4792437353851d1",
    "sound": "78e6341d5183fc2875e38d78acbc6546",
    "null": "44b4dfb18cd3a449b4611f28fd160ce3",
    None: "9c19cdebb71c5b33e093452dbbcfec4b",
}


def canonical(scene: Scene) -> bytes:
    """Everything about a scene, positions rounded to the sprites' pixels on the event grid."""
    times = [t * STEP_SECONDS for t in range(STEPS)]
    objects, colors = scene.objects, list(COLORS)
    value = [
        scene.family,
        [colors.index(o.color) for o in objects],
        [SHAPES.index(o.shape) for o in objects],
        [o.radius for o in objects],
        [int(np.rint(o.centre(t)[0])) for o in objects for t in times],
        [int(np.rint(o.centre(t)[1])) for o in objects for t in times],
        [int(o.direction == "right") for o in objects],
        [o.enter for o in objects],
        [o.leave for o in objects],
        scene.tone and [scene.tone.source, scene.tone.start, scene.tone.end],
        scene.span and list(scene.span),
        scene.target,
        scene.query,
        scene.background.hex(),
        scene.noise_seed,
        texts.grs_answer(scene),
    ]
    return json.dumps(value).encode() + b"\n"


@pytest.mark.parametrize("family", GOLDEN)
def test_scenes_are_those_of_the_training_data(family: str | None) -> None:
    digest = hashlib.sha256()
    for number in range(200):
        seed = number if family is None else held_out_seed(family, number)
        digest.update(canonical(make_scene(seed, family)))
    assert digest.hexdigest()[:32] == GOLDEN[family]


@pytest.mark.parametrize("family", SHIPPED.families)
def test_targets_answer_their_queries(family: str) -> None:
    for number in range(50):
        scene = make_scene(held_out_seed(family, number), family)
        word = texts.deciding_word(scene.query)
        assert (scene.target is None) == (family == "null") == (scene.span is None)
        found = texts.lookup(scene, word).split()[-1] != "none"
        assert found == (family != "null")
        if family == "sound":
            assert scene.tone is not None
            assert scene.tone.source == scene.target
            assert scene.span == (scene.tone.start, scene.tone.end)
        elif scene.target is not None:
            who = scene.objects[scene.target]
            assert scene.span_seconds == who.span_seconds


def test_demo_clips_share_out_evenly_on_held_out_seeds() -> None:
    clips = list(demo_clips(20, seed=7))
    assert Counter(family for _, family in clips) == dict.fromkeys(DEMO_FAMILIES, 4)
    assert clips[0] == (5_000_007, "direct")
    assert clips[-1] == (5_500_010, "null")
    assert len({seed for seed, _ in clips}) == 20
    assert "moves" not in dict(map(reversed, clips))
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
