"""The paper's rewards: the same cases as the published code's bugs, mended."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from omni_training.rewards import keyframes
from omni_training.rewards.boxes import box_reward, frame_box_reward
from omni_training.rewards.format import format_reward
from omni_training.rewards.jobs import DusScores
from omni_training.rewards.masks import mask_reward
from omni_training.rewards.paper import PaperReward
from omni_training.rewards.preset import total
from omni_training.rewards.presets import scoring
from omni_training.rewards.truth import ClipTruth

from omni_sdk.media.clock import Clock

PAPER = PaperReward()


def clip_truth(
    num_frames: int = 24, visible: slice = slice(None), spans: np.ndarray | None = None
) -> ClipTruth:
    masks = np.zeros((1, num_frames, 8, 10), bool)
    masks[0, visible, 2:6, 1:5] = True
    return ClipTruth.from_masks(masks, spans)


def clock(num_frames: int = 24) -> Clock:
    return Clock(np.arange(num_frames) * 10, np.arange(num_frames) / 3, num_frames / 3)


def answer(*moments: tuple[object, object], text: str = "a dog") -> str:
    body = ", ".join(
        f'{{"start_time": "{a}", "end_time": "{b}", "description": "{text}"}}' for a, b in moments
    )
    return f"<think>looking</think><answer>[{body}]</answer>"


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (answer(("00:01.00", "00:02.00")), 1.0),
        (answer(("00:01.5", "00:02")), 1.0),
        (answer(), 1.0),  # "nothing matches" is a legal answer
        ("<think></think><answer></answer>", 0.0),  # published: 1
        ("<think>a</think><answer>words</answer>", 0.0),  # published: 1
        (answer(("1", "2")) + answer(("1", "2")), 0.0),  # two answers; published: 1
        ("x" + answer(("1", "2")), 0.0),
        (answer(("1", "2")).replace("</think>", ""), 0.0),
        ("", 0.0),
    ],
)
def test_format(text: str, reward: float) -> None:
    assert format_reward(text, 12.0) == reward


@pytest.mark.parametrize(
    ("count", "target", "frames", "reward"),
    [
        (4, 4, 24, 1.0),
        (3, 4, 24, 0.75),
        (5, 4, 24, 0.75),
        (8, 4, 24, 0.0),
        (64, 4, 24, 0.0),  # more is never paid
        (0, 4, 24, 0.0),
        (2, 4, 2, 1.0),  # a clip of two frames holds two moments
        (1, 1, 24, 1.0),
    ],
)
def test_number(count: int, target: int, frames: int, reward: float) -> None:
    assert keyframes.number_reward(count, target, frames) == reward


@pytest.mark.parametrize(
    ("samples", "visible", "reward"),
    [
        ([0, 7, 14, 21], slice(None), 1.0),
        ([0, 1, 2, 3], slice(None), 0.25),  # published: the same as the line above
        ([0, 0, 0, 0], slice(None), 0.25 - 0.2 * 3 / 4),
        ([5], slice(None), 0.25),
        ([0, 1], slice(12, None), 0.0),  # moments without the object cover nothing
        ([12, 15, 18, 21], slice(12, None), 1.0),
        ([], slice(None), 0.0),
        ([12, 13], slice(12, 14), 1.0),  # to be seen on two frames only
    ],
)
def test_diversity(samples: list[int], visible: slice, reward: float) -> None:
    shown = clip_truth(visible=visible).union_areas > 0
    assert keyframes.diversity_reward(samples, shown, 4) == pytest.approx(reward)


@pytest.mark.parametrize(
    ("samples", "areas", "reward"),
    [
        ([0, 1], [10, 5, 0], 0.75),
        ([0, 0, 1], [10, 5, 0], 0.75),  # a frame counts once
        ([2], [10, 5, 0], 0.0),
        ([], [10, 5, 0], 0.0),
        ([0], [0, 0, 0], 0.0),
    ],
)
def test_saliency(samples: list[int], areas: list[int], reward: float) -> None:
    assert keyframes.saliency_reward(samples, areas) == pytest.approx(reward)


BOX = (10, 10, 30, 30)
FAR = (60, 60, 70, 70)


@pytest.mark.parametrize(
    ("found", "true", "reward"),
    [
        ([BOX], [BOX], 1.0),
        ([(0, 10, 30, 30)], [(0, 10, 30, 30)], 1.0),  # [6] at the left border
        (
            [FAR, BOX],
            [BOX],
            0.5,
        ),  # [10] the best box counts wherever it stands; a surplus one costs
        ([BOX, FAR], [BOX], 0.5),
        ([BOX], [BOX, FAR], 0.5),
        ([FAR, BOX], [BOX, FAR], 1.0),
        ([], [BOX], 0.0),
        ([BOX], [], 0.0),
        ([], [], 1.0),
        ([(10, 10, 20, 30)], [BOX], 0.5),
        ([BOX] * 500, [BOX], 1 / 500),  # a flood of boxes ends at once
    ],
)
def test_frame_boxes(
    found: list[tuple[int, ...]], true: list[tuple[int, ...]], reward: float
) -> None:
    assert frame_box_reward(found, true) == pytest.approx(reward)


def test_boxes_are_averaged_over_keyframes() -> None:
    assert box_reward([[BOX], []], [[BOX], [BOX]], absent=False) == 0.5
    assert box_reward([], [], absent=False) == 0.0
    assert box_reward([], [], absent=True) == 1.0
    assert box_reward([[]], [[]], absent=True) == 1.0
    assert box_reward([[BOX]], [[]], absent=True) == 0.0


def test_masks() -> None:
    empty, full, half = (np.zeros((4, 4), bool) for _ in range(3))
    full[:] = True
    half[:2] = True
    assert mask_reward([(half, full), (full, full)]) == 0.75
    # [12] frames without any pixel are no merit; published: 0.75
    assert mask_reward([(empty, empty)] * 3 + [(empty, full)]) == 0.0
    assert mask_reward([(empty, empty)]) == 1.0


def score(text: str, truth: ClipTruth, preset: PaperReward = PAPER) -> dict[str, float]:
    text_scores = preset.score_text(text, truth, clock(truth.num_frames))
    dus = DusScores(1.0, 1.0, num_boxes=1) if text_scores.points else None
    rewards = preset.combine(text_scores, dus, truth)
    return rewards.parts | {"total": total(rewards, preset)}


def test_a_perfect_answer_earns_everything() -> None:
    spread = answer(*((f"{t}", f"{t}") for t in (1, 4, 7, 10)))
    parts = score(spread, clip_truth())
    assert parts["total"] == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("text", "absent", "r_k", "r_a", "r_g", "fmt"),
    [
        (answer(), True, 1.0, 1.0, 1.0, 1.0),  # [7] "none" can be said, and is right
        (answer(), False, 0.0, 0.0, 0.0, 1.0),
        ("garbage", True, 0.0, 0.0, 0.0, 0.0),  # [7] garbage is never right
        ("garbage", False, 0.0, 0.0, 0.0, 0.0),
        (answer(("1", "2")), True, 0.0, 1.0, 1.0, 1.0),  # wrong moment; the DUS found nothing there
    ],
)
def test_absence(text: str, absent: bool, r_k: float, r_a: float, r_g: float, fmt: float) -> None:
    parts = score(text, clip_truth(visible=slice(0, 0) if absent else slice(None)))
    assert (parts["r_k"], parts["r_a"], parts["r_g"], parts["format"]) == pytest.approx(
        (r_k, r_a, r_g, fmt)
    )


def test_length_is_not_paid() -> None:
    """Longer thoughts and longer spans around the same middle earn the same."""
    short = answer(("6", "6"))
    long = answer(("0", "12")).replace("looking", "looking " * 400)
    assert score(short, clip_truth()) == score(long, clip_truth())


@pytest.mark.parametrize(
    ("start", "seconds"),
    [
        ("00:01.50", 1.5),
        ("00:01.5", 1.5),  # [1] published: 1.05
        ("00:01.500", 1.5),  # [1] published: 6
        ("00:01", 1.0),  # [1] published: dropped, likewise the rest
        ("00:00:03.00", 3.0),
        ("00:09", 9.0),
        (1.5, 1.5),
    ],
)
def test_times_are_read_as_decimals(start: object, seconds: float) -> None:
    got = PAPER.score_text(answer((start, start)), clip_truth(), clock())
    assert [p.sample for p in got.points] == [int(2 * seconds)]


GOOD_OBJECT = '{"start_time": "00:02.00", "end_time": "00:03.00", "description": "a dog"}'


@pytest.mark.parametrize(
    ("body", "description"),
    [
        (f"[{GOOD_OBJECT}]", "a dog"),
        (GOOD_OBJECT, "a dog"),
        (f"[{GOOD_OBJECT},]", "a dog"),
        (GOOD_OBJECT.replace('"', "'"), "a dog"),
        (GOOD_OBJECT.replace("a dog", "a } dog"), "a } dog"),  # [2] published: broken
        (f'{{"objects": [{GOOD_OBJECT}]}}', "a dog"),  # [2] published: broken
        (GOOD_OBJECT.replace("00:03.00", "00:13.00"), "a dog"),  # [3] clamped; published: dropped
        # [3] swapped; published: dropped
        (GOOD_OBJECT.replace("00:02.00", "00:05.00").replace("00:03.00", "00:00.00"), "a dog"),
    ],
)
def test_answers_in_many_forms_are_paid(body: str, description: str) -> None:
    got = PAPER.score_text(f"<think>t</think><answer>{body}</answer>", clip_truth(), clock())
    assert got.format == 1.0
    assert got.r_k > 0
    assert [p.description for p in got.points] == [description]


@pytest.mark.parametrize("num_frames", [1, 2, 17, 23, 24])
def test_the_last_frame_can_be_named(num_frames: int) -> None:
    """[4], [5]: the clock lasts as long as its frames, odd counts included, and no frame comes twice."""
    virtual = Clock(np.arange(num_frames), np.arange(num_frames) * 1.0, num_frames * 1.0, 2.0)
    assert virtual.duration_seconds == num_frames / 2
    end = virtual.duration_seconds
    got = PAPER.score_text(answer((end, end)), clip_truth(num_frames), virtual)
    assert [p.sample for p in got.points] == [num_frames - 1]
    named = {virtual.sample_at(t / 2) for t in range(num_frames)}
    assert named == set(range(num_frames))


@pytest.mark.parametrize(
    ("weights", "dus", "r_a", "r_g"),
    [
        ({"alpha_g": 0.0}, DusScores(0.5, None, num_boxes=1), 0.5, 0.0),  # masks not asked for
        ({}, DusScores(0.0, 0.0, num_boxes=0), 0.0, 0.0),  # no box was found
        ({"alpha_a": 0.0}, DusScores(0.5, 0.25, num_boxes=1), 0.5, 0.25),
    ],
)
def test_no_part_takes_another_along(
    weights: dict[str, float], dus: DusScores, r_a: float, r_g: float
) -> None:
    """[9] published: without masks or boxes, R_A and saliency are dropped as well."""
    preset, truth = replace(PAPER, **weights), clip_truth()
    text = preset.score_text(answer(("6", "6")), truth, clock())
    got = preset.combine(text, dus, truth)
    assert (got.r_a, got.r_g, got.parts["saliency"]) == (r_a, r_g, 1.0)
    expected = got.format + got.r_k + preset.alpha_a * r_a + preset.alpha_g * r_g
    assert total(got, preset) == pytest.approx(expected)
    assert got.r_k == pytest.approx((0.25 + 0.25 + 1.0) / 3)


@pytest.mark.parametrize("size", [(333, 501), (5, 7), (8, 8)])
def test_masks_of_any_size_and_of_any_object_are_scored(size: tuple[int, int]) -> None:
    """[11] published: no mask where height x width is no multiple of 8, or where object 0 got no box."""
    from omni_training.rewards.jobs import GroundingPoint, RewardJob
    from omni_training.workers.scorer import ClipScorer

    from omni_sdk.dus.masks import rle_encode
    from omni_sdk.media.frames import VideoFrame
    from omni_sdk.stages import FrameMasks, ObjectMask

    true = np.zeros((2, 3, *size), bool)
    true[0, 0, :2, :2] = True  # object 0 is to be seen on the first frame only
    true[1, :, -3:, -3:] = True

    class Frames:
        height, width, num_frames = *size, 3

        def forward(self, start: int, stop: int, *, luma: bool = False) -> object:
            return (VideoFrame(i, float(i), np.zeros((8, 8, 3), np.uint8)) for i in range(3))

    class Clip:
        truth, frames = ClipTruth.from_masks(true), Frames()

        def true_masks(self) -> dict[int, np.ndarray]:
            return dict(enumerate(true.any(axis=0)))

    class Run(list[FrameMasks]):
        object_ids = ((7,),)
        timings_ms: ClassVar[dict[str, float]] = {}

    class SecondObjectOnly:
        def track(self, frames: object, prompts: object, config: object) -> object:
            return Run(
                FrameMasks(i, float(i), (ObjectMask(7, rle_encode(true[1, i]), 1.0),))
                for i in range(3)
            )

    scorer = ClipScorer(lambda name: Clip(), None, SecondObjectOnly())  # type: ignore[arg-type]
    box = tuple(float(v) for v in Clip.truth.boxes_xyxy[1, 1])
    point = GroundingPoint(1, 1, "the second", (box,))  # type: ignore[arg-type]
    got = scorer.score(RewardJob("a", "a", (point,)))
    union = int(true[:, 0].any(axis=0).sum())
    assert got.mask == pytest.approx((int(true[1, 0].sum()) / union + 2) / 3)
    assert got.box == 1.0


def test_times_past_the_end_are_clamped() -> None:
    late = score(answer(("11", "99")), clip_truth())
    assert late["diversity"] == pytest.approx(0.25)  # [3] published: dropped


def test_grounded_moments_are_capped_and_are_those_of_inference() -> None:
    text = answer(*((str(t), str(t)) for t in range(12)))
    got = PAPER.score_text(text, clip_truth(), clock())
    assert [p.frame_index for p in got.points] == [0, 20, 40, 60]
    assert [p.sample for p in got.points] == [0, 2, 4, 6]


def test_span_reward_uses_the_true_span() -> None:
    preset = replace(PAPER, lambda_span=1.0, lambda_num=0, lambda_saliency=0, lambda_diversity=0)
    truth = clip_truth(spans=np.array([[2.0, 6.0]]))
    assert score(answer(("4", "8")), truth, preset)["r_k"] == pytest.approx(1 / 3)


def test_wrong_presets_are_refused() -> None:
    with pytest.raises(ValueError, match="target_keyframes"):
        PaperReward(target_keyframes=0)
    with pytest.raises(ValueError, match="paper, reference-2025-05, reference, got 'other'"):
        scoring("other")
