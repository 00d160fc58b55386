"""Run a pipeline again and again and write down what each stage took."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omni_sdk.bench.environment import environment
from omni_sdk.bench.memory import DeviceSampler, host_memory_mb, reset_host_peak
from omni_sdk.bench.report import (
    BENCH_SCHEMA_VERSION,
    NOT_SUMMED,
    BenchReport,
    MemoryReport,
    ModelReport,
    RunReport,
    SettingsReport,
    VideoReport,
)
from omni_sdk.config import PipelineConfig, SamplingConfig, TrackingConfig
from omni_sdk.errors import ModelOutputError, PromptError
from omni_sdk.results import Result
from omni_sdk.stages import Reasoning

if TYPE_CHECKING:
    from omni_sdk.bundle.manifest import SamplingSpec
    from omni_sdk.config import GenerationConfig
    from omni_sdk.pipeline import Pipeline
    from omni_sdk.stages import Observation, Reasoner


@dataclass(frozen=True, slots=True)
class Case:
    """One source and the question put to it."""

    source: str
    query: str


def measure(
    pipeline: Pipeline,
    cases: Sequence[Case],
    settings: SettingsReport,
    *,
    precision: dict[str, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> BenchReport:
    """Time a pipeline on every case.

    The cases take turns within a round, so that whatever else the machine does falls on all of them.

    Args:
        pipeline: loaded, with both halves.
        cases: at least one.
        settings: how often.
        precision: by graph, for the report.
        progress: told of each call in a line of text.

    Raises:
        PromptError: no cases, or the pipeline lacks a half.
        ValueError: `settings` asks for less than one run or a negative warm-up.
        MediaError, LimitError, QueryError: a source or a question is refused.
    """
    if not cases or pipeline.reasoner is None or pipeline.tracker is None:
        raise PromptError("a benchmark needs at least one video and a bundle with both halves")
    if settings.runs < 1 or settings.warm_up < 0:
        raise ValueError(f"runs must be at least 1 and warm_up at least 0, got {settings}")
    probe = _Probe(pipeline.reasoner)
    watched = dataclasses.replace(pipeline, reasoner=probe)
    config = PipelineConfig(
        sampling=SamplingConfig(num_frames=settings.num_frames, audio=settings.audio),
        on_parse_error="empty",
        overlap=settings.overlap,
        tracking=TrackingConfig(encode_ahead=settings.encode_ahead),
    )
    start_of_all = environment(pipeline.bundle.device)
    loaded = host_memory_mb()
    reset_host_peak()
    runs: list[list[RunReport]] = [[] for _ in cases]
    results: dict[int, Result] = {}
    for index in range(settings.warm_up):
        for case in cases:
            progress(f"warm-up {index + 1}/{settings.warm_up}: {case.source}")
            watched(case.source, case.query, config=config)
    with DeviceSampler(pipeline.bundle.device) as sampler:
        for index in range(settings.runs):
            for at, case in enumerate(cases):
                started = time.perf_counter()
                results[at] = watched(case.source, case.query, config=config)
                runs[at].append(_run_report(results[at], probe, started))
                total = runs[at][-1].stages_ms["total"]
                progress(f"run {index + 1}/{settings.runs}: {case.source}: {total:.0f} ms")
    mean_s = sum(r.stages_ms["total"] for rows in runs for r in rows) / 1e3
    mean_s /= settings.runs * len(cases)
    watts = sampler.mean_watts
    info = pipeline.bundle
    return BenchReport(
        schema_version=BENCH_SCHEMA_VERSION,
        environment=start_of_all,
        settings=settings,
        model=ModelReport(
            name=info.name,
            version=info.version,
            backend=info.backend,
            device=info.device,
            variants=info.variants,
            precision=precision or {},
            tracker_image_size=pipeline.tracker.image_size,
        ),
        memory=MemoryReport(
            host_loaded_mb=loaded,
            host_peak_mb=host_memory_mb("VmHWM"),
            device_peak_mb=sampler.peak_mb,
            device_mean_watts=watts,
            energy_joules=None if watts is None else watts * mean_s,
        ),
        videos=tuple(_video_report(case, results[at], runs[at]) for at, case in enumerate(cases)),
    )


def _run_report(result: Result, probe: _Probe, started: float) -> RunReport:
    times = result.timings_ms
    stages = {name: getattr(times, name) for name in times.__slots__}
    claimed = sum(ms for name, ms in stages.items() if name not in NOT_SUMMED)
    reasoning = probe.reasoning
    first = 1e3 * (probe.ended - started) - stages["generate"]
    return RunReport(
        stages_ms=stages | {"other": stages["total"] - claimed, "first_token": first},
        prompt_tokens=reasoning.num_prompt_tokens,
        generated_tokens=reasoning.num_generated_tokens,
        keyframes=len(result.keyframes),
        tracked_frames=max((len(t) for t in result.tracks), default=0),
        objects=len(result.tracks),
    )


def _video_report(case: Case, result: Result, runs: Sequence[RunReport]) -> VideoReport:
    video = result.video
    return VideoReport(
        source=case.source,
        query=case.query,
        status=result.status,
        width=video.width,
        height=video.height,
        num_frames=video.num_frames,
        has_audio=video.has_audio,
        runs=tuple(runs),
    )


class _Probe:
    """A reasoner that remembers what the one behind it said, and when it had said it."""

    def __init__(self, reasoner: Reasoner) -> None:
        self._reasoner = reasoner
        self.ended = 0.0
        self.reasoning: Reasoning

    @property
    def sampling(self) -> SamplingSpec:
        return self._reasoner.sampling

    @property
    def sampling_rate(self) -> int:
        return self._reasoner.sampling_rate

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        return self._reasoner.frame_size(height, width)

    def reason(self, observation: Observation, query: str, config: GenerationConfig) -> Reasoning:
        try:
            self.reasoning = self._reasoner.reason(observation, query, config)
        except ModelOutputError as e:  # its times are unknown and fall under "other"
            self.reasoning = Reasoning(text=e.text, thinking="", answer=e.text, segments=())
            raise
        finally:
            self.ended = time.perf_counter()
        return self.reasoning

    def ask(self, observation: Observation, question: str, config: GenerationConfig) -> Reasoning:
        return self._reasoner.ask(observation, question, config)
