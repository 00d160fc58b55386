"""What would be sent to vLLM, held by a recording stand-in for its engine (vLLM itself is not run)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from omni_training.grpo.tiny import VOCABULARY, TinySamples, tiny_tokenizer
from omni_training.grpo.trl_config import media_tokens
from omni_training.grpo.vllm_rollouts import VllmRollouts, collapse, vllm_prompt

from omni_sdk.bundle.manifest import TokenSpec
from omni_sdk.errors import DatasetError

V = VOCABULARY
TOKENS = TokenSpec(
    pad=V["<|pad|>"], eos=(V["<|im_end|>"],), image=V["<|IMAGE|>"], video=V["<|VIDEO|>"],
    audio=V["<|AUDIO|>"], vision_start=V["<|vision_bos|>"], vision_end=V["<|vision_eos|>"],
    audio_start=V["<|audio_bos|>"], audio_end=V["<|audio_eos|>"], suppress=(),
)  # fmt: skip
WORD = 30


@dataclass
class Logprob:
    logprob: float


@dataclass
class Output:
    token_ids: list[int]
    logprobs: list[dict[int, Logprob]]


@dataclass
class Answer:
    outputs: list[Output]


class Recorder:
    """Stands for `vllm.LLM`: keeps what it is asked, and answers with numbered words."""

    def __init__(self) -> None:
        self.prompts: list[dict[str, Any]] = []
        self.params: list[dict[str, Any]] = []
        self.llm = self

    def generate(self, prompts: list[Any], params: list[Any], use_tqdm: bool) -> list[Answer]:
        self.prompts += prompts
        self.params += params
        return [
            Answer([Output([WORD + k], [{WORD + k: Logprob(-0.5 - k)}]) for k in range(p["n"])])
            for p in params
        ]


def rollouts() -> VllmRollouts:
    suppress = sorted({TOKENS.image, TOKENS.video, TOKENS.audio})
    return VllmRollouts(TOKENS, suppress_tokens=suppress, make_params=dict)


def test_a_step_runs_on_the_hooks_rollouts(make_trainer: Callable[..., Any]) -> None:
    trainer = make_trainer(trainer={"rollout_func": rollouts()}, max_steps=1)
    engine = trainer.vllm_generation = Recorder()
    trainer.train()
    assert len(engine.prompts) == 2, "8 rows of 2 samples: one request for each group"
    assert [p["n"] for p in engine.params] == [4, 4]
    assert engine.params[0]["logit_bias"] == dict.fromkeys(
        sorted({TOKENS.image, TOKENS.video, TOKENS.audio}), -100.0
    )
    assert engine.params[0]["max_tokens"] == trainer.args.max_completion_length
    (entry,) = [e for e in trainer.state.log_history if "loss" in e]
    assert entry["completions/mean_length"] == 1.0
    assert entry["reward_std"] > 0, "the recorder's words differ within a group"


def test_the_request_has_vllms_fields_and_the_trainers_media(
    make_trainer: Callable[..., Any],
) -> None:
    trainer = make_trainer(trainer={"rollout_func": rollouts()}, max_steps=1, num_samples=4)
    engine = trainer.vllm_generation = Recorder()
    trainer.train()
    sent = {tuple(p["prompt_token_ids"]): p for p in engine.prompts}
    store = TinySamples(trainer.accelerator.unwrap_model(trainer.model))
    seen = 0
    for number in range(4):
        request = store.request(str(number))
        prompt = sent.get(tuple(collapse(request.input_ids, TOKENS)))
        if prompt is None:
            continue
        seen += 1
        ids, data = prompt["prompt_token_ids"], prompt["multi_modal_data"]
        assert ids.count(TOKENS.video) == 1
        assert ids.count(TOKENS.audio) == len(request.mel)
        video = data["video"]
        (vision,) = request.vision
        assert video["video_grid_thw"].tolist() == [list(vision.grid_thw)]
        assert len(video["video_embeds"]) == np.prod(vision.grid_thw) // 4
        assert video["second_per_grid_ts"].tolist() == [vision.seconds_per_grid]
        assert prompt["mm_processor_kwargs"] == {
            "use_audio_in_video": False, "second_per_grid_ts": [vision.seconds_per_grid],
        }  # fmt: skip
        if request.mel:
            audio = data["audio"]
            assert audio["audio_feature_lengths"].tolist() == [request.mel[0].shape[1]]
            np.testing.assert_array_equal(audio["input_audio_features"], request.mel[0])
        else:
            assert "audio" not in data
    assert seen == 2


def test_skipped_samples_end_at_once(make_trainer: Callable[..., Any]) -> None:
    class Broken(TinySamples):
        def request(self, sample_id: str) -> Any:
            if int(sample_id) % 2:
                raise DatasetError("gone")
            return super().request(sample_id)

    hook = rollouts()
    trainer = make_trainer(
        trainer={"rollout_func": hook}, samples=Broken, guard={"max_failed_share": 1.0}, max_steps=2
    )
    engine = trainer.vllm_generation = Recorder()
    made: list[dict[str, Any]] = []
    trainer.rollout_func = lambda prompts, t: made.append(hook(prompts, t)) or made[-1]
    trainer.train()
    end = trainer.processing_class.eos_token_id
    rows = [
        row
        for batch in made
        for row in zip(batch["prompt_ids"], batch["completion_ids"], strict=True)
    ]
    skipped = [ids for prompt, ids in rows if prompt == [end]]
    assert len(rows) == 16
    assert skipped
    assert all(ids == [end] for ids in skipped)
    assert len(engine.prompts) == (16 - len(skipped)) // 4


def test_a_video_with_its_sound_is_one_placeholder() -> None:
    t = TOKENS
    inner = [t.audio_start, t.video, t.video, t.audio, t.video, t.audio, t.audio, t.audio_end]
    ids = np.array([WORD, t.vision_start, *inner, t.vision_end, WORD, WORD])
    assert collapse(ids, t) == [WORD, t.vision_start, t.video, t.vision_end, WORD, WORD]
    two = [t.vision_start, t.image, t.image, t.vision_end] * 2
    assert collapse(np.array(two), t) == [t.vision_start, t.image, t.vision_end] * 2


def test_raw_media_are_refused(make_trainer: Callable[..., Any]) -> None:
    from omni_training.grpo.media import PromptMedia

    trainer = make_trainer()
    request = TinySamples(trainer.accelerator.unwrap_model(trainer.model)).request("1")
    with pytest.raises(ValueError, match="frozen towers"):
        vllm_prompt(request, PromptMedia.of(request), TOKENS)


def test_media_tokens_are_what_is_suppressed(make_trainer: Callable[..., Any]) -> None:
    trainer = make_trainer()
    model = trainer.accelerator.unwrap_model(trainer.model)
    assert {TOKENS.image, TOKENS.video, TOKENS.audio} <= set(
        media_tokens(tiny_tokenizer(), model.config)
    )
    assert torch.is_tensor(model.lm_head.weight)
