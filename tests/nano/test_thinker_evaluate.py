"""The evaluation gives the truth full scores, and takes away for each kind of mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omni_training.nano.evaluation import write_evaluation
from omni_training.nano.thinker.config import ThinkerConfig
from omni_training.nano.thinker.evaluate import Evaluator, evaluate_thinker
from omni_training.nano.thinker.model import build_thinker, save_thinker
from omni_training.nano.thinker.vocabulary import build_tokenizer

from omni_sdk.demo import texts
from omni_sdk.demo.render import box
from omni_sdk.demo.scene import Scene, make_scene
from omni_sdk.demo.world import FAMILIES, STEP_SECONDS, held_out_seed
from omni_sdk.grs.request import Completion
from omni_sdk.stages import GroundedBox

CLIPS = 3


@pytest.fixture(scope="module")
def checkpoint(thinker_config: ThinkerConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = build_tokenizer(thinker_config.sizes.image_pixels)
    thinker = build_thinker(thinker_config.sizes, tokenizer, 0)
    folder = tmp_path_factory.mktemp("random") / "thinker"
    return save_thinker(thinker, tokenizer, thinker_config.sizes, folder)


@pytest.fixture
def evaluator(checkpoint: Path) -> Evaluator:
    return Evaluator(checkpoint)


class Oracle:
    """Says what it is told to, and gives the true boxes of a family's clips at a picture's size."""

    def __init__(self, evaluator: Evaluator, replies: list[str], scenes: list[Scene]) -> None:
        self._replies, self._scenes = replies, scenes
        self._asked = [
            (scene, index, span)
            for scene in scenes
            for index, span in scene.answers
        ]  # fmt: skip
        evaluator.thinker = self  # type: ignore[assignment]
        evaluator.grounder = self  # type: ignore[assignment]

    def generate(self, requests: list[Any], config: Any) -> list[Completion]:
        assert len(requests) == len(self._replies)
        return [Completion(np.zeros(0, np.int64), text, "eos") for text in self._replies]

    def ground(self, images: list[Any], descriptions: list[str]) -> list[tuple[GroundedBox, ...]]:
        found = []
        for image, description in zip(images, descriptions, strict=True):
            scene, index, span = next(
                a for a in self._asked if texts.describe(a[0].objects[a[1]].name) == description
            )
            self._asked.remove((scene, index, span))
            step = min(15, int((span[0] + span[1]) / 2))
            true = box(scene, step * STEP_SECONDS, image.shape[:2], index)
            assert true is not None
            found.append((GroundedBox(np.array(true, np.float32), ""),))
        return found


def scenes_of(family: str) -> list[Scene]:
    return [make_scene(held_out_seed(family, i), family) for i in range(CLIPS)]


@pytest.mark.parametrize("family", ["direct", "two", "while", "null"])
def test_the_truth_gets_full_scores(evaluator: Evaluator, family: str) -> None:
    scenes = scenes_of(family)
    Oracle(evaluator, [texts.grs_answer(s) for s in scenes], scenes)
    found = {name: s.mean for name, s in evaluator.family(family, CLIPS).items()}
    assert found.pop("absent") == (family == "null")
    assert found.pop("box_iou", 1.0) > 0.9  # the truth in whole pixels of a 4 times smaller picture
    assert found == dict.fromkeys(found, 1.0)
    assert ("span_iou" in found) == (family != "null")


def test_mistakes_cost(evaluator: Evaluator) -> None:
    """One clip unreadable, one answered "absent", one with only the first of its two objects."""
    scenes = scenes_of("two")
    partial = texts.grs_answer(scenes[2]).split("},{")[0] + "}]</answer>"
    Oracle(evaluator, ["nonsense", "<think></think><answer>[]</answer>", partial], scenes[2:])
    found = {name: s.mean for name, s in evaluator.family("two", CLIPS).items()}
    assert found["format"] == pytest.approx(2 / 3)
    assert found["absent"] == pytest.approx(1 / 3)
    assert found["exact"] == 0
    assert found["span_iou"] == pytest.approx(1 / 6)
    assert found["listed"] == pytest.approx(1 / 3)


def test_a_random_model_is_evaluated_from_frames_and_from_mp4(
    checkpoint: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    for mp4 in (False, True):
        rows = evaluate_thinker(checkpoint, clips=1, mp4=mp4, families=FAMILIES[:1])
        path = write_evaluation(
            tmp_path, checkpoint, rows, key="families", clips=1, mp4=mp4, say=lines.append
        )
        value = json.loads(path.read_text())
        assert value["source"] == ("mp4" if mp4 else "frames")
        assert list(value["families"]) == ["direct", "grounder"]
        assert value["families"]["direct"]["format"]["n"] == 1
    assert len(lines) == 4
