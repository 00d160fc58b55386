"""What a decoder sees while it answers questions about clips: the data that 4-bit weights are fitted to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import ne
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omni_sdk.bundle.bundle import Bundle
from omni_sdk.bundle.manifest import GraphSpec, ParityRow
from omni_sdk.config import GenerationConfig, PipelineConfig
from omni_sdk.engines.base import Engine, EngineLoader
from omni_sdk.errors import BundleError
from omni_sdk.grs.cache import empty_cache, next_cache
from omni_sdk.grs.processor import Processor
from omni_sdk.grs.reasoner import ThinkerReasoner
from omni_sdk.grs.thinker import GraphThinker
from omni_sdk.media.limits import MediaLimits
from omni_sdk.pipeline import Pipeline
from omni_sdk.results import BundleInfo

Arrays = dict[str, NDArray[Any]]
DECODER = "grs/decoder"
QUESTION = "Describe what can be seen and heard in the video."
MAX_NEW_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calls of the decoder, recorded.

    Attributes:
        completions: for each clip the calls of one completion, the prompt's first, without the cache.
        decoder: the recorded graph.
    """

    completions: tuple[tuple[Arrays, ...], ...]
    decoder: GraphSpec

    def __len__(self) -> int:
        return len(self.completions)

    def sequences(self) -> Iterator[Arrays]:
        """Yield each prompt with its completion as one call without a cache, what GPTQ fits to."""
        for calls in self.completions:
            yield {
                "inputs_embeds": np.concatenate([c["inputs_embeds"] for c in calls], 1),
                "position_ids": np.concatenate([c["position_ids"] for c in calls], 2),
                "attention_mask": calls[-1]["attention_mask"],
                **empty_cache(self.decoder),
            }


def record(
    bundle: Bundle, loader: EngineLoader, clips: Sequence[Path], question: str = QUESTION
) -> Calibration:
    """Ask a bundle's reasoner about clips and keep what its decoder was called with.

    Args:
        bundle: with a reasoner.
        loader: opens the float32 graphs.
        clips: video files.
        question: asked about each.

    Raises:
        BundleError: no clip, or the bundle has no reasoner.
        MediaError: a clip cannot be read.
        QueryError: the question is refused.
    """
    if not clips:
        raise BundleError("calibration needs at least one clip")
    recorder = _Recorder(loader)
    thinker = GraphThinker(recorder, bundle)
    pipeline = Pipeline(
        ThinkerReasoner(thinker, Processor.from_bundle(bundle)),
        None,
        None,
        BundleInfo(bundle.manifest.name, bundle.manifest.version, loader.backend, loader.device),
        MediaLimits(),
    )
    config = PipelineConfig(generation=GenerationConfig(max_new_tokens=MAX_NEW_TOKENS))
    completions = []
    for clip in clips:
        recorder.calls.clear()
        pipeline.ask(clip, question, config=config)
        completions.append(tuple(recorder.calls))
    return Calibration(tuple(completions), bundle.graph(DECODER))


def clip_row(
    calibration: Calibration,
    bundle: Bundle,
    variant: Bundle,
    name: str,
    loader: EngineLoader,
    allowed: float,
) -> ParityRow:
    """Compare the greedy choices of two decoders over the recorded calls, each with a cache of its own."""
    reference, found = (choices(loader, b, calibration.completions) for b in (bundle, variant))
    different, total = sum(map(ne, reference, found)), len(reference)
    return ParityRow(
        subject=f"{DECODER}@{name}: tokens on the calibration clips",
        reference="the float32 graphs",
        measure=f"greedy tokens that differ of {total}, fed the reference's",
        value=float(different),
        tolerance=float(int(allowed * total)),
    )


def choices(
    loader: EngineLoader, bundle: Bundle, completions: Sequence[Sequence[Arrays]]
) -> list[int]:
    """Return the tokens that a decoder chooses over recorded calls, in a row.

    The decoder is closed at the end: two of 3B would not fit beside each other.

    Args:
        loader: opens the decoder.
        bundle: whose decoder.
        completions: the calls of each completion, without the cache, which is the decoder's own.
    """
    engine, chosen = loader.load(bundle, DECODER), []
    for calls in completions:
        cache = empty_cache(bundle.graph(DECODER))
        for call in calls:
            found = engine.run(call | cache)
            cache = next_cache(cache, found)
            chosen.append(int(found["logits"][0, 0].argmax()))
    return chosen


class _Recorder:
    """A loader whose decoder keeps copies of what it is called with; the cache passes through numpy."""

    def __init__(self, loader: EngineLoader) -> None:
        self.backend, self.device = loader.backend, loader.device
        self.calls: list[Arrays] = []
        self._loader = loader

    def load(self, bundle: Bundle, graph: str) -> Engine:
        engine = self._loader.load(bundle, graph)
        return _RecordedEngine(engine, self.calls) if graph == DECODER else engine


class _RecordedEngine:
    def __init__(self, engine: Engine, calls: list[Arrays]) -> None:
        self._engine = engine
        self._calls = calls

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        kept = {k: v.copy() for k, v in inputs.items() if not k.startswith("past.")}
        self._calls.append(kept)
        return self._engine.run(inputs)
