"""GRPO of the thinker: TRL's trainer, taught that prompts hold video and sound.

Note [Four overrides]
    TRL 1.16 hands media to generation only and knows images only: its log-probability passes see neither
    video nor sound (trl/trainer/grpo_trainer.py, `_get_per_token_logps_and_entropies`). The tokenizer, not
    a processor, is the `processing_class`, so that TRL touches no media at all, and
    - `_tokenize_prompts` gives token ids and media of our own requests to generation,
    - `_generate_and_score_completions` carries each row's media along as a list, which TRL shuffles and
      splits with the tensors,
    - `_compute_loss` takes them from the batch,
    - `_get_per_token_logps_and_entropies` passes them, with explicit positions and the attention mask, to
      every pass: policy, old policy and reference.

    The published code computed log-probabilities with text positions while rollouts were generated with
    TMRoPE (omni-r1.md section 3, bug 13). Here both get the request's own positions, so neither depends on
    what the model would infer.

    Sampling leaves out media and frame tokens (`suppress_tokens`): a sampled placeholder has no feature, and
    the next pass dies. Log-probabilities are those of the full vocabulary; the suppressed tokens' mass is
    negligible in a trained model, and top_p is not corrected for either (as in the published code).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omni_sdk.grs.request import ThinkerRequest
from torch import Tensor, nn
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from omni_training.data.samples import GROUP, SAMPLE_ID, SampleGuard
from omni_training.grpo.checkpoints import SafeCheckpoints, save_bad_batch
from omni_training.grpo.media import PromptMedia, accept_encoded, collate, encode
from omni_training.grpo.sampler import GroupSampler

SKIPPED = "samples/skipped"
"""Log entry: distinct unreadable samples of all processes so far."""


class CheckSamples(TrainerCallback):  # type: ignore[misc]
    """Checks the share of unreadable samples once more when a run ends, however few it saw."""

    def __init__(self, samples: SampleGuard) -> None:
        """Keep what is checked."""
        self._samples = samples

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Raise DatasetError if too many failed."""
        self._samples.check_share()


class OmniGRPOTrainer(SafeCheckpoints, GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPO trainer for `Qwen2_5OmniThinkerForConditionalGeneration`; see Note [Four overrides]."""

    def __init__(
        self,
        model: nn.Module,
        *,
        samples: SampleGuard,
        args: GRPOConfig,
        freeze_towers: bool = True,
        **kwargs: Any,
    ) -> None:
        """Prepare a run.

        Args:
            model: the thinker alone; `config._name_or_path` must be its directory if args.beta > 0 (TRL loads
                the reference from there) and no adapter is trained.
            samples: gives the request of each row's sample id.
            args: GRPOConfig; `omni_training.grpo.config` makes it.
            freeze_towers: train the language model only, as the authors do, and encode media once per
                prompt; False: both towers train too.
            **kwargs: TRL's own: reward_funcs, train_dataset, processing_class (the tokenizer),
                peft_config, callbacks, rollout_func ...

        Raises:
            ValueError: options that cannot work together.
        """
        _check(args, kwargs.get("peft_config"), freeze_towers, "rollout_func" in kwargs)
        for tower in (model.model.visual, model.model.audio_tower):
            tower.requires_grad_(not freeze_towers)
        accept_encoded(model)
        self.samples = samples
        self._freeze_towers = freeze_towers
        self._rows: Sequence[Mapping[str, Any]] = ()
        self.rollout_requests: list[ThinkerRequest | None] = []
        self._media: list[PromptMedia] = []
        super().__init__(model=model, args=args, **kwargs)
        if self.ref_model is not None:
            accept_encoded(self.accelerator.unwrap_model(self.ref_model))
        self.add_callback(CheckSamples(samples))

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._rows = inputs
        self._read_prompts()
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        output["media"] = self._media
        output["samples"] = [row[SAMPLE_ID] for row in inputs]
        failed = torch.tensor([len(self.samples.failed)], device=self.accelerator.device)
        mode = "train" if self.model.training else "eval"
        self._metrics[mode][SKIPPED].append(float(self.accelerator.gather(failed).sum()))
        # A skipped sample's rollouts count in no loss, KL included.
        skipped = torch.tensor([r is None for r in self.rollout_requests])
        output["completion_mask"][skipped] = 0
        output["advantages"][skipped] = 0.0
        return output

    def _tokenize_prompts(
        self, prompts: list[Any]
    ) -> tuple[list[list[int]], None, dict[str, Tensor]]:
        """Return the requests' ids and media, whatever text the rows hold."""
        blank = [self._tokenizer.eos_token_id]
        ids = [blank if r is None else r.input_ids.tolist() for r in self.rollout_requests]
        longest = max(len(p) for p in ids)
        return ids, None, self._batch(self._media, longest, 0)

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None, None]:
        size = batch_size or len(input_ids)
        logps, entropies = [], []
        for start in range(0, len(input_ids), size):
            rows = slice(start, start + size)
            ids, mask = input_ids[rows], attention_mask[rows]
            labels = ids.masked_fill(mask == 0, -100)
            labels[:, :-logits_to_keep] = -100
            media = self._batch(self._media[rows], ids.shape[1] - logits_to_keep, logits_to_keep)
            with self.accelerator.autocast():
                output = model(
                    input_ids=ids,
                    attention_mask=mask,
                    labels=labels,
                    fused_lm_head=True,
                    **media,
                )
            logps.append(output.log_probs[:, -logits_to_keep:])
            if compute_entropy:
                entropies.append(output.entropy[:, -logits_to_keep:])
        return torch.cat(logps), torch.cat(entropies) if entropies else None, None

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        self._media = inputs["media"]
        loss: Tensor = super()._compute_loss(model, inputs)
        if not torch.isfinite(loss):
            save_bad_batch(
                inputs, self.args.output_dir, self.state.global_step, self.accelerator.process_index
            )
        return loss

    @property
    def rollout_media(self) -> list[PromptMedia]:
        """Media of each row of the batch in hand; a rollout_func finds here what `rollout_requests` lack."""
        return self._media

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        """Return a sampler that resumes where it was, and keeps kinds of task apart where rows name them."""
        rows = self.train_dataset if dataset is None else dataset
        groups = rows[GROUP] if GROUP in rows.column_names else [""] * len(rows)
        return GroupSampler(
            groups,
            mini_repeat_count=self.num_generations,
            batch_size=self.args.generation_batch_size // self.num_generations,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
            passes=lambda: int(self.state.epoch or 0),
        )

    def _read_prompts(self) -> None:
        """Read and encode the samples of this batch, each once; set `rollout_requests` and `_media`.

        A rollout_func finds there what to send: one request per row, None for a skipped sample.
        """
        names = [row[SAMPLE_ID] for row in self._rows]
        requests = {name: self.samples.request(name) for name in dict.fromkeys(names)}
        readable = {name: r for name, r in requests.items() if r is not None}
        media = [PromptMedia.of(r) for r in readable.values()]
        if self._freeze_towers:
            thinker = self.accelerator.unwrap_model(self.model)
            thinker = thinker.get_base_model() if hasattr(thinker, "peft_config") else thinker
            media = encode(thinker, media, same_calls=self.accelerator.num_processes > 1)
        by_name = dict(zip(readable, media, strict=True))
        blank = PromptMedia(
            torch.zeros(3, 1, dtype=torch.long), {}, {}, encoded=self._freeze_towers
        )
        self.rollout_requests = [requests[name] for name in names]
        self._media = [by_name.get(name, blank) for name in names]

    def _batch(
        self, media: Sequence[PromptMedia], prompt_length: int, completion_length: int
    ) -> dict[str, Tensor]:
        return collate(
            media,
            prompt_length,
            completion_length,
            device=self.accelerator.device,
            dtype=self.accelerator.unwrap_model(self.model).dtype,
        )


def _check(args: GRPOConfig, peft_config: Any, freeze_towers: bool, has_rollout: bool) -> None:
    if args.pad_to_multiple_of is not None:
        raise ValueError(
            "pad_to_multiple_of is not supported: positions are made for exact lengths"
        )
    if args.use_vllm and not has_rollout:
        raise ValueError(
            "TRL 1.16 sends images only to vLLM: pass a rollout_func that sends video and sound "
            "(`OmniGRPOTrainer.rollout_requests`), or set use_vllm=False"
        )
    if peft_config is not None and not freeze_towers:
        raise ValueError("adapters train the language model only: set freeze_towers=True")
    steps = args.steps_per_generation * args.num_iterations
    per_save = args.gradient_accumulation_steps * args.save_steps
    if args.save_strategy == "steps" and (args.save_steps < 1 or per_save % steps):
        raise ValueError(
            f"save_steps={args.save_steps:g} (x {args.gradient_accumulation_steps} accumulation steps) is "
            f"not a multiple of the {steps} steps of one generated batch: rollouts are not part of a "
            "checkpoint, so a resumed run would differ"
        )
    if not (args.generation_kwargs or {}).get("suppress_tokens"):
        raise ValueError("generation_kwargs must suppress the media tokens (config.media_tokens)")
