"""The reward columns that TRL sees, and what is logged of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omni_training.data.samples import SampleGuard
from omni_training.grpo.suite import COLUMNS, RewardsFailedError, RewardSuite
from omni_training.rewards.jobs import BackendStats, DusScores, RewardJob
from omni_training.rewards.preset import RewardPreset
from omni_training.rewards.presets import PRESETS
from omni_training.rewards.truth import ClipTruth

from omni_sdk.errors import MediaError
from omni_sdk.media.clock import Clock

GOOD = '<think>t</think><answer>[{"start_time": 1, "end_time": 1, "description": "a dog"}]</answer>'


class Store:
    def request(self, sample_id: str) -> Any:
        if sample_id == "broken":
            raise MediaError("broken.mp4: empty")
        return type("Request", (), {"input_ids": np.zeros(5, np.int64)})()

    def truth(self, sample_id: str) -> ClipTruth:
        masks = np.zeros((1, 8, 4, 4), bool)
        masks[0, :, :2] = True
        return ClipTruth.from_masks(masks)

    def clock(self, sample_id: str) -> Clock:
        return Clock(np.arange(8), np.arange(8) / 2, 4.0)

    def clip_id(self, sample_id: str) -> str:
        return sample_id


class Scripted:
    """A backend that fails every job of the clip "fails"."""

    def __init__(self) -> None:
        self.stats = BackendStats()
        self.batches: list[list[RewardJob]] = []

    async def score(self, jobs: Sequence[RewardJob]) -> list[DusScores | None]:
        self.batches.append(list(jobs))
        await asyncio.sleep(0)
        return [None if j.clip_id == "fails" else DusScores(0.5, 0.25, num_boxes=1) for j in jobs]

    def close(self) -> None: ...


def columns(
    preset: RewardPreset, texts: list[str], samples: list[str], tokens: int = 3
) -> tuple[dict[str, list[float | None]], dict[str, float], Scripted]:
    guard, backend = SampleGuard(Store()), Scripted()
    for sample in samples:
        guard.request(sample)
    suite = RewardSuite(preset, guard, backend)
    logged: dict[str, float] = {}

    async def all_of_them() -> list[list[float | None]]:
        conversations = [[{"role": "assistant", "content": t}] for t in texts]
        calls = [
            f(
                prompts=[[]] * len(texts),
                completions=conversations,
                completion_ids=[[0] * tokens] * len(texts),
                sample_id=samples,
                trainer_state=None,
                log_metric=lambda name, value: logged.update({name: value}),
                log_extra=lambda *_: None,
            )
            for f in suite.functions()
        ]
        return await asyncio.gather(*calls)

    return dict(zip(COLUMNS, asyncio.run(all_of_them()), strict=True)), logged, backend


def test_columns_share_one_scoring() -> None:
    got, logged, backend = columns(PRESETS["paper"], [GOOD, "no"], ["a", "a"])
    assert got["format"] == [1.0, 0.0]
    assert got["r_a"] == [0.5, 0.0]
    assert got["r_g"] == [0.25, 0.0]
    assert got["r_k"][1] == 0.0
    assert [len(batch) for batch in backend.batches] == [1]
    parts = {"format", "num", "saliency", "diversity", "span", "r_k", "r_a", "r_g"}
    assert {name.removeprefix("part/") for name in logged if name.startswith("part/")} == parts
    assert logged["part/r_a"] == 0.25


def test_an_unscored_rollout_is_none_in_every_column() -> None:
    """None in one column would be a reward of 0 there: TRL sums with nansum."""
    got, logged, _ = columns(PRESETS["paper"], [GOOD, GOOD, GOOD], ["a", "fails", "broken"])
    for values in got.values():
        assert values[0] is not None
        assert values[1:] == [None, None]
    assert logged["rollouts/unscored"] == 2
    assert logged["rollouts/skipped"] == 1
    assert logged["rollouts/failed_jobs"] == 1


def test_groups_without_variance_are_counted_per_column() -> None:
    texts = [GOOD, GOOD, GOOD, "no"]
    _, logged, _ = columns(PRESETS["paper"], texts, ["a", "a", "b", "b"])
    assert logged["zero_variance_groups/r_k"] == 1
    assert logged["zero_variance_groups/total"] == 1


def test_length_is_paid_in_the_reference_only() -> None:
    moment = '{"start_time": "00:01.00", "end_time": "00:01.00", "description": "x"}'
    answer = f"<think>t</think><answer>{moment}</answer>"
    short, _, _ = columns(PRESETS["reference"], [answer] * 2, ["a"] * 2, tokens=100)
    long, logged, _ = columns(PRESETS["reference"], [answer] * 2, ["a"] * 2, tokens=400)
    assert long["r_k"][0] - short["r_k"][0] == pytest.approx(1.0)  # type: ignore[operator]
    assert logged["part/length_bonus"] == 1.0
    paper = [columns(PRESETS["paper"], [answer] * 2, ["a"] * 2, tokens=n)[0] for n in (100, 400)]
    assert paper[0] == paper[1]


@pytest.mark.parametrize("bug", [None, "a column dropped"])
def test_every_part_reaches_the_log_and_the_reward(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str | None
) -> None:
    """Through TRL: each column and each part by name, and a reward that is their weighted sum.

    The published run lost R_A and saliency with the masks and nobody saw (bug [9]).
    """
    import torch
    from omni_training.grpo.config import GrpoSettings, ModelSettings, RewardSettings, RunConfig
    from omni_training.grpo.run import build_trainer
    from omni_training.grpo.tiny import VOCABULARY, TinySamples, tiny_tokenizer
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker

    if bug:
        monkeypatch.setattr(RewardSuite, "weights", property(lambda suite: [1.0, 1.0, 0.0, 2.0]))
    config = RunConfig(
        ModelSettings(str(tiny_checkpoint), dtype="float32"),
        GrpoSettings(num_generations=4, prompts_per_device=2, max_steps=1),
        RewardSettings("paper", {"alpha_g": 2.0}),
        output_dir=str(tmp_path),
    )
    model = Thinker.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    trainer = build_trainer(
        config, model, tiny_tokenizer(), [str(i) for i in range(4)], TinySamples(model), Scripted(),
        use_cpu=True, save_strategy="no", log_completions=False, disable_tqdm=True,
        gradient_checkpointing=False,
    )  # fmt: skip

    def answers(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        """The first group answers alike; the second has two moments, a late one and words."""
        moment = '[{"start_time": "%d", "end_time": "%d", "description": "a ball"}]'
        told = [moment % (1, 1)] * 4 + [moment % (1, 1), moment % (0, 0), "[]", "w1"]
        texts = [
            ["<think>", "w2", "</think>", "<answer>", t, "</answer>", "<|im_end|>"] for t in told
        ]
        ids = [[VOCABULARY[word] for word in text] for text in texts]
        asked = [r.input_ids.tolist() for r in trainer.rollout_requests]
        return {"prompt_ids": asked, "completion_ids": ids, "logprobs": None}

    trainer.rollout_func = answers
    trainer.train()
    (entry,) = [e for e in trainer.state.log_history if "loss" in e]
    means = [entry[f"rewards/{name}/mean"] for name in COLUMNS]
    assert means[0] == pytest.approx(7 / 8)  # the words are no answer
    assert means[2:] == pytest.approx(
        [6 / 8 * 0.5, 6 / 8 * 0.25]
    )  # neither are boxes asked of "[]"
    parts = {"format", "num", "saliency", "diversity", "span", "r_k", "r_a", "r_g"}
    logged = {n.removeprefix("part/"): v for n, v in entry.items() if n.startswith("part/")}
    assert set(logged) == parts
    assert [logged[name] for name in COLUMNS] == pytest.approx(means)
    assert entry["zero_variance_groups/total"] == 1.0
    assert entry["zero_variance_groups/r_k"] == 1.0
    weighted = means[0] + means[1] + means[2] + 2.0 * means[3]
    assert (entry["reward"] == pytest.approx(weighted)) is (bug is None)
    for name in ("unscored", "skipped", "failed_jobs"):
        assert entry[f"rollouts/{name}"] == 0.0


def test_a_run_whose_reward_jobs_fail_stops() -> None:
    """Each failed job is None and counted; a run whose jobs mostly fail would train on the rest."""
    guard = SampleGuard(Store())
    suite = RewardSuite(PRESETS["paper"], guard, Scripted(), max_failed_share=0.5)
    guard.request("a")
    guard.request("fails")

    def batch(failing: int) -> list[Any]:
        samples = ["fails"] * failing + ["a"] * (32 - failing)
        return asyncio.run(suite.score([GOOD] * 32, samples, [3] * 32))

    assert sum(r is None for r in batch(32)) == 32, "too few jobs for a verdict"
    assert sum(r is None for r in batch(0)) == 0
    with pytest.raises(RewardsFailedError, match=r"64 of 96 reward jobs failed.*0\.5"):
        batch(32)


def test_boxes_without_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="backend"):
        RewardSuite(PRESETS["paper"], SampleGuard(Store()), None)
    text_only = replace(PRESETS["paper"], alpha_a=0.0, alpha_g=0.0)
    assert RewardSuite(text_only, SampleGuard(Store()), None).weights == [1.0, 1.0, 0.0, 0.0]


def test_the_trainer_leaves_unscored_rollouts_out(make_trainer: Any) -> None:
    """Through TRL: no advantage for them, and the mean of the group is that of the others."""

    def holed(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        return [None if i % 4 == 0 else float(i) for i in range(len(completion_ids))]

    trainer = make_trainer(reward_funcs=[holed], max_steps=1)
    trainer.model.train()
    rows = [
        {"prompt": [{"role": "user", "content": ""}], "sample_id": str(i // 4)} for i in range(8)
    ]
    batch = trainer._generate_and_score_completions(rows)
    advantages = batch["advantages"].tolist()
    assert advantages[0] == advantages[4] == 0.0
    assert sum(advantages[:4]) == pytest.approx(0.0, abs=1e-5)
    assert all(math.isfinite(a) for a in advantages)
