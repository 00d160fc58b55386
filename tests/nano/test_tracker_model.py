"""The tracker's model and its unrolled session, against the runtime."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from omni_export.clips import ArrayFrameSource
from omni_training.nano.tracker.clips import normalise
from omni_training.nano.tracker.config import TrackerConfig, TrackerSizes, TrackerStage
from omni_training.nano.tracker.model import new_model, open_memory
from omni_training.nano.tracker.unroll import TrackerUnroll

from omni_sdk.config import TrackingConfig
from omni_sdk.dus.sam2.propagation import Propagator
from omni_sdk.dus.sam2.tracker import Sam2Tracker
from omni_sdk.hf.sam2_checkpoint import dus_spec
from omni_sdk.hf.tracker import HfTracker
from omni_sdk.stages import KeyframePrompt

SIZES = TrackerSizes(
    image_size=96, channels=128, widths=(8, 16, 24, 32), blocks=(1, 1, 2, 1), heads=(1, 1, 2, 2)
)
LENGTH = 6


def images(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    frames = np.full((LENGTH, 96, 96, 3), 40, np.uint8)
    for t in range(LENGTH):
        frames[t, 20 + 4 * t : 50 + 4 * t, 30:60] = rng.integers(0, 255, 3)
    return frames


@pytest.fixture(scope="module")
def model():
    model = new_model(SIZES, 3).eval()
    open_memory(model, normalise(images(0)))
    return model


@pytest.mark.parametrize("prompted", [(0,), (3,), (1, 4), (5,)])
@pytest.mark.parametrize("bias", [-1.0, 2.0])
def test_unrolled_clip_equals_the_runtime(model, monkeypatch, prompted, bias) -> None:
    """Every score and mask of two objects in two clips, in both directions, absences included."""
    monkeypatch.setattr(
        model.mask_decoder.pred_obj_score_head.proj_out.bias, "data", torch.tensor([bias])
    )
    clips = [images(seed) for seed in (1, 2)]
    boxes = np.array([[30, 20, 60, 50], [10, 30, 80, 90]], np.float32)
    unroll = TrackerUnroll(model)
    with torch.no_grad():
        outputs = unroll.run(
            unroll.encode(normalise(np.concatenate(clips))),
            torch.arange(2),
            {t: torch.from_numpy(boxes) for t in prompted},
            max_pointers=LENGTH,
        )
    seen: dict[int, list] = {0: [], 1: []}
    plain = Propagator.memorise

    def spy(self, features, index, found):
        (only,) = found.values()
        seen[clip].append((index, only))
        return plain(self, features, index, found)

    monkeypatch.setattr(Propagator, "memorise", spy)
    tracker = HfTracker.from_model(model, dus_spec(model, "."))
    assert isinstance(tracker, Sam2Tracker)
    for clip in (0, 1):
        prompts = [KeyframePrompt(t, boxes[clip : clip + 1], (1,)) for t in prompted]
        list(tracker.track(ArrayFrameSource(clips[clip]), prompts, TrackingConfig()))
        assert sorted(index for index, _ in seen[clip]) == list(range(LENGTH))
        for index, found in seen[clip]:
            ours = outputs[index]
            assert ours.prompted == found.prompted == (index in prompted)
            # bfloat16 memories flip by a unit where sums are ordered otherwise
            assert abs(float(ours.scores[clip]) - found.score) < 0.02
            if found.score > 0:
                candidates = ours.masks[clip].numpy()
                error = np.abs(candidates - found.logits).max((1, 2)).min()
                assert error < 0.02 * max(1.0, np.abs(found.logits).max())


def test_gradients_reach_every_weight_that_inference_uses(model) -> None:
    model.zero_grad(set_to_none=True)
    unroll = TrackerUnroll(model)
    outputs = unroll.run(
        unroll.encode(normalise(images(1))),
        torch.zeros(1, dtype=torch.int64),
        {0: torch.tensor([[30.0, 20.0, 60.0, 50.0]])},
        present=torch.tensor([[True, True, False, True, True, True]]),
    )
    loss = sum(o.masks.square().mean() + o.ious.square().mean() + o.scores.sum() for o in outputs)
    loss.backward()
    untouched = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    model.zero_grad(set_to_none=True)
    # Mask prompts are never given. Keys' biases in plain attention move all scores alike (no gradient but
    # rounding). A point that is labelled "off" or "on" is never given either. One table is used nowhere.
    unused = ("mask_embed", "mask_downsample", "point_embed", "no_memory_positional_encoding")
    assert {n for n in untouched if not any(u in n for u in unused)} == set()


def test_a_model_is_a_function_of_its_seed() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two, other = new_model(SIZES, 1), new_model(SIZES, 1), new_model(SIZES, 2)
    assert torch.equal(before, torch.random.get_rng_state())
    a, b, c = (m.state_dict() for m in (one, two, other))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert not torch.equal(
        a["object_pointer_proj.proj_in.weight"], c["object_pointer_proj.proj_in.weight"]
    )
    frequencies = one.shared_image_embedding.positional_embedding
    assert torch.equal(frequencies, one.prompt_encoder.shared_embedding.positional_embedding)


def test_the_default_model_has_about_two_million_weights() -> None:
    count = sum(p.numel() for p in new_model(TrackerSizes(), 0).parameters())
    assert 1_500_000 < count < 2_500_000


@pytest.mark.parametrize(
    "bad", [{"image_size": 100}, {"image_size": 64}, {"channels": 96}, {"channels": 64}]
)
def test_sizes_that_cannot_be_are_refused(bad) -> None:
    with pytest.raises(ValueError, match="multiple"):
        dataclasses.replace(SIZES, **bad)
    with pytest.raises(ValueError, match="rise"):
        dataclasses.replace(SIZES, widths=(8, 8, 16, 32))


def test_stages_that_cannot_be_are_refused() -> None:
    stage = TrackerConfig().clip
    assert isinstance(stage, TrackerStage)
    with pytest.raises(ValueError, match="1 or more"):
        dataclasses.replace(stage, steps=0)
    with pytest.raises(ValueError, match="shortest"):
        dataclasses.replace(stage, frames=(5, 4))
