"""The same checkpoints through the exported bundle and through torch: the same words and masks."""

from __future__ import annotations

import numpy as np
import pytest

from omni_sdk import Pipeline
from omni_sdk.config import GenerationConfig, PipelineConfig
from omni_sdk.demo.render import render
from omni_sdk.demo.scene import make_scene
from omni_sdk.errors import BundleError
from omni_sdk.stages import Keyframe, KeyframePrompt

CONFIG = PipelineConfig(generation=GenerationConfig(max_new_tokens=16))


@pytest.fixture(scope="module")
def frames():
    scene = make_scene(0, "direct")
    return [render(scene, t / 2, (96, 128)) for t in range(12)]


@pytest.fixture(scope="module")
def onnx_pipe(exported):
    return Pipeline.from_pretrained(exported.directory, device="cpu", backend="onnx")


@pytest.fixture(scope="module")
def torch_pipe(thinker_checkpoint, sam2_checkpoint):
    return Pipeline.from_pretrained(
        thinker_checkpoint, backend="torch", tracker=sam2_checkpoint, device="cpu"
    )


def test_words(onnx_pipe, torch_pipe, frames):
    ours = onnx_pipe.ask(frames, "What is there?", config=CONFIG)
    theirs = torch_pipe.ask(frames, "What is there?", config=CONFIG)
    assert ours.num_prompt_tokens == theirs.num_prompt_tokens
    assert ours.text == theirs.text
    assert ours.num_generated_tokens > 0


def test_masks(onnx_pipe, torch_pipe, frames):
    prompts = [
        KeyframePrompt(
            3, np.array([[10, 10, 60, 60], [50, 20, 110, 80]], np.float32), object_ids=(1, 2)
        ),
        KeyframePrompt(8, np.array([[30, 10, 90, 70]], np.float32), object_ids=(2,)),
    ]
    ours = onnx_pipe.track(frames, prompts)
    theirs = torch_pipe.track(frames, prompts)
    assert [len(t) for t in ours] == [12, 12]
    for a, b in zip(ours, theirs, strict=True):
        for left, right in zip(a.masks(), b.masks(), strict=True):
            union = (left | right).sum()
            assert not union or (left & right).sum() / union >= 0.99


def test_boxes_of_the_grounder(onnx_pipe, torch_pipe, frames):
    """Random weights ground nothing, but both say so alike and neither fails."""
    keyframes = [Keyframe(0.0, 1.0, t, t / 2, "a circle") for t in (2, 7)]
    left = onnx_pipe.ground(frames, keyframes)
    right = torch_pipe.ground(frames, keyframes)
    assert left.keyframes == right.keyframes == tuple(keyframes)
    for ours, theirs in zip(left.boxes, right.boxes, strict=True):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a.box_xyxy, b.box_xyxy)


def test_a_checkpoint_is_no_bundle(thinker_checkpoint):
    with pytest.raises(BundleError, match="pass backend='torch'"):
        Pipeline.from_pretrained(thinker_checkpoint)


def test_torch_without_a_tracker(thinker_checkpoint, frames):
    pipe = Pipeline.from_pretrained(thinker_checkpoint, backend="torch")
    with pytest.raises(ValueError, match="lacks a stage"):
        pipe(frames, "the circle")
