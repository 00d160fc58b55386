"""The procedural world as training samples: truth for rewards, prompts from arrays, and bad names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from omni_training.data.samples import SampleGuard
from omni_training.data.world import WorldClip, world_clock, world_scene
from omni_training.data.world_samples import TRAINING_BASE, training_ids, world_samples
from omni_training.rewards.paper import PaperReward

from omni_sdk.bundle.bundle import embedded
from omni_sdk.demo.render import object_map
from omni_sdk.demo.scene import make_scene
from omni_sdk.demo.texts import grs_answer
from omni_sdk.demo.world import HELD_OUT_BASE, STAGE, STEP_SECONDS
from omni_sdk.errors import DatasetError

needs_nano = pytest.mark.skipif(embedded("nano") is None, reason="no embedded nano bundle here")
PAPER = PaperReward(target_keyframes=1, alpha_a=0.0, alpha_g=0.0)


def two_answers() -> str:
    return f"two:{TRAINING_BASE}"


def test_names_choose_family_and_seed() -> None:
    assert training_ids(3, first=5, families=("last", "sound")) == [
        f"last:{TRAINING_BASE + 5}",
        f"sound:{TRAINING_BASE + 6}",
        f"last:{TRAINING_BASE + 7}",
    ]
    assert world_scene("stops:7").family == "stops"
    assert world_scene("any:7") == make_scene(7)
    far = TRAINING_BASE - HELD_OUT_BASE
    assert far > 100_000 * 11, "training clips lie beyond every family's held-out range"


@pytest.mark.parametrize(
    "name",
    ["", "direct", "direct:", "direct:-1", "direct:1e3", "later:1", "direct:" + "9" * 30,
     "../direct:1"],
)  # fmt: skip
def test_bad_names_are_told(name: str) -> None:
    with pytest.raises(DatasetError, match="expected a sample"):
        world_scene(name)


@pytest.mark.parametrize(
    "options",
    [{"count": 0}, {"count": 1, "first": -1}, {"count": 1, "families": ()},
     {"count": 1, "families": ("later",)}],
)  # fmt: skip
def test_bad_choices_are_told(options: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match="expected"):
        training_ids(options.pop("count"), **options)


def test_truth_is_that_of_the_scene() -> None:
    name = f"leaves:{TRAINING_BASE}"
    scene, clip = world_scene(name), WorldClip(name, size=96)
    assert scene.target is not None
    shown = [object_map(scene, t * STEP_SECONDS, (96, 96)) == scene.target + 1 for t in range(16)]
    np.testing.assert_array_equal(clip.truth.areas[0], [m.sum() for m in shown])
    masks = clip.true_masks()
    assert all((masks[t] == shown[t]).all() for t in range(16))
    assert clip.truth.spans_seconds is not None
    np.testing.assert_array_equal(clip.truth.spans_seconds, [scene.span_seconds])


def test_a_query_with_two_answers_pays_two_moments() -> None:
    name = two_answers()
    truth, text = WorldClip(name).truth, grs_answer(world_scene(name))
    assert truth.areas.shape == (2, 16)
    assert truth.num_moments == 2
    both = PAPER.score_text(text, truth, world_clock()).parts
    assert both["num"] == 1
    assert both["format"] == 1
    head, _, tail = text.partition("},{")
    alone = PAPER.score_text(f"{head}}}]</answer>", truth, world_clock()).parts
    assert tail
    assert alone["num"] == 0.5
    assert alone["r_k"] < both["r_k"]


@needs_nano
@pytest.mark.parametrize("family", ["direct", "sound", "stops", "null"])
def test_the_true_answer_earns_the_most(family: str) -> None:
    ids, store = world_samples("nano", count=4, families=(family,))
    for name in ids:
        request, text = store.request(name), grs_answer(world_scene(name))
        assert request.mel, "sound is part of the prompt"
        assert request.vision[0].grid_thw[0] == 8
        paid = PAPER.score_text(text, store.truth(name), store.clock(name))
        other = "<think></think><answer>[]</answer>"
        if family == "null":
            other = (
                '<think></think><answer>[{"start_time":"00:00.00","end_time":"00:08.00",'
                '"description":"a red circle"}]</answer>'
            )
        wrong = PAPER.score_text(other, store.truth(name), store.clock(name))
        assert paid.format == 1
        assert paid.r_k > wrong.r_k


@needs_nano
def test_prompts_are_those_of_the_pipeline() -> None:
    """What a sample shows is what the shipped reasoner is shown of the same clip, up to coding noise."""
    from omni_training.data.video_samples import open_processor
    from omni_training.data.world_samples import observe_scene

    processor = open_processor("nano")
    scene = world_scene("direct:20000000")
    seen = observe_scene(scene, processor)
    assert seen.frames.shape == (16, *processor.frame_size(STAGE, STAGE), 3)
    assert seen.audio is not None
    assert len(seen.audio) == 8 * 16_000
    assert seen.clock.duration_seconds == 8.0


@needs_nano
def test_unreadable_samples_are_counted_and_too_many_stop() -> None:
    ids, store = world_samples("nano", count=2)
    guard = SampleGuard(store, max_failed_share=0.3, min_seen=3)
    assert guard.request(ids[0]) is not None
    assert guard.request("direct:x") is None
    assert list(guard.failed) == ["direct:x"]
    assert guard.request(ids[1]) is not None
    with pytest.raises(DatasetError, match="2 of 4 samples"):
        guard.request("no sample at all")


@needs_nano
def test_two_targets_are_judged_as_both() -> None:
    """A judge's score takes both objects for the target: naming one of them is half of an answer."""
    from omni_training.experiment.judge import ClipEvaluator, open_judge
    from omni_training.experiment.settings import JudgeSettings

    name = two_answers()
    evaluator, text = (
        ClipEvaluator(open_judge(JudgeSettings()), name),
        grs_answer(world_scene(name)),
    )
    both = evaluator.score(text)
    assert both.right_description == 1
    assert both.right_object == 1
    assert both.span_iou == 1
    one = evaluator.score(f"{text.partition('},{')[0]}}}]</answer>")
    assert one.right_description == 0
    assert one.j < both.j
