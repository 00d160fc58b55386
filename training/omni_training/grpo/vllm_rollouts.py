"""Rollouts by vLLM through the trainer's own hook, with video and sound. Not run here: vLLM needs a GPU.

TRL 1.16 sends images only to vLLM (trl/generation/vllm_generation.py), so a run passes this as its
`rollout_func`: TRL still starts the engine (`use_vllm`, colocate) and syncs its weights before each round.

Note [What is sent]
    A prompt as token ids with *one* placeholder for each medium (vLLM expands them itself, from grids and
    lengths), and media as the trainer made them, so that the rollout sees what the log-probabilities see:
    pictures as the frozen towers' outputs with their grids ("video_embeds" + "video_grid_thw"; this spares
    vLLM the tower), sound as log-mel features with lengths ("input_audio_features"), for vLLM takes no
    encoded sound. Field names: vllm/model_executor/models/qwen2_5_omni_thinker.py and qwen2_vl.py (2025-11);
    that class wants the configuration of the *full* Omni model, with its thinker inside.
    The tests hold the request to these names with a recording stand-in; that the engine's log-probabilities
    equal the trainer's must be checked on a GPU before the first real run (`sampling/...` in TRL's log
    shows the gap).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omni_sdk.bundle.manifest import TokenSpec
from omni_sdk.grs.request import ThinkerRequest

from omni_training.grpo.media import PromptMedia

BIAS = -100.0
"""Logit bias of a token that must not be sampled; vLLM's least."""


class VllmRollouts:
    """A `rollout_func` for `OmniGRPOTrainer`."""

    def __init__(
        self,
        tokens: TokenSpec,
        *,
        suppress_tokens: Sequence[int],
        make_params: Callable[..., Any] | None = None,
    ) -> None:
        """Prepare.

        Args:
            tokens: ids with a meaning.
            suppress_tokens: never sampled (`config.media_tokens`).
            make_params: makes sampling parameters; None: `vllm.SamplingParams`.
        """
        self._tokens = tokens
        self._bias = dict.fromkeys(suppress_tokens, BIAS)
        self._make_params = make_params

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        """Complete every row of the batch; rows of one group are one request.

        Returns:
            "prompt_ids", "completion_ids" and "logprobs" (of the sampled tokens) of each row. A skipped
            sample's completion is the end token alone.
        """
        rows = list(zip(trainer.rollout_requests, trainer.rollout_media, strict=True))
        if len(rows) != len(prompts):
            raise ValueError(f"{len(rows)} requests do not fit {len(prompts)} prompts")
        groups = [list(group) for _, group in groupby(rows, key=lambda row: id(row[0]))]
        end = trainer.processing_class.eos_token_id
        asked = [
            (vllm_prompt(group[0][0], group[0][1], self._tokens), self._params(trainer, len(group)))
            for group in groups
            if group[0][0] is not None
        ]
        engine = trainer.vllm_generation.llm
        made = iter(
            engine.generate([p for p, _ in asked], [s for _, s in asked], use_tqdm=False)
            if asked
            else []
        )
        result: dict[str, Any] = {"prompt_ids": [], "completion_ids": [], "logprobs": []}
        for group in groups:
            request = group[0][0]
            prompt = [end] if request is None else request.input_ids.tolist()
            outputs = [None] * len(group) if request is None else next(made).outputs
            for output in outputs:
                ids = [end] if output is None else list(output.token_ids)
                result["prompt_ids"].append(prompt)
                result["completion_ids"].append(ids)
                result["logprobs"].append([0.0] if output is None else _logprobs(output, ids))
        return result

    def _params(self, trainer: Any, count: int) -> Any:
        args = trainer.args
        return (self._make_params or _vllm_params())(
            n=count,
            temperature=args.temperature,
            top_p=args.top_p,
            max_tokens=args.max_completion_length,
            logprobs=0,
            logit_bias=self._bias,
        )


def vllm_prompt(request: ThinkerRequest, media: PromptMedia, tokens: TokenSpec) -> dict[str, Any]:
    """Return a request as vLLM takes it; see Note [What is sent].

    Args:
        request: the prompt.
        media: the same prompt's, encoded.
        tokens: ids with a meaning.

    Raises:
        ValueError: the towers have not run (they train: use transformers' rollouts then).
    """
    if not media.encoded:
        raise ValueError("vLLM rollouts need frozen towers: media are sent encoded")
    data: dict[str, Any] = {
        kind: {f"{kind}_embeds": media.pixels[kind], f"{kind}_grid_thw": media.grids[kind]}
        for kind in media.pixels
    }
    options: dict[str, Any] = {"use_audio_in_video": request.audio_in_video}
    seconds = [v.seconds_per_grid for v in request.vision if v.kind == "video"]
    if seconds:
        options["second_per_grid_ts"] = seconds
        data["video"]["second_per_grid_ts"] = torch.tensor(seconds)
        data["video"]["use_audio_in_video"] = torch.tensor(request.audio_in_video)
    if request.mel:
        lengths = [m.shape[1] for m in request.mel]
        data["audio"] = {
            "input_audio_features": torch.from_numpy(np.concatenate(request.mel, axis=1)),
            "audio_feature_lengths": torch.tensor(lengths),
        }
    return {
        "prompt_token_ids": collapse(request.input_ids, tokens),
        "multi_modal_data": data,
        "mm_processor_kwargs": options,
    }


def collapse(ids: NDArray[np.int64], tokens: TokenSpec) -> list[int]:
    """Return a prompt with one placeholder for each medium.

    A video with its sound inside the same bracket becomes one video placeholder.
    """
    pads = {tokens.image, tokens.video, tokens.audio}
    short: list[int] = []
    inside = False
    for i in ids.tolist():
        if inside:  # a video with sound: everything up to the vision bracket's end is the one video
            if i == tokens.vision_end:
                short += [tokens.video, i]
                inside = False
        elif i == tokens.audio_start and short and short[-1] == tokens.vision_start:
            inside = True
        elif not (i in pads and short and short[-1] == i):
            short.append(i)
    return short


def _vllm_params() -> Callable[..., Any]:
    from vllm import SamplingParams

    make: Callable[..., Any] = SamplingParams
    return make


def _logprobs(output: Any, ids: list[int]) -> list[float]:
    """Return the log-probability of each sampled token."""
    return [float(step[i].logprob) for step, i in zip(output.logprobs, ids, strict=True)]
