"""The thinker over transformers' own generate: unexported checkpoints, and the oracle of parity tests.

Positions, masks, media scattering and the cache are all transformers'; of a request only the tokens and
the media are used.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig as HfGenerationConfig
from transformers import LogitsProcessor, StoppingCriteria

from omni_sdk.bundle.manifest import GrsSpec
from omni_sdk.config import GenerationConfig
from omni_sdk.grs.completion import CompletionBuilder
from omni_sdk.grs.processor import load_tokenizer
from omni_sdk.grs.request import Completion, ThinkerRequest
from omni_sdk.grs.thinker import check_positions, next_token
from omni_sdk.grs.token_sampling import TokenSampler
from omni_sdk.hf.checkpoint import load_thinker
from omni_sdk.hf.devices import torch_device


class HfThinker:
    """Runs prepared requests on torch (see `omni_sdk.grs.request.Thinker`).

    Args:
        model: Qwen2_5OmniThinkerForConditionalGeneration.
        spec: its settings.
        tokenizer: decodes its tokens.
    """

    def __init__(self, model: Any, spec: GrsSpec, tokenizer: Tokenizer) -> None:
        self.model = model
        self.spec = spec
        self._tokenizer = tokenizer

    @classmethod
    def from_checkpoint(
        cls,
        source: str | Path,
        *,
        device: str = "cpu",
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> HfThinker:
        """Load a checkpoint directory or hub id in float32.

        Args:
            source: a directory, or a hub id.
            device: torch's name of a device; "auto": the first GPU, else the CPU.
            revision: branch, tag or commit on the hub.
            local_files_only: never use the network.

        Raises:
            BundleError: the checkpoint is incomplete, or not of a known layout.
        """
        device = torch_device(device)
        loaded = load_thinker(source, revision=revision, local_files_only=local_files_only)
        return cls(loaded.model.to(device), loaded.spec, load_tokenizer(loaded.tokenizer))

    def generate(
        self, requests: Sequence[ThinkerRequest], config: GenerationConfig
    ) -> list[Completion]:
        """Complete each request; see `omni_sdk.grs.request.Thinker.generate`.

        Requests with and without `audio_in_video` run as two batches: transformers has one switch.

        Raises:
            QueryError: a prompt plus max_new_tokens exceeds the model's positions.
            ValueError: `config.max_new_tokens` is None.
        """
        if config.max_new_tokens is None:
            raise ValueError("max_new_tokens is None; take the checkpoint's default first")
        for request in requests:
            check_positions(request, config.max_new_tokens, self.spec.decoder.max_positions)
        completions: dict[int, Completion] = {}
        for interleaved in (False, True):
            chosen = [i for i, r in enumerate(requests) if r.audio_in_video == interleaved]
            if chosen:
                done = self._run([requests[i] for i in chosen], config, config.max_new_tokens)
                completions |= dict(zip(chosen, done, strict=True))
        return [completions[i] for i in range(len(requests))]

    def inputs(self, requests: Sequence[ThinkerRequest]) -> dict[str, Any]:
        """Return the keyword arguments of the model's forward for a left-padded batch."""
        device = self.model.device
        length = max(len(r.input_ids) for r in requests)
        ids = np.full((len(requests), length), self.spec.tokens.pad, np.int64)
        mask = np.zeros_like(ids)
        for i, request in enumerate(requests):
            ids[i, length - len(request.input_ids) :] = request.input_ids
            mask[i, length - len(request.input_ids) :] = 1
        arrays: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        for kind, values, grid in (
            ("image", "pixel_values", "image_grid_thw"),
            ("video", "pixel_values_videos", "video_grid_thw"),
        ):
            visions = [v for r in requests for v in r.vision if v.kind == kind]
            if visions:
                arrays[values] = np.concatenate([v.pixel_values for v in visions])
                arrays[grid] = np.array([v.grid_thw for v in visions], np.int64)
            if visions and kind == "video":
                seconds = [v.seconds_per_grid for v in visions]
                arrays["video_second_per_grid"] = np.array(seconds, np.float32)
        mels = [mel for r in requests for mel in r.mel]
        if mels:
            longest = max(mel.shape[1] for mel in mels)
            features = np.zeros((len(mels), mels[0].shape[0], longest), np.float32)
            present = np.zeros((len(mels), longest), np.int64)
            for i, mel in enumerate(mels):
                features[i, :, : mel.shape[1]] = mel
                present[i, : mel.shape[1]] = 1
            arrays |= {"input_features": features, "feature_attention_mask": present}
        tensors: dict[str, Any] = {k: torch.from_numpy(v).to(device) for k, v in arrays.items()}
        if any(r.audio_in_video for r in requests):
            tensors["use_audio_in_video"] = True
        return tensors

    def _run(
        self, requests: Sequence[ThinkerRequest], config: GenerationConfig, max_new_tokens: int
    ) -> list[Completion]:
        tokens = self.spec.tokens
        rows = [
            CompletionBuilder(
                self._tokenizer,
                tokens.eos,
                config.stop,
                max_new_tokens,
                thinking_budget=config.thinking_budget,
                moments=request.moments,
            )
            for request in requests
        ]
        hook = _Sampling(config, tokens.suppress, rows)
        options = HfGenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=list(tokens.eos),
            pad_token_id=tokens.pad,
            suppress_tokens=list(tokens.suppress),
        )
        inputs = self.inputs(requests)
        start = time.perf_counter()
        with torch.inference_mode():
            self.model.generate(
                **inputs,
                generation_config=options,
                logits_processor=[hook],
                stopping_criteria=[_Rows(rows)],
            )
        prefill_ms = 1e3 * (hook.first_seconds - start)
        generate_ms = 1e3 * (time.perf_counter() - hook.first_seconds)
        return [row.build(prefill_ms, generate_ms) for row in rows]


class _Sampling(LogitsProcessor):  # type: ignore[misc]
    """Notes when the first logits come; leaves only our choice where a token is forced or drawn.

    Drawing with the SDK's sampler gives the same tokens for a seed on every backend.
    """

    def __init__(
        self, config: GenerationConfig, suppress: Sequence[int], rows: Sequence[CompletionBuilder]
    ) -> None:
        self.first_seconds = 0.0
        self._rows = rows
        self._samplers = [TokenSampler(config, suppress) for _ in rows]
        self._chooses = config.temperature > 0 or config.thinking_budget is not None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.first_seconds = self.first_seconds or time.perf_counter()
        if not self._chooses:
            return scores
        logits = scores.float().cpu().numpy()
        only = torch.full_like(scores, -torch.inf)
        for i, (row, sampler) in enumerate(zip(self._rows, self._samplers, strict=True)):
            token = 0 if row.finish else next_token(row, sampler, logits[i])
            only[i, token] = 0.0
        return only


class _Rows(StoppingCriteria):  # type: ignore[misc]
    """Hands each new token to its row and tells transformers which rows have ended."""

    def __init__(self, rows: Sequence[CompletionBuilder]) -> None:
        self._rows = rows

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        latest = input_ids[:, -1].tolist()
        ended = [row.add(token) for row, token in zip(self._rows, latest, strict=True)]
        return torch.tensor(ended, device=input_ids.device)
