"""The reasoner and the grounder on a thinker: scripted for broken texts, trained for right answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from omni_sdk.config import GenerationConfig
from omni_sdk.demo.render import box, render
from omni_sdk.demo.scene import make_scene
from omni_sdk.demo.sound import waveform
from omni_sdk.demo.texts import describe, grs_answer, target_description
from omni_sdk.demo.world import STEP_SECONDS
from omni_sdk.dus.grounder import ThinkerGrounder, to_original
from omni_sdk.errors import ModelOutputError, QueryError
from omni_sdk.grs.processor import Processor
from omni_sdk.grs.reasoner import ThinkerReasoner
from omni_sdk.grs.request import Completion, ThinkerRequest
from omni_sdk.media.clock import Clock
from omni_sdk.stages import Grounder, Observation, Reasoner, Segment


@dataclass
class ScriptedThinker:
    """Answers with given texts: what a model writes is free, so these are all possible inputs."""

    texts: list[str]
    finish: str = "eos"
    calls: list[tuple[int, GenerationConfig]] = field(default_factory=list)

    def generate(
        self, requests: Sequence[ThinkerRequest], config: GenerationConfig
    ) -> list[Completion]:
        self.calls.append((len(requests), config))
        return [
            Completion(np.arange(7), text, self.finish, 3.0, 4.0)
            for text in self.texts[: len(requests)]
        ]


@pytest.fixture
def observation() -> Observation:
    clock = Clock(np.arange(8, dtype=np.int64), np.arange(8) * 1.0, 8.0, 2.0)
    return Observation(np.zeros((8, 28, 28, 3), np.uint8), clock)


@pytest.fixture
def processor(spec, tokenizer) -> Processor:
    return Processor(spec, tokenizer)


def test_reason(processor, observation, spec):
    text = '<think>t</think><answer>[{"start_time":3,"end_time":"9","description":"a"}]</answer>'
    thinker = ScriptedThinker([text])
    reasoner: Reasoner = ThinkerReasoner(thinker, processor)
    result = reasoner.reason(observation, "the car", GenerationConfig(temperature=0.5, seed=3))
    assert result.segments == (Segment(3.0, 4.0, "a"),)  # 8 frames last 4 virtual seconds
    assert (result.text, result.thinking) == (text, "t")
    assert (result.num_generated_tokens, result.timings_ms) == (
        7,
        {"prefill": 3.0, "generate": 4.0},
    )
    assert result.num_prompt_tokens > 100
    assert thinker.calls == [(1, GenerationConfig(512, 0.5, seed=3, thinking_budget=384))]
    assert reasoner.sampling is spec.sampling
    assert reasoner.sampling_rate == 16000
    assert reasoner.frame_size(480, 854) == (224, 420)


def test_ask(processor, observation):
    reasoner = ThinkerReasoner(ScriptedThinker(["Three drinks."]), processor)
    reply = reasoner.ask(observation, "How many?", GenerationConfig(max_new_tokens=9))
    assert (reply.answer, reply.thinking, reply.segments) == ("Three drinks.", "", ())


def test_unreadable_answers(processor, observation):
    config = GenerationConfig(max_new_tokens=20)
    with pytest.raises(ModelOutputError, match=r"^expected a JSON list") as error:
        ThinkerReasoner(ScriptedThinker(["hm"]), processor).reason(observation, "?", config)
    assert error.value.text == "hm"
    with pytest.raises(ModelOutputError, match="cut at 20 tokens"):
        ThinkerReasoner(ScriptedThinker(["hm"], "length"), processor).reason(
            observation, "?", config
        )


def test_a_phrase_as_answer(spec, tokenizer, observation):
    spec = replace(spec, prompts=replace(spec.prompts, reason="ref-avs"))
    reasoner = ThinkerReasoner(
        ScriptedThinker(["<think>t</think><answer>the guitar</answer>"]), Processor(spec, tokenizer)
    )
    result = reasoner.reason(observation, "what sounds", GenerationConfig())
    assert result.segments == (Segment(0.0, 4.0, "the guitar"),)


def test_ground(processor, caplog):
    images = [np.zeros((480, 854, 3), np.uint8), np.zeros((100, 60, 3), np.uint8)]
    images += [images[0]] * 2
    texts = [
        '[{"bbox_2d":[420,119,9999,238],"label":"dog"},{"bbox_2d":[5,5,5,5]}]',
        '[{"bbox_2d":[0,0,5,7]}]',
        "I see none",
        "[]",
    ]
    thinker = ScriptedThinker(texts)
    grounder: Grounder = ThinkerGrounder(thinker, processor)
    found = grounder.ground(images, ["a dog", "a cat", "a cow", "a hen"])
    assert thinker.calls == [(4, GenerationConfig(128))]
    (dog,) = found[0]
    assert dog.label == "dog"
    assert dog.box_xyxy.dtype == np.float32
    np.testing.assert_allclose(dog.box_xyxy, [427, 120, 854, 240], rtol=1e-6)  # seen at 840 x 476
    (cat,) = found[1]
    assert cat.label == "a cat"
    height, width = processor.image_size(100, 60)
    np.testing.assert_allclose(cat.box_xyxy, [0, 0, 5 * 60 / width, 7 * 100 / height], rtol=1e-6)
    assert found[2:] == [(), ()]
    assert "I see none" in caplog.text
    assert "a hen" not in caplog.text
    assert grounder.ground([], []) == []
    with pytest.raises(ValueError, match="one description per image"):
        grounder.ground(images, ["a dog"])
    with pytest.raises(QueryError):
        grounder.ground(images[:1], ["\x00"])


def test_mapping_stays_inside():
    full = to_original(np.array([0, 0, 840, 476], np.float32), (476, 840), (481, 853))
    assert full.tolist() == [0, 0, 853, 481]


class TorchThinker:
    """transformers' generate on our requests, one by one; positions are compared on the way."""

    def __init__(self, model, processor: Processor) -> None:
        self.model, self.processor = model, processor

    def generate(
        self, requests: Sequence[ThinkerRequest], config: GenerationConfig
    ) -> list[Completion]:
        return [self._one(request, config) for request in requests]

    @torch.no_grad()
    def _one(self, request: ThinkerRequest, config: GenerationConfig) -> Completion:
        (vision,) = request.vision
        suffix, prefix = ("_videos", "video") if vision.kind == "video" else ("", "image")
        ids = torch.from_numpy(request.input_ids)[None]
        grid = torch.tensor([vision.grid_thw])
        inputs = {
            f"pixel_values{suffix}": torch.from_numpy(vision.pixel_values),
            f"{prefix}_grid_thw": grid,
        }
        lengths, seconds = None, None
        if vision.kind == "video":
            seconds = torch.tensor([vision.seconds_per_grid])
            inputs["video_second_per_grid"] = seconds
        if request.mel:
            inputs["input_features"] = torch.from_numpy(request.mel[0])[None]
            lengths = torch.tensor([request.mel[0].shape[1]])
            inputs["feature_attention_mask"] = torch.ones(1, int(lengths), dtype=torch.long)
        mask = torch.ones_like(ids)
        images, videos = (grid, None) if prefix == "image" else (None, grid)
        positions, _ = self.model.model.get_rope_index(
            ids, images, videos, mask, request.audio_in_video, lengths, seconds
        )
        assert np.array_equal(positions[:, 0].numpy(), request.position_ids)
        out = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            **inputs,
            max_new_tokens=config.max_new_tokens,
            do_sample=False,
            eos_token_id=2,
            pad_token_id=0,
        )[0, ids.shape[1] :].numpy()
        return Completion(out, self.processor.decode(out), "eos")


@pytest.fixture(scope="module")
def nano(nano_directory, nano_spec):
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        nano_directory, dtype=torch.float32
    ).eval()
    processor = Processor.from_directory(nano_spec, nano_directory)
    thinker = TorchThinker(model, processor)
    return ThinkerReasoner(thinker, processor), ThinkerGrounder(thinker, processor)


def test_the_trained_model_answers_and_grounds(nano):
    """The checkpoint knows these five families; .96 to 1.0 right objects and box IoU .71 were measured."""
    reasoner, grounder = nano
    right, overlaps = [], []
    for seed in range(10):
        family = ("direct", "last", "leaves", "sound", "null")[seed % 5]
        scene = make_scene(5_000_000 + seed, family)
        clock = Clock(np.arange(16, dtype=np.int64), np.arange(16) * 0.5, 8.0, 2.0)
        frames = np.stack([render(scene, t, (48, 48)) for t in clock.pts_seconds])
        observation = Observation(frames, clock, waveform(scene))
        result = reasoner.reason(observation, scene.query, GenerationConfig())
        expected = target_description(scene)
        right.append([s.description for s in result.segments] == ([expected] if expected else []))
        if not right[-1] or not result.segments:
            continue
        (segment,) = result.segments
        time = clock.sample_at((segment.start_seconds + segment.end_seconds) / 2) * 0.5
        truth = box(scene, time, (192, 192), scene.target)
        if truth is not None:
            found = grounder.ground([render(scene, time, (192, 192))], [segment.description])[0]
            overlaps.append(max([_iou(b.box_xyxy, truth) for b in found], default=0.0))
    assert np.mean(right) >= 0.8
    assert len(overlaps) >= 5
    assert np.mean(overlaps) >= 0.55


def test_the_trained_grammar_parses(nano_spec):
    from omni_sdk.grs.parser import parse_answer

    for seed in range(50):
        scene = make_scene(seed)
        segments = parse_answer(grs_answer(scene), 8.0).segments
        assert len(segments) == len(scene.answers)
        assert set(segments) == {  # the parser sorts them by time
            Segment(start * STEP_SECONDS, end * STEP_SECONDS, describe(scene.objects[i].name))
            for i, (start, end) in scene.answers
        }


def _iou(a: np.ndarray, b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inner = max(0.0, width) * max(0.0, height)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return float(inner / (areas - inner))
