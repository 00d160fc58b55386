"""The whole system: media -> reasoner -> grounder -> tracker -> result. It wires and times; no maths."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from omni_sdk.config import (
    GenerationConfig,
    ModelOptions,
    PipelineConfig,
    Provider,
    SamplingConfig,
    TrackingConfig,
)
from omni_sdk.dus.keyframes import choose_keyframes, labels_of
from omni_sdk.dus.system import DetailSystem, in_time_order, with_ids
from omni_sdk.dus.tracks import MaskTrack, build_tracks
from omni_sdk.errors import ModelOutputError, OptionError, PromptError
from omni_sdk.events import Event, Finished, Frame, Grounded, Reasoned
from omni_sdk.grs.observe import observe
from omni_sdk.loading import load_stages
from omni_sdk.media.frame_source import VideoFrameSource
from omni_sdk.media.frames import VideoInfo
from omni_sdk.media.limits import MediaLimits
from omni_sdk.media.pixels.convert import PixelPath
from omni_sdk.media.source import Source, open_source
from omni_sdk.media.video import Video
from omni_sdk.results import BundleInfo, Result
from omni_sdk.stages import (
    Grounder,
    Image,
    Keyframe,
    KeyframePrompt,
    Reasoner,
    Reasoning,
    Tracker,
)
from omni_sdk.utils.timing import Stopwatch

if TYPE_CHECKING:
    from omni_sdk.stages import Observation

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Asks a video questions.

    A pipeline holds no state of a request: it may be called from several threads, and the same request
    gives the same answer.

    Attributes:
        reasoner: System 1; None when the bundle has none (then only `track` works).
        grounder: System 2a.
        tracker: System 2b; None when the bundle has none (then only `ask`, `reason` and `ground` work).
        bundle: which models these are.
        limits: what a source may cost.
    """

    reasoner: Reasoner | None
    grounder: Grounder | None
    tracker: Tracker | None
    bundle: BundleInfo
    limits: MediaLimits

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] = "nano",
        *,
        device: str = "auto",
        backend: str = "auto",
        providers: Sequence[Provider] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        tracker: str | os.PathLike[str] | None = None,
        limits: MediaLimits | None = None,
        threads: int | None = None,
        variant: str | Sequence[str] = (),
        skip_parity: bool = False,
        memory_budget: float | str | None = None,
    ) -> Pipeline:
        """Load the models.

        Args:
            name_or_path: "nano" (inside the package), a bundle directory, a hub id, or a checkpoint
                directory of the reasoner (backend="torch").
            device: "auto", "cpu", "cuda" or "cuda:N".
            backend: "auto", "onnx", "tensorrt" or "torch".
            providers: ONNX Runtime providers in its own names, or (name, options) pairs.
            revision: of a hub id.
            local_files_only: never download.
            tracker: with backend="torch": the tracker's checkpoint directory or hub id.
            limits: what a source may cost; None: the defaults and OMNI_SDK_MAX_* variables.
            threads: CPU threads of one operator (ONNX); None: the engine decides.
            variant: name or names of variants of the bundle's graphs ("fp16", "int8", ..): each is used
                in the place of every graph that has it, the last one wins.
            skip_parity: use graphs that do not give their golden outputs on this machine; each is
                logged as a warning.
            memory_budget: bytes, a text such as "8GB", or "auto" (what is free on the device): variants,
                frames and pixels are chosen to fit; the plan is logged before anything loads. See
                `omni_sdk.bundle.memory_plan`.

        Raises:
            OptionError: an option has a value that it cannot have, or two contradict each other.
            MemoryBudgetError: nothing fits the budget.
            ParityError: a graph computes something else here than where it was exported.
            BundleError: the directory is incomplete, altered or of another schema.
            BackendUnavailableError: a library is missing; the message names the pip extra.
            EngineError: the engine refuses a graph or the device is not there.
        """
        options = ModelOptions(
            device=device,
            backend=backend,
            providers=None if providers is None else tuple(providers),
            revision=revision,
            local_files_only=local_files_only,
            tracker=None if tracker is None else os.fspath(tracker),
            threads=threads,
            variant=(variant,) if isinstance(variant, str) else tuple(variant),
            skip_parity=skip_parity,
            memory_budget=memory_budget,
        )
        return cls.from_options(name_or_path, options, limits=limits)

    @classmethod
    def from_options(
        cls,
        name_or_path: str | os.PathLike[str],
        options: ModelOptions,
        *,
        limits: MediaLimits | None = None,
    ) -> Pipeline:
        """Load the models by options that are kept as one value; all else as `from_pretrained`."""
        stages = load_stages(name_or_path, options)
        return cls(*stages, limits=limits or MediaLimits.from_environment())

    def __call__(
        self,
        source: Source,
        query: str,
        *,
        config: PipelineConfig | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Result:
        """Find what a query asks for, and its mask in every frame.

        Args:
            source: path of a video or image, URL, camera index, rtsp:// address, or an iterable of
                (H, W, 3) uint8 RGB arrays.
            query: the question, in words.
            config: options; None: the defaults.
            on_event: told of each of `stream`'s events as it comes, to show how far the run is.

        Returns:
            The answer. Status "absent" (nothing matches) is a real answer with no tracks.

        Raises:
            OptionError: `config` is no PipelineConfig.
            MediaError, LimitError: the source cannot be read or costs too much.
            QueryError: the query is empty or too long.
            ModelOutputError: the reasoner's text cannot be parsed (unless on_parse_error="empty").
        """
        frames: list[Frame] = []
        for event in self.stream(source, query, config=config):
            if on_event is not None:
                on_event(event)
            if isinstance(event, Frame):
                frames.append(event)
            elif isinstance(event, Finished):
                result = event.result
        size = (result.video.height, result.video.width)
        return replace(result, tracks=build_tracks(frames, labels_of(result.keyframes), size))

    def stream(
        self, source: Source, query: str, *, config: PipelineConfig | None = None
    ) -> Iterator[Event]:
        """Do the same, yielding each stage's outcome as soon as it is known, at flat memory.

        Yields:
            Reasoned, Grounded, one Frame per frame (in order of completion: forward from the first
            keyframe, then backward), Finished.
        """
        config = _options(config)
        reasoner, grounder, tracker = (
            _need(self.reasoner),
            _need(self.grounder),
            _need(self.tracker),
        )
        watch = Stopwatch()
        system = DetailSystem(grounder, tracker, config.tracking, watch)
        with self._open(source, watch, config.sampling.pixels) as video:
            observation = observe(video, reasoner, config.sampling, watch)
            reasoning, status = _reason(reasoner, observation, query, config, watch)
            chosen = choose_keyframes(
                reasoning.segments, observation.clock, config.tracking.max_keyframes
            )
            yield _reasoned(reasoning, status, chosen, video.info)
            looks = system.looks(chosen, observation.clock)
            found = in_time_order(system.ground(looks, partial(_images, video, watch)))
            keyframes, boxes = tuple(f.look for f in found), tuple(f.boxes for f in found)
            yield Grounded(keyframes, boxes)
            size = (video.info.height, video.info.width)
            source_frames = VideoFrameSource(
                video, tracker.image_size, watch, overlap=config.overlap
            )
            with source_frames as frames, system.track(found, frames) as run:
                for frame in run:
                    yield Frame(frame.frame_index, frame.pts_seconds, size, frame.masks)
            keyframes = with_ids(found, run.object_ids)
            if status == "found" and not any(boxes):
                status = "absent"
            info = video.info
        yield Finished(
            Result(
                query=query,
                thinking=reasoning.thinking,
                answer=reasoning.answer,
                status=status,
                video=info,
                keyframes=keyframes,
                timings_ms=watch.timings(),
                bundle=self.bundle,
                thinking_cut=reasoning.thinking_cut,
                source=source,
            )
        )

    def ask(
        self, source: Source, question: str, *, config: PipelineConfig | None = None
    ) -> Reasoning:
        """Answer a plain question about a source in words; no boxes, no masks.

        Returns:
            `answer` is the reply, `thinking` the reasoning where the model shows one.
        """
        config = _options(config)
        reasoner = _need(self.reasoner)
        with self._open(source, Stopwatch(), config.sampling.pixels) as video:
            observation = observe(video, reasoner, config.sampling, Stopwatch())
        return reasoner.ask(observation, question, config.generation)

    def reason(
        self, source: Source, query: str, *, config: PipelineConfig | None = None
    ) -> Reasoned:
        """Run System 1 alone: the reasoning and the keyframes that would be grounded."""
        config = _options(config)
        reasoner, watch = _need(self.reasoner), Stopwatch()
        with self._open(source, watch, config.sampling.pixels) as video:
            observation, info = observe(video, reasoner, config.sampling, watch), video.info
        reasoning, status = _reason(reasoner, observation, query, config, watch)
        keyframes = choose_keyframes(
            reasoning.segments, observation.clock, config.tracking.max_keyframes
        )
        return _reasoned(reasoning, status, keyframes, info)

    def ground(self, source: Source, keyframes: Sequence[Keyframe]) -> Grounded:
        """Run the grounder alone on keyframes (only frame_index and description are read)."""
        system, watch = DetailSystem(_need(self.grounder), None), Stopwatch()
        with self._open(source, watch) as video:
            found = system.ground([(k,) for k in keyframes], partial(_images, video, watch))
        return Grounded(tuple(keyframes), tuple(f.boxes for f in found))

    def track(
        self,
        source: Source,
        prompts: Sequence[KeyframePrompt],
        *,
        labels: dict[int, str] | None = None,
        config: PipelineConfig | None = None,
    ) -> tuple[MaskTrack, ...]:
        """Run the tracker alone from the caller's boxes or points.

        Args:
            source: as for `__call__`.
            prompts: boxes and clicks on one or more frames, in the source's pixels.
            labels: names by object id. An id that the run did not have is logged as a warning.
            config: options; None: the defaults.

        Raises:
            OptionError: `config` is no PipelineConfig.
            PromptError: a prompt lies outside the source or is malformed, or every prompt gives its
                object_ids and `labels` names others.
        """
        config = _options(config)
        if not prompts:
            raise PromptError("track needs at least one prompt; got none")
        labels = labels or {}
        _check_labels(labels, prompts)
        tracker, watch = _need(self.tracker), Stopwatch()
        with self._open(source, watch, config.sampling.pixels) as video:
            size = (video.info.height, video.info.width)
            with VideoFrameSource(
                video, tracker.image_size, watch, overlap=config.overlap
            ) as frames:
                system = DetailSystem(None, tracker, config.tracking, watch)
                with system.track_prompts(prompts, frames) as run:
                    tracks = build_tracks(list(run), labels, size)
        ids = [track.object_id for track in tracks]
        if unknown := sorted(set(labels) - set(ids)):
            logger.warning(
                "labels name %s, which this run did not have; its objects are %s", unknown, ids
            )
        return tracks

    def _open(self, source: Source, watch: Stopwatch, pixels: PixelPath = "exact") -> Video:
        with watch.stage("index"):
            video = open_source(source, limits=self.limits)
        video.pixels = pixels
        return video


def _options(config: PipelineConfig | None) -> PipelineConfig:
    if config is None or isinstance(config, PipelineConfig):
        return config or PipelineConfig()
    kind = type(config).__name__
    parts = {SamplingConfig: "sampling", GenerationConfig: "generation", TrackingConfig: "tracking"}
    part = parts.get(type(config))
    hint = f": pass PipelineConfig({part}=...)" if part else ""
    raise OptionError(f"config: expected a PipelineConfig or None, got {kind}{hint}")


def _check_labels(labels: Mapping[int, str], prompts: Sequence[KeyframePrompt]) -> None:
    """Refuse labels of unknown ids where the prompts say all ids that there will be."""
    known: set[int] = set()
    for prompt in prompts:
        if prompt.object_ids is None:
            return
        known.update(prompt.object_ids)
    if unknown := sorted(set(labels) - known):
        raise PromptError(
            f"labels name {unknown}, but the prompts give {sorted(known)} as object_ids"
        )


def _need(stage: T | None) -> T:
    if stage is None:
        raise PromptError(
            "this pipeline lacks a stage that the call needs: load a bundle that holds both halves"
        )
    return stage


def _reason(
    reasoner: Reasoner,
    observation: Observation,
    query: str,
    config: PipelineConfig,
    watch: Stopwatch,
) -> tuple[Reasoning, str]:
    try:
        reasoning = reasoner.reason(observation, query, config.generation)
    except ModelOutputError as e:
        if config.on_parse_error == "raise":
            raise
        return Reasoning(text=e.text, thinking="", answer=e.text, segments=()), "unparsed"
    watch.add(reasoning.timings_ms)
    return reasoning, "found" if reasoning.segments else "absent"


def _reasoned(
    reasoning: Reasoning, status: str, keyframes: tuple[Keyframe, ...], video: VideoInfo
) -> Reasoned:
    cut = reasoning.thinking_cut
    return Reasoned(reasoning.thinking, reasoning.answer, status, keyframes, cut, video)


def _images(video: Video, watch: Stopwatch, indices: Sequence[int]) -> Mapping[int, Image]:
    with watch.stage("decode"):
        batch = video.fetch(indices)
    return dict(zip(batch.frame_indices.tolist(), batch.frames, strict=True))
