"""The published rewards: every case of the bug list that concerns rewards, with its number there."""

from __future__ import annotations

import numpy as np
import pytest
from omni_training.rewards import reference_terms
from omni_training.rewards.jobs import DusScores
from omni_training.rewards.preset import total
from omni_training.rewards.presets import PRESETS
from omni_training.rewards.refcocog import refcocog_reward
from omni_training.rewards.reference_text import objects_in, parse_time, read_answer
from omni_training.rewards.truth import ClipTruth

from omni_sdk.media.clock import Clock


def clip_truth(num_frames: int = 24, visible: slice = slice(None), objects: int = 1) -> ClipTruth:
    masks = np.zeros((objects, num_frames, 8, 10), bool)
    for n in range(objects):
        masks[n, visible, 2:6, 1 + n : 5 + n] = True
    return ClipTruth.from_masks(masks)


def clock(num_frames: int = 24) -> Clock:
    return Clock(np.arange(num_frames), np.arange(num_frames) / 2, num_frames / 2)


def moment(start: str, end: str, text: str = "a dog") -> str:
    return f'{{"start_time": "{start}", "end_time": "{end}", "description": "{text}"}}'


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:01.50", 1.5),
        ("00:01.5", 1.05),  # [1] the fraction counts hundredths
        ("00:01.500", 6.0),  # [1]
        ("00:01", None),  # [1]
        ("01:02:03.00", None),  # [1]
        ("09:00", None),  # [1] the paper's own figure
        ("1.5", None),
    ],
)
def test_times(text: str, seconds: float | None) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    ("answer", "objects", "complete", "valid"),
    [
        (moment("00:01.00", "00:02.00"), 1, 1, 1),
        (moment("00:01.00", "00:02.00", "a } dog"), 1, 0, 0),  # [2] a brace in the description
        ('{"a": ' + moment("00:01.00", "00:02.00") + "}", 1, 0, 0),  # [2] one level of nesting
        (moment("00:01.00", "00:13.00"), 1, 1, 0),  # [3] after the clip: dropped, not clamped
        (moment("00:03.00", "00:02.00"), 1, 1, 0),  # [3] swapped: dropped
        (moment("00:01.0", "00:02.00").replace('"', "'"), 1, 0, 0),
        ('{"start_time": 1, "end_time": 2, "description": "x"}', 1, 0, 0),
        ("", 0, 0, 0),
        ("[]", 0, 0, 0),
    ],
)
def test_reading(answer: str, objects: int, complete: int, valid: int) -> None:
    parsed = read_answer(answer, 24)
    assert (parsed.num_objects, parsed.num_complete, len(parsed.segments)) == (
        objects,
        complete,
        valid,
    )
    assert len(objects_in(answer)) == objects


@pytest.mark.parametrize(
    ("distinct", "reward"),
    [(1, 0.4), (2, 0.8), (3, 1.2), (4, 1.6), (5, 0.8), (6, 0.4), (7, 0.0), (8, -0.4)],
)
def test_frame_reward(distinct: int, reward: float) -> None:
    assert reference_terms.frame_reward(distinct) == pytest.approx(reward)


def test_diversity_counts_frames_and_not_where_they_are() -> None:
    crowded = "".join(moment(f"00:{i / 2:05.2f}", f"00:{i / 2:05.2f}") for i in (0, 1, 2, 3))
    spread = "".join(moment(f"00:{i / 2:05.2f}", f"00:{i / 2:05.2f}") for i in (0, 7, 14, 21))
    truth = clip_truth()
    assert reference_terms.moments_reward(crowded, truth).frame == pytest.approx(1.6)
    assert reference_terms.moments_reward(spread, truth).frame == pytest.approx(1.6)


def test_moments_add_up() -> None:
    """Two spans of 2 and 1 frames that share frame 2; the object is there from frame 2 on."""
    answer = moment("00:00.50", "00:01.00", "x") + moment("00:01.00", "00:01.00", "y")
    got = reference_terms.moments_reward(answer, clip_truth(visible=slice(2, None)))
    # per object: 0.2 match + 0.2 element + 0.2 time; ratios 1/2 and 1, over two objects
    assert got.cumulated == pytest.approx((6 * 0.2 + 0.5 + 1.0) / 2)
    assert got.frame == pytest.approx(0.8)
    assert got.overlap == pytest.approx(-0.2 - 0.5)
    assert got.grounded == ((1, "x"), (2, "x"))  # the first span that holds the frame names it
    assert got.saliency == pytest.approx(0.5, abs=1e-6)


def test_a_long_span_is_grounded_on_its_first_four_frames() -> None:
    got = reference_terms.moments_reward(moment("00:00.00", "00:12.00"), clip_truth())
    assert [frame for frame, _ in got.grounded] == [0, 1, 2, 3]
    assert got.overlap == pytest.approx(-0.2 * 23)
    assert got.frame == pytest.approx(0.4 * (7 - 24))


def test_an_answer_without_a_valid_object_still_earns() -> None:
    got = reference_terms.moments_reward("{}{}" + moment("0", "1"), clip_truth())
    assert got.cumulated == pytest.approx(0.2)
    assert got.grounded == ()


BOX = (10.0, 10.0, 30.0, 30.0)


@pytest.mark.parametrize(
    ("found", "true", "iou", "mismatch"),
    [
        ([BOX], [BOX], 1.0, 0.0),
        # [6] a perfect box at the left border earns nothing; one pixel further right it is perfect
        ([(0, 10, 30, 30)], [(0, 10, 30, 30)], 0.0, 0.0),
        ([(1, 10, 30, 30)], [(1, 10, 30, 30)], 1.0, 0.0),
        # [10] the best box is second in the output, and is cut before the matching
        ([(60, 60, 70, 70), BOX], [BOX], 0.0, -0.5),
        ([BOX, (60, 60, 70, 70)], [BOX], 1.0, -0.5),
        ([], [BOX], 0.0, 0.0),
        ([(-1, -1, -1, -1)], [BOX], 0.0, 0.0),
        # no true box on the frame: the pair does not count
        ([BOX], [(-1, -1, -1, -1)], 0.0, 0.0),
    ],
)
def test_box_terms(
    found: list[tuple[float, ...]], true: list[tuple[float, ...]], iou: float, mismatch: float
) -> None:
    boxes = np.array(true, np.float32).reshape(len(true), 1, 4)
    got = reference_terms.box_terms([found], boxes)
    assert got == pytest.approx((iou, mismatch), abs=1e-5)


def test_boxes_are_matched_within_the_cut() -> None:
    true = np.array([[BOX], [(50.0, 50.0, 60.0, 60.0)]], np.float32)
    swapped = [[(50, 50, 60, 60), BOX]]
    assert reference_terms.box_terms(swapped, true)[0] == pytest.approx(1.0)


def test_inclusive_boxes_of_a_mask() -> None:
    truth = clip_truth(visible=slice(1, None))
    boxes = reference_terms.true_inclusive(truth, [0, 1])
    np.testing.assert_array_equal(boxes[0], [[-1, -1, -1, -1], [1, 2, 4, 5]])


def test_empty_masks_are_paid() -> None:
    """[12] an answer that finds nothing earns the share of frames without the object."""
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    assert reference_terms.mask_j([(empty, empty)] * 3 + [(empty, full)]) == 0.75


@pytest.mark.parametrize(
    ("rewards", "tokens", "bonus"),
    [
        ([1.0, 1.0, 0.0], [320, 751, 400], [1.0, 0.0, 0.0]),
        ([1.0, 1.0], [750, 319], [1.0, 0.0]),
        ([1.0, 0.1], [400, 400], [0.0, 0.0]),  # only one reward above 0.1
    ],
)
def test_length_bonus(rewards: list[float], tokens: list[int], bonus: list[float]) -> None:
    assert reference_terms.length_bonus(rewards, tokens) == bonus


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        (
            '{"bbox_2d": [10, 10, 109, 109], "points_1": [20, 20], "points_2": [40, 40]}',
            1.0 + 0.4 + 1.0 + 1.0 + 1.0,
        ),
        # the points in the other order are as good
        (
            '{"bbox_2d": [10, 10, 109, 109], "points_1": [40, 40], "points_2": [20, 20]}',
            4.4,
        ),
        # a point outside the box: no point reward
        (
            '{"bbox_2d": [10, 10, 109, 109], "points_1": [4, 4], "points_2": [20, 20]}',
            3.4,
        ),
        ('{"bbox_2d": [10, 10, 109, 109]}', 2.4),
        ("", 0.0),
    ],
)
def test_refcocog(answer: str, reward: float) -> None:
    got = refcocog_reward(answer, (10, 10, 109, 109), ((20, 20), (40, 40)))
    assert got == pytest.approx(reward)


def test_format_is_paid_around_anything() -> None:
    text = "<think></think><answer></answer>"
    got = PRESETS["reference"].score_text(text, clip_truth(), clock())
    assert got.format == 1.0
    assert got.parts["cumulated"] == 0.0


GOOD = f"<think>t</think><answer>{moment('00:01.00', '00:01.00')}</answer>"


def test_total_is_the_published_sum() -> None:
    preset = PRESETS["reference"]
    truth = clip_truth()
    text = preset.score_text(GOOD, truth, clock())
    got = preset.combine(text, DusScores(box=0.5, mask=0.25, mismatch=-0.1, num_boxes=1), truth)
    # format 1 + cumulated 1.6 + alpha_k 0.4 + mismatch + 1 x 0.5 + 2 x 0.25
    assert total(got, preset) == pytest.approx(1 + 1.6 + 0.4 - 0.1 + 0.5 + 0.5)


@pytest.mark.parametrize(
    ("preset", "dus"),
    [
        ("reference-2025-05", DusScores(0.5, None, -0.1, 1)),  # alpha_G = 0
        ("reference", DusScores(0.5, 0.5, -0.1, 0)),  # no box was read
        ("reference", None),  # the tracker failed
    ],
)
def test_boxes_and_saliency_are_dropped_with_the_masks(preset: str, dus: DusScores | None) -> None:
    """[9]: the parts vanish together; the paper preset keeps each."""
    truth = clip_truth()
    text = PRESETS[preset].score_text(GOOD, truth, clock())
    got = PRESETS[preset].combine(text, dus, truth)
    assert (got.r_a, got.r_g, got.parts["saliency"], got.parts["mismatch"]) == (0, 0, 0, 0)
