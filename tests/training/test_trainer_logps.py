"""The silent class of bug: log-probabilities computed on other inputs than the rollout's.

Each test takes `bug`: None must pass; every named bug, put back, must be seen. Tolerance 1e-4 on
log-probabilities: float32 with and without a cache differ by about 1e-6 here; a bug moves them by 0.1 and
more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from omni_training.grpo.tiny import SPECIAL, VOCABULARY

TOLERANCE = 1e-4
SEEN = 1e-2
ROWS = [{"prompt": [{"role": "user", "content": ""}], "sample_id": str(i // 2)} for i in range(8)]


class Recorder:
    """Generates as TRL asks, keeping the logits that each token was sampled from."""

    def __init__(self, trainer: Any) -> None:
        self._generate = trainer.model.generate
        trainer.model.generate = self
        self.logps = torch.empty(0)

    def __call__(self, **kwargs: Any) -> torch.Tensor:
        out = self._generate(**kwargs, return_dict_in_generate=True, output_logits=True)
        tokens = out.sequences[:, kwargs["input_ids"].shape[1] :]
        logps = torch.stack(out.logits, 1).log_softmax(-1)
        self.logps = logps.gather(-1, tokens[..., None])[..., 0]
        return out.sequences


def rollout(trainer: Any) -> dict[str, Any]:
    trainer.model.train()
    torch.manual_seed(0)
    return trainer._generate_and_score_completions([dict(row) for row in ROWS])


def logps(trainer: Any, batch: dict[str, Any], model: Any = None) -> torch.Tensor:
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    with torch.no_grad():
        got, _, _ = trainer._get_per_token_logps_and_entropies(
            model or trainer.model, ids, mask, batch["completion_ids"].shape[1]
        )
    return got


def gap(a: torch.Tensor, b: torch.Tensor, batch: dict[str, Any]) -> float:
    mask = batch["completion_mask"].bool()
    return float((a - b)[mask].abs().max())


def put_back(trainer: Any, bug: str | None) -> None:
    """Break the log-probability passes as published or reported bugs did."""
    make_batch = trainer._batch

    def batch(media: Any, prompt: int, completion: int) -> dict[str, torch.Tensor]:
        if bug == "media of the next row":  # trl#5785, misaligned media
            media = [*media[1:], media[0]]
        value = make_batch(media, prompt, completion)
        if bug == "text positions":  # omni-r1.md section 3, bug 13
            value["position_ids"] = torch.arange(prompt + completion).expand(3, len(media), -1)
        if bug == "no media":  # stock TRL; R1-V#20
            value = {"position_ids": value["position_ids"]}
        return value

    trainer._batch = batch
    if bug == "no attention mask":
        forward = trainer.model.forward
        trainer.model.forward = lambda **kw: forward(**(kw | {"attention_mask": None}))


BUGS = ["text positions", "no media", "media of the next row", "no attention mask"]


@pytest.mark.parametrize(
    ("bug", "freeze_towers"), [(None, True), (None, False), *((bug, True) for bug in BUGS)]
)
def test_rollout_logps_are_those_of_generation(
    make_trainer: Callable[..., Any], bug: str | None, freeze_towers: bool
) -> None:
    """Left-padded prompts of unequal clips, with and without sound, in one batch."""
    trainer = make_trainer(beta=0.0, num_generations=2, trainer={"freeze_towers": freeze_towers})
    recorder = Recorder(trainer)
    batch = rollout(trainer)
    assert len({int(m.sum()) for m in batch["prompt_mask"]}) > 2, (
        "prompts must be of unequal length"
    )
    put_back(trainer, bug)
    difference = gap(logps(trainer, batch), recorder.logps, batch)
    if bug is None:
        assert difference < TOLERANCE
    else:
        assert difference > SEEN


def test_rollouts_of_adapters_have_the_logps_of_generation(
    make_trainer: Callable[..., Any],
) -> None:
    """LoRA that has learned something: rollouts and policy use it, the reference does not."""
    from omni_training.grpo.config import ModelSettings
    from omni_training.grpo.trl_config import lora_config

    lora = lora_config(ModelSettings("x", lora_rank=4))
    trainer = make_trainer(num_generations=2, trainer={"peft_config": lora})
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(len(name)))
    recorder = Recorder(trainer)
    batch = rollout(trainer)
    policy = logps(trainer, batch)
    assert gap(policy, recorder.logps, batch) < TOLERANCE
    assert gap(policy, batch["ref_per_token_logps"], batch) > SEEN
    with trainer.model.disable_adapter():
        assert gap(logps(trainer, batch), batch["ref_per_token_logps"], batch) < 1e-6


def test_chunked_passes_equal_whole_ones(make_trainer: Callable[..., Any]) -> None:
    trainer = make_trainer(beta=0.0, num_generations=2)
    batch = rollout(trainer)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    keep = batch["completion_ids"].shape[1]
    with torch.no_grad():
        whole, entropy, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, keep, compute_entropy=True
        )
        parts, entropies, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, keep, batch_size=3, compute_entropy=True
        )
    assert gap(whole, parts, batch) < TOLERANCE
    assert gap(entropy, entropies, batch) < TOLERANCE


@pytest.mark.parametrize("bug", [None, "no media"])
def test_policy_equals_reference_at_step_0(
    make_trainer: Callable[..., Any], bug: str | None
) -> None:
    trainer = make_trainer(num_generations=2)
    batch = rollout(trainer)
    policy = logps(trainer, batch)
    put_back(trainer, bug)
    difference = gap(policy, logps(trainer, batch, trainer.ref_model), batch)
    if bug is None:
        assert difference < 1e-6
        assert gap(policy, batch["ref_per_token_logps"], batch) < 1e-6
    else:
        assert difference > SEEN


@pytest.mark.parametrize("kind", ["video", "sound"])
def test_blanked_media_change_policy_and_reference(
    make_trainer: Callable[..., Any], kind: str
) -> None:
    trainer = make_trainer(num_generations=2)
    batch = rollout(trainer)
    models = (trainer.model, trainer.ref_model)
    before = [logps(trainer, batch, model) for model in models]
    for i, media in enumerate(trainer._media):
        if kind == "video":
            pixels = {k: torch.zeros_like(v) for k, v in media.pixels.items()}
            trainer._media[i] = replace(media, pixels=pixels)
        elif media.sounds is not None:
            trainer._media[i] = replace(media, sounds=torch.zeros_like(media.sounds))
    for model, old in zip(models, before, strict=True):
        assert gap(logps(trainer, batch, model), old, batch) > SEEN


def test_media_of_a_group_are_encoded_once(make_trainer: Callable[..., Any]) -> None:
    trainer = make_trainer(beta=0.0, num_generations=2)
    calls: list[int] = []
    trainer.model.model.visual.register_forward_hook(lambda *_: calls.append(1))
    batch = rollout(trainer)
    logps(trainer, batch)
    assert len(calls) == 1
    assert batch["media"][0] is batch["media"][1]


@pytest.mark.parametrize("suppressed", [True, False])
def test_media_tokens_are_never_sampled(make_trainer: Callable[..., Any], suppressed: bool) -> None:
    """The head is made to want media tokens; without suppression it gets them."""
    trainer = make_trainer(beta=0.0, num_generations=2, max_completion_length=12)
    wanted = [VOCABULARY[t] for t in SPECIAL if t != "<|im_end|>"]
    with torch.no_grad():
        trainer.model.lm_head.weight[wanted] *= 30
    if not suppressed:
        trainer.generation_config.suppress_tokens = None
        trainer.generation_kwargs.pop("suppress_tokens")
        trainer._get_per_token_logps_and_entropies = lambda *a, **k: (None, None, None)
    sampled = set(rollout(trainer)["completion_ids"].flatten().tolist()) - {VOCABULARY["<|pad|>"]}
    assert bool(sampled & set(wanted)) is not suppressed
