from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omni_sdk.errors import DatasetError
from omni_sdk.metrics import refavs

ON = np.zeros((8, 10), bool)
ON[2:6, 1:6] = True
OFF = np.zeros_like(ON)
TENTH = np.zeros_like(ON)
TENTH[0, :8] = True


def _official_f(pred: Any, gt: Any) -> float:
    """`Eval_Fmeasure` on probabilities, one pass per threshold, in double precision."""
    thresholds = np.linspace(0, 1 - 1e-10, 255).astype(np.float32)
    curves = []
    for frame, target in zip(pred, gt, strict=True):
        if not target.any():
            continue
        curve = []
        for threshold in thresholds:
            on = frame >= threshold
            right = float((on & target).sum())
            precision, recall = right / (on.sum() + 1e-20), right / (target.sum() + 1e-20)
            bottom = 0.3 * precision + recall
            curve.append(1.3 * precision * recall / bottom if bottom else 0.0)
        curves.append(curve)
    return float(np.mean(curves, axis=0).max()) if curves else 0.0


@pytest.mark.parametrize(
    ("pred", "gt", "j", "davis_j", "f_mask", "s"),
    [
        (ON, ON, 1.0, 1.0, 1.0, 0.5),
        (OFF, OFF, 1.0, 1.0, 0.0, 0.0),
        # A tenth covered by mistake.
        (TENTH, OFF, 0.9, 0.0, 0.0, 0.1**0.5),
        (OFF, ON, 0.0, 0.0, 0.0, 0.0),
        (~OFF, OFF, 0.0, 0.0, 0.0, 1.0),
        (~OFF, ON, 0.25, 0.25, 1.3 * 0.25 / (0.3 * 0.25 + 1), 1.0),
    ],
)
def test_edge_cases(pred: Any, gt: Any, j: float, davis_j: float, f_mask: float, s: float) -> None:
    score = refavs.score_clip([pred, pred], [gt, gt])
    assert score.j == pytest.approx(j)
    assert score.davis_j == pytest.approx(davis_j)
    assert score.f_mask == pytest.approx(f_mask)
    assert score.s == pytest.approx(s)
    assert score.num_frames == 2


@pytest.mark.parametrize("seed", range(5))
def test_f_equals_255_passes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gt = rng.random((4, 13, 17)) < 0.2
    gt[0] = False
    pred = np.clip(gt * 0.5 + rng.random(gt.shape) * 0.7 - 0.1, 0, 1).astype(np.float32)
    assert refavs.max_f_beta(pred, gt) == pytest.approx(_official_f(pred, gt), abs=1e-12)
    masks = pred > 0.4
    assert refavs.max_f_beta(masks, gt) == pytest.approx(_official_f(masks * 1.0, gt), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_the_official_tensors(seed: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 3, (6, 9, 11)).astype(np.float32))
    gt = torch.from_numpy((rng.random((6, 9, 11)) < 0.3).astype(np.int64))
    gt[2] = 0
    probabilities = torch.sigmoid(logits)
    on = (probabilities > 0.4).int()
    inter, union = (on * gt).sum((1, 2)), torch.max(on, gt).sum((1, 2))
    empty = gt.sum((1, 2)) == 0
    inter[empty], union[empty] = ((1 - gt) * (1 - on)).sum((1, 2))[empty], 99
    j = float((inter / (union + 1e-7)).sum() / 6)
    assert refavs.similarity(probabilities.numpy(), gt.numpy()) == pytest.approx(j, abs=1e-6)
    s = float(torch.sqrt((probabilities > 0.5).sum() / probabilities.numel()))
    assert refavs.null_s(probabilities.numpy()) == pytest.approx(s, abs=1e-6)


def test_mask_f_by_hand() -> None:
    # P = .9, R = .5.
    gt = np.zeros((1, 1, 100), bool)
    gt[..., :18] = True
    pred = np.zeros_like(gt)
    pred[..., :9] = True
    pred[..., 50] = True
    assert refavs.f_beta(pred, gt) == pytest.approx(1.3 * 0.9 * 0.5 / (0.3 * 0.9 + 0.5))


def test_s_depends_on_the_batch() -> None:
    clips = [np.zeros((2, 10, 10), bool), np.zeros((2, 10, 10), bool)]
    clips[1][:, 0] = True
    alone = sum(refavs.null_s(clip) for clip in clips) / 2
    assert alone == pytest.approx(0.158, abs=1e-3)
    assert refavs.null_s(np.concatenate(clips)) == pytest.approx(0.2236, abs=1e-3)


@pytest.mark.parametrize(
    ("pred", "gt", "match"),
    [
        (ON, ON, r"\(T, H, W\)"),
        ([ON], [ON[:-1]], "one size"),
        ([ON, ON], [ON], "one size"),
        (np.zeros((0, 4, 4)), np.zeros((0, 4, 4)), r"\(T, H, W\)"),
        ([ON * 2.5], [ON], "probabilities"),
        ([np.full(ON.shape, np.nan)], [ON], "probabilities"),
    ],
)
def test_bad_clips(pred: Any, gt: Any, match: str) -> None:
    with pytest.raises(DatasetError, match=match):
        refavs.score_clip(pred, gt)


def test_summary_and_mix() -> None:
    seen = refavs.summarise([refavs.score_clip([ON], [ON]), refavs.score_clip([OFF], [ON])])
    assert (seen.j, seen.davis_f, seen.num_clips) == (0.5, 0.5, 2)
    assert seen.jf == (seen.j + seen.f) / 2
    unseen = refavs.summarise([refavs.score_clip([ON], [ON])])
    assert refavs.mix(seen, unseen) == (seen.jf + 1.0) / 2
    with pytest.raises(DatasetError, match="at least one"):
        refavs.summarise([])


@pytest.mark.parametrize(
    "shape", [(256, 256), (720, 1280), (224, 224), (100, 333), (1, 1), (2, 700)]
)
def test_official_size(shape: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(shape[0])
    coarse = (rng.random((7, 9)) < 0.4).astype(np.uint8)
    mask = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_NEAREST)
    expected = cv2.resize(mask * np.uint8(255), (256, 256)) > 0
    ours = refavs.to_official_size(mask, truth=True)
    assert ours.shape == (256, 256)
    # cv2 interpolates in 11-bit fixed point, so that weights below 1/2048 vanish there.
    assert np.mean(ours != expected) < 1e-3
    assert refavs.to_official_size(mask, truth=False).sum() <= ours.sum()
    with pytest.raises(DatasetError, match=r"\(H, W\)"):
        refavs.to_official_size(mask[None], truth=True)
