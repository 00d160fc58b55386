"""The loss against the paper's formula, computed one rollout at a time: no padding, no batch, no cache.

The oracle shares nothing with the trainer but the rollouts: a stock thinker gets raw media and makes its own
positions, advantages and the KL term are written out. Tolerance 1e-5: the same float32 numbers in other
shapes; every bug put back here moves the loss by more than 1e-3.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from omni_training.grpo.media import sound_batch
from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker

TOLERANCE = 1e-5
SEEN = 1e-3
BETA = 0.5
"""Ten times the paper's, so that the KL term weighs as much as the rest."""


def perturb(model: torch.nn.Module, scale: float = 0.1) -> None:
    """Move a policy away from its reference."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.dim() >= 2:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter += scale * parameter.std() * noise


def rows(prompts: int = 4, group: int = 4) -> list[dict[str, Any]]:
    return [
        {"prompt": [{"role": "user", "content": ""}], "sample_id": str(i // group)}
        for i in range(prompts * group)
    ]


def rollout(trainer: Any) -> dict[str, Any]:
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    torch.manual_seed(0)
    return trainer._generate_and_score_completions(rows())


def alone(model: Any, request: Any, completion: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities of one rollout, by a stock thinker that infers its own positions."""
    ids = torch.cat([torch.from_numpy(request.input_ids), completion])[None]
    inputs: dict[str, Any] = {}
    names = {"video": "pixel_values_videos", "image": "pixel_values"}
    for vision in request.vision:
        inputs[names[vision.kind]] = torch.from_numpy(vision.pixel_values)
        inputs[f"{vision.kind}_grid_thw"] = torch.tensor([vision.grid_thw])
        if vision.kind == "video":
            inputs["video_second_per_grid"] = torch.tensor([vision.seconds_per_grid])
    if request.mel:
        mel = [torch.from_numpy(m) for m in request.mel]
        inputs |= sound_batch(mel, torch.device("cpu"), torch.float32)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs).logits
    kept = logits[0, -len(completion) - 1 : -1].log_softmax(-1)
    return kept.gather(-1, completion[:, None])[:, 0]


def papers_loss(policy: Any, reference: Any, batch: dict[str, Any], store: Any, reward: Any) -> Any:
    """Omni-R1: on-policy ratio, A = (r - mean) / (std + 1e-4), k3, mean over tokens, then over rollouts."""
    names = [row["sample_id"] for row in rows()]
    completions = [
        ids[mask.bool()]
        for ids, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)
    ]
    rewards = torch.tensor(reward([c.tolist() for c in completions])).view(-1, 4)
    spread = rewards.std(dim=1, keepdim=True)
    advantages = ((rewards - rewards.mean(dim=1, keepdim=True)) / (spread + 1e-4)).flatten()
    losses = []
    for name, completion, advantage in zip(names, completions, advantages, strict=True):
        request = store.request(name)
        logp = alone(policy, request, completion)
        with torch.no_grad():
            ref = alone(reference, request, completion)
        ratio = torch.exp(logp - logp.detach())
        kl = torch.exp(ref - logp) - (ref - logp) - 1
        losses.append((BETA * kl - ratio * advantage).mean())
    return torch.stack(losses).mean()


BUGS = {
    "KL against itself": lambda t: setattr(t, "ref_model", t.model),
    "padding ignored in positions": lambda t: _batches(t, _unpadded_positions),
    "media of the next row": lambda t: _batches(t, _next_row),
    "no media": lambda t: _batches(t, _no_media),
}


def _batches(trainer: Any, change: Callable[..., Any]) -> None:
    make_batch = trainer._batch
    trainer._batch = lambda media, p, c: change(make_batch, media, p, c)


def _unpadded_positions(make_batch: Any, media: Any, prompt: int, completion: int) -> Any:
    """Positions start at the first column, as if no row were padded on the left."""
    value = make_batch(media, prompt, completion)
    for row, m in enumerate(media):
        shift = prompt - m.position_ids.shape[1]
        value["position_ids"][:, row] = value["position_ids"][:, row].roll(-shift, dims=-1)
    return value


def _next_row(make_batch: Any, media: Any, prompt: int, completion: int) -> Any:
    return make_batch([*media[1:], media[0]], prompt, completion)


def _no_media(make_batch: Any, media: Any, prompt: int, completion: int) -> Any:
    return {"position_ids": make_batch(media, prompt, completion)["position_ids"]}


@pytest.mark.parametrize(
    ("bug", "freeze_towers"), [(None, True), (None, False), *((bug, True) for bug in BUGS)]
)
def test_the_loss_is_the_papers(
    make_trainer: Callable[..., Any],
    tiny: ModuleType,
    tiny_checkpoint: Path,
    bug: str | None,
    freeze_towers: bool,
) -> None:
    """Images, videos and sounds of unequal length in one batch; loss and gradient."""
    trainer = make_trainer(
        beta=BETA,
        per_device_train_batch_size=16,
        samples=tiny.MixedMedia,
        trainer={"freeze_towers": freeze_towers},
    )
    perturb(trainer.model)
    if bug is not None:
        BUGS[bug](trainer)
    batch = rollout(trainer)
    lengths = {int(m.sum()) for m in batch["prompt_mask"]}
    assert len(lengths) == 4, "prompts must be of unequal length"
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()

    policy = Thinker.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    policy.load_state_dict(trainer.model.state_dict())
    reference = Thinker.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    store = tiny.MixedMedia(policy)
    expected = papers_loss(policy, reference, batch, store, tiny.odd_tokens)
    expected.backward()
    assert abs(float(expected)) > 10 * SEEN, "the case must have a loss to get wrong"
    gap = abs(float(loss) - float(expected))
    if bug is not None:
        assert gap > SEEN
        return
    assert gap < TOLERANCE
    theirs = dict(policy.named_parameters())
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(
                parameter.grad,
                theirs[name].grad,
                rtol=1e-3,
                atol=1e-5,
                msg=lambda m, n=name: f"{n}: {m}",
            )


def test_a_padded_batch_has_the_losses_of_its_groups_alone(
    make_trainer: Callable[..., Any], tiny: ModuleType
) -> None:
    """Left padding and unequal clips: the batch's loss is the mean of each group's, cut to its own length."""
    trainer = make_trainer(beta=BETA, per_device_train_batch_size=16, samples=tiny.MixedMedia)
    perturb(trainer.model)
    batch = rollout(trainer)
    with torch.no_grad():
        whole = float(trainer._compute_loss(trainer.model, batch))
        parts = []
        for start in range(0, 16, 4):
            scalar = {k: v for k, v in batch.items() if k == "num_items_in_batch"}
            group = {k: v[start : start + 4] for k, v in batch.items() if k not in scalar} | scalar
            columns = group["prompt_mask"].any(dim=0)
            group["prompt_ids"] = group["prompt_ids"][:, columns]
            group["prompt_mask"] = group["prompt_mask"][:, columns]
            parts.append(float(trainer._compute_loss(trainer.model, group)))
    assert whole == pytest.approx(sum(parts) / 4, abs=TOLERANCE)
    assert max(parts) - min(parts) > SEEN
