"""Clips and losses of the tracker's training: pure functions of a generator, true to the scenes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omni_training.nano.tracker.clips import TrackingBatch, draw_batch, perturb_box
from omni_training.nano.tracker.loss import batch_loss, mask_losses
from omni_training.nano.tracker.unroll import FrameOutput

from omni_sdk.metrics.boxes import box_iou


def batch(seed: int, length: int = 5, clips: int = 3, crossing: float = 0.0) -> TrackingBatch:
    rng = np.random.default_rng(seed)
    return draw_batch(rng, side=96, clips=clips, objects=3, length=length, crossing_share=crossing)


def test_a_batch_is_a_function_of_its_generator() -> None:
    one, two, other = batch(1), batch(1), batch(2)
    assert torch.equal(one.pixels, two.pixels)
    assert torch.equal(one.coverage, two.coverage)
    assert one.boxes.keys() == two.boxes.keys()
    assert all(torch.equal(one.boxes[t], two.boxes[t]) for t in one.boxes)
    assert not torch.equal(one.pixels, other.pixels)


@pytest.mark.parametrize("seed", range(6))
def test_a_batch_holds_together(seed) -> None:
    length = 1 + seed
    b = batch(seed, length)
    count = len(b.clip_of)
    assert b.pixels.shape == (3 * length, 3, 96, 96)
    assert b.pixels.dtype == torch.float32
    assert b.coverage.shape == (count, length, 24, 24)
    assert set(b.clip_of.tolist()) == {0, 1, 2}
    assert 0 <= float(b.coverage.min()) <= float(b.coverage.max()) <= 1
    area = b.coverage.sum((2, 3)) * 16  # pixels of the input
    assert torch.equal(b.present, area > 8 - 1e-3)
    assert (b.judged == (b.present | (area == 0))).all()
    assert 1 <= len(b.boxes) <= 2
    for t, boxes in b.boxes.items():
        assert (area[:, t] >= 30 - 1e-3).all()  # what is prompted can be seen
        assert ((boxes >= 0) & (boxes <= 96)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_objects_of_a_clip_never_share_a_cell() -> None:
    b = batch(4, 6, 4)
    for clip in range(4):
        assert float(b.coverage[b.clip_of == clip].sum(0).max()) <= 1 + 1e-6


def test_crossings_hide_an_object_little_by_little() -> None:
    def partly_covered(crossing: float) -> float:
        found = []
        for seed in range(4, 10):
            area = batch(seed, 12, 2, crossing).coverage.sum((2, 3))
            share = area / area.amax(1, keepdim=True)
            found.append(((share > 0.02) & (share < 0.6)).float().mean())
        return float(np.mean(found))

    assert partly_covered(1.0) > 1.5 * partly_covered(0.0)


def test_boxes_are_as_wrong_as_a_grounders() -> None:
    """About a third exact, and a good part around the IoU of .75 that a grounder reaches."""
    ious = []
    for seed in range(10):
        b = batch(seed, 1, 8)
        for coverage, box in zip(b.coverage[:, 0] > 0, b.boxes[0], strict=True):
            rows, columns = coverage.any(1).nonzero(), coverage.any(0).nonzero()
            true = 4 * np.array(
                [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32
            )
            ious.append(float(box_iou(true[None], box.numpy()[None])[0, 0]))
    # Cells are coarse: even exact boxes reach 0.85 or so.
    assert 0.65 < np.mean(ious) < 0.9
    assert 0.1 < np.mean(np.array(ious) < 0.65) < 0.5


def test_a_fifth_of_what_is_tracked_is_absent() -> None:
    shares = [1 - batch(seed, 8, 4).present.float().mean() for seed in range(8)]
    assert 0.18 < float(np.mean(shares)) < 0.4


def test_pictures_show_what_the_masks_say() -> None:
    """Shapes are saturated and the stage is dark: covered cells are brighter in some channel."""
    b = batch(7, 4, 3)
    pixels = b.pixels.reshape(3, 4, 3, 24, 4, 24, 4).mean((4, 6)).amax(2)  # (clips, L, cells)
    anything = torch.stack([b.coverage[b.clip_of == clip].sum(0) for clip in range(3)])
    assert pixels[anything > 0.99].median() > pixels[anything == 0].median() + 1


@given(
    st.tuples(st.floats(0, 80), st.floats(0, 80), st.floats(1, 40), st.floats(1, 40)),
    st.floats(0, 5),
    st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60)
def test_wrong_boxes_are_still_boxes(corner, error, seed) -> None:
    x, y, width, height = corner
    box = np.array([x, y, min(x + width, 96), min(y + height, 96)], np.float32)
    out = perturb_box(np.random.default_rng(seed), box, error, 96)
    assert out.dtype == np.float32
    assert (out >= 0).all()
    assert (out <= 96).all()
    assert (out[2:] - out[:2] >= 1 - 1e-5).all()
    if error == 0:
        np.testing.assert_allclose(out, box, atol=1e-5)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_the_right_mask_costs_least(balance) -> None:
    coverage = torch.zeros(1, 8, 8)
    coverage[:, 2:6, 2:6] = 1
    right, empty, moved = coverage * 20 - 10, coverage * 0 - 10, coverage.roll(2, 1) * 20 - 10
    loss, iou = mask_losses(torch.stack([right, empty, moved], 1), coverage, balance)
    assert loss[0, 0] < 0.01
    assert loss[0, 0] < loss[0, 2]
    assert loss[0, 0] < loss[0, 1]
    torch.testing.assert_close(iou[0], torch.tensor([1.0, 0.0, 1 / 3]))


def test_masks_of_absent_objects_and_doubtful_scores_are_not_judged() -> None:
    b = batch(3, 6, 3)
    count, length = b.present.shape
    assert (~b.present).any()

    def loss(masks: torch.Tensor, scores: torch.Tensor) -> tuple[float, float]:
        outputs = [
            FrameOutput(masks[:, t], torch.zeros(count, 4), scores[:, t], t == 0)
            for t in range(length)
        ]
        result = batch_loss(outputs, b, balance=0.0, with_score=True)
        assert result.score is not None
        return float(result.mask), float(result.score)

    masks = torch.randn(count, length, 4, 24, 24, generator=torch.Generator().manual_seed(0))
    scores = torch.where(b.present, 3.0, -3.0)
    changed = masks.clone()
    changed[~b.present] = 50.0
    assert loss(masks, scores)[0] == loss(changed, scores)[0]
    assert loss(masks, scores)[1] < 0.1 < loss(masks, -scores)[1]
    doubtful = torch.where(b.judged, scores, torch.full_like(scores, 30.0))
    assert loss(masks, doubtful)[1] == loss(masks, scores)[1]
