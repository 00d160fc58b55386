"""System 1 over any thinker: a clip and a question -> moments, or an answer in words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from omni_sdk.errors import ModelOutputError
from omni_sdk.grs import prompts
from omni_sdk.grs.parser import parse_answer, parse_description, split_answer
from omni_sdk.stages import Reasoning

THINKING_SHARE = 0.75
"""Of `max_new_tokens`: what a thought may take unless the caller says otherwise. The rest holds an answer of
four moments many times over; nano's longest true thought takes 40 of its 64 tokens."""

if TYPE_CHECKING:
    from omni_sdk.bundle.manifest import SamplingSpec
    from omni_sdk.config import GenerationConfig
    from omni_sdk.grs.processor import Processor
    from omni_sdk.grs.request import Completion, Thinker, ThinkerRequest
    from omni_sdk.media.pixels.patch_layout import PatchLayout
    from omni_sdk.stages import Observation


class ThinkerReasoner:
    """The `Reasoner` of `omni_sdk.stages` on a thinker.

    Args:
        thinker: runs requests.
        processor: of the same model.
    """

    def __init__(self, thinker: Thinker, processor: Processor) -> None:
        self._thinker = thinker
        self._processor = processor

    @property
    def sampling(self) -> SamplingSpec:
        """How a source is to be sampled for this model."""
        return self._processor.spec.sampling

    @property
    def sampling_rate(self) -> int:
        """Sampling rate in Hz at which sound is wanted."""
        return self._processor.spec.audio.sampling_rate

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) in pixels at which frames of this size are wanted.

        Raises:
            LimitError: one side is more than 200 times the other.
        """
        return self._processor.frame_size(height, width)

    @property
    def patch_layout(self) -> PatchLayout:
        """How patches are made for this model."""
        return self._processor.patch_layout

    def reason(self, observation: Observation, query: str, config: GenerationConfig) -> Reasoning:
        """Find the moments that answer a query.

        Raises:
            ModelOutputError: the model's text holds no readable answer.
            QueryError: the query is malformed, or too long for the model.
            MediaError: the sound holds NaN or infinite samples.
        """
        config = self._bounded(config)
        request = self._processor.reason_request(
            observation, query, max_new_tokens=config.max_new_tokens
        )
        free_text = prompts.template(self._processor.spec.prompts.reason).free_text
        request = replace(request, moments=not free_text)
        completion = self._thinker.generate([request], config)[0]
        parse = parse_description if free_text else parse_answer
        try:
            parsed = parse(completion.text, observation.clock.duration_seconds)
        except ModelOutputError as e:
            if completion.finish != "length":
                raise
            raise ModelOutputError(
                f"the completion was cut at {config.max_new_tokens} tokens (raise max_new_tokens); {e}",
                completion.text,
            ) from e
        reasoning = _reasoning(request, completion, parsed.thinking, parsed.answer)
        return replace(reasoning, segments=parsed.segments)

    def ask(self, observation: Observation, question: str, config: GenerationConfig) -> Reasoning:
        """Answer a question in words; `segments` is empty and `answer` is the text.

        Raises:
            QueryError: the question is malformed, or too long for the model.
            MediaError: the sound holds NaN or infinite samples.
        """
        config = self._bounded(config)
        request = self._processor.ask_request(
            observation, question, max_new_tokens=config.max_new_tokens
        )
        completion = self._thinker.generate([request], config)[0]
        return _reasoning(request, completion, *split_answer(completion.text))

    def _bounded(self, config: GenerationConfig) -> GenerationConfig:
        most = config.max_new_tokens or self._processor.spec.prompts.max_new_tokens
        budget = config.thinking_budget
        if budget is None:
            budget = int(THINKING_SHARE * most)
        return replace(config, max_new_tokens=most, thinking_budget=budget)


def _reasoning(
    request: ThinkerRequest, completion: Completion, thinking: str, answer: str
) -> Reasoning:
    return Reasoning(
        text=completion.text,
        thinking=thinking,
        answer=answer,
        segments=(),
        num_prompt_tokens=len(request.input_ids),
        num_generated_tokens=len(completion.token_ids),
        thinking_cut=completion.thinking_cut,
        timings_ms={"prefill": completion.prefill_ms, "generate": completion.generate_ms},
    )
