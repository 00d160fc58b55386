"""ReVOS, MeViS and other videos with expressions as training samples, the way the authors show them.

What is kept of the published training (omni-r1.md sections 1.2 and 1.6): one random expression per video and
visit; 16 to 24 frames spread evenly over the video, all of them where there are 16 or fewer; a virtual 2 fps
clock; no sound; the detail system works on the same frames.

What is mended: no frame comes twice (17 frames were stretched to 24); every object of an expression counts
(3 were picked at random, so that boxes on the others were surplus); an expression that nothing in the video
answers is a sample whose right answer is [] (they were left out).

The choice is made once, from a seed: the same options give the same samples in every process and worker.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omni_sdk.datasets import Sample, open_dataset
from omni_sdk.datasets.masks import RleMasks
from omni_sdk.errors import DatasetError
from omni_sdk.grs.processor import Processor
from omni_sdk.grs.request import ThinkerRequest
from omni_sdk.media.clock import Clock
from omni_sdk.media.frame_source import ImageFrameSource
from omni_sdk.media.pixels.resize import resize
from omni_sdk.media.select import linspace_indices
from omni_sdk.stages import Image, Observation

from omni_training.data.prompts import Model, open_model, random_example, template_of
from omni_training.rewards.truth import ClipTruth
from omni_training.workers.scorer import ClipScorer

VIRTUAL_FPS = 2.0


@dataclass(frozen=True, slots=True)
class Visit:
    """One training sample: an expression and the frames it is shown with.

    Attributes:
        sample: the record.
        frames: (T,) positions in the video, ascending, distinct.
    """

    sample: Sample
    frames: NDArray[np.int64]

    @property
    def clip_id(self) -> str:
        """Name of the video, for routing to workers."""
        return f"{self.sample.dataset}/{self.sample.video.video_id}"

    @property
    def clock(self) -> Clock:
        """The reasoner's clock; its source is the list of shown frames, in video positions as seconds."""
        count = len(self.frames)
        seconds = self.frames.astype(np.float64)
        return Clock(np.arange(count), seconds, float(seconds[-1] + 1), VIRTUAL_FPS)


def choose_visits(
    samples: Sequence[Sample],
    *,
    visits: int = 1,
    min_frames: int = 16,
    max_frames: int = 24,
    keep_absent: bool = True,
    seed: int = 0,
) -> dict[str, Visit]:
    """Draw the samples of a run.

    Args:
        samples: records of one split.
        visits: times that each video is shown, each with an expression of its own draw.
        min_frames: videos of at most this many frames are shown whole.
        max_frames: frames of a longer one are drawn from [min_frames, max_frames].
        keep_absent: keep expressions without any object.
        seed: of the draws.

    Returns:
        Sample id -> visit, in an order that depends on the seed only.

    Raises:
        DatasetError: nothing is left.
    """
    rng = np.random.default_rng(seed)
    by_video: dict[str, list[Sample]] = {}
    for sample in samples:
        if len(sample.video) and (keep_absent or sample.object_ids):
            by_video.setdefault(sample.video.video_id, []).append(sample)
    chosen: dict[str, Visit] = {}
    for visit in range(visits):
        for video_id, own in by_video.items():
            sample = own[int(rng.integers(len(own)))]
            wanted = int(rng.integers(min_frames, max_frames + 1))
            count = min(wanted, len(sample.video))
            if len(sample.video) <= min_frames:
                count = len(sample.video)
            frames = linspace_indices(len(sample.video), count)
            # The frames are part of the name: a worker that drew others must not know the sample.
            mark = f"{zlib.crc32(frames.tobytes()):08x}"
            name = f"{sample.dataset}/{video_id}/{sample.expression_id}#{visit}-{mark}"
            chosen[name] = Visit(sample, frames)
    if not chosen:
        raise DatasetError("no sample is left: the split is empty or has no usable expression")
    return chosen


class VideoSamples:
    """`samples.SampleStore` over visits."""

    def __init__(
        self, visits: dict[str, Visit], model: Model, *, prompt: str = "model", seed: int = 0
    ) -> None:
        """Keep what is needed to make prompts; media are read per sample.

        Args:
            visits: the samples.
            model: makes the prompts.
            prompt: variant; see `prompts.template_of`.
            seed: of the examples in the prompts.

        Raises:
            DatasetError: an unknown variant.
        """
        self._visits = visits
        self._prompt, self._seed = prompt, seed
        numbers: dict[str, int] = {}
        self._templates: dict[str, str | None] = {}
        for name, visit in visits.items():
            number = numbers.get(visit.sample.dataset, 0)
            numbers[visit.sample.dataset] = number + 1
            self._templates[name] = template_of(prompt, number)
        self._processors = {t: model.processor(t) for t in dict.fromkeys(self._templates.values())}
        # Truth and clock of a sample are asked for by every rollout of its group.
        self._truth = lru_cache(maxsize=64)(self._read_truth)

    def request(self, sample_id: str) -> ThinkerRequest:
        """Read the frames and make the prompt; DatasetError where a frame is missing or broken."""
        visit = self._visit(sample_id)
        video = visit.sample.video
        processor = self._processors[self._templates[sample_id]]
        size = processor.frame_size(*video.size())
        frames = np.stack([resize(video.read_frame(int(i)), size) for i in visit.frames])
        example = None
        if self._prompt != "model":
            seconds = visit.clock.duration_seconds
            example = random_example(self._prompt, seconds, sample_id, self._seed)
        return processor.reason_request(
            Observation(frames, visit.clock), visit.sample.expression, example=example
        )

    def truth(self, sample_id: str) -> ClipTruth:
        """Return the true objects on the shown frames; DatasetError where masks are missing."""
        return self._truth(sample_id)

    def clock(self, sample_id: str) -> Clock:
        """Return the virtual clock of the shown frames."""
        return self._visit(sample_id).clock

    def clip_id(self, sample_id: str) -> str:
        """Return the video's name."""
        return self._visit(sample_id).clip_id

    def _visit(self, sample_id: str) -> Visit:
        if sample_id not in self._visits:
            raise DatasetError(f"no sample {sample_id!r} among {len(self._visits)}")
        return self._visits[sample_id]

    def _read_truth(self, sample_id: str) -> ClipTruth:
        return ClipTruth.from_masks(object_masks(self._visit(sample_id)))


class VideoClip:
    """`workers.scorer.RewardClip` over a visit."""

    def __init__(self, visit: Visit, tracker_size: int) -> None:
        """Read the masks; frames are read when they are asked for."""
        self._visit = visit
        self._masks = object_masks(visit)
        self.truth = ClipTruth.from_masks(self._masks)
        video, positions = visit.sample.video, [float(i) for i in visit.frames]
        self.frames = ImageFrameSource(self._image_at, positions, video.size(), tracker_size)

    def _image_at(self, frame_index: int, size: tuple[int, int]) -> Image:
        return resize(self.image(frame_index), size, "bilinear")

    def image(self, frame_index: int) -> Image:
        """Return a shown frame at its full size."""
        return self._visit.sample.video.read_frame(int(self._visit.frames[frame_index]))

    def true_masks(self) -> dict[int, NDArray[np.bool_]]:
        """Return the union of the objects on every shown frame."""
        return {t: np.any(self._masks[:, t], axis=0) for t in range(self._masks.shape[1])}


def object_masks(visit: Visit) -> NDArray[np.bool_]:
    """Return (N, T, H, W) masks of the objects on the shown frames; N = 0 where nothing is named.

    Raises:
        DatasetError: the split has no masks, or they are missing, malformed or differ in size.
    """
    sample, source = visit.sample, visit.sample.masks
    if source is None:
        raise DatasetError(f"{visit.clip_id}: this split has no masks")
    height, width = source.size() or sample.video.size()
    if isinstance(source, RleMasks):
        per_object = [RleMasks(source.table, (key,)) for key in source.keys]
        masks = np.zeros((len(per_object), len(visit.frames), height, width), bool)
        for (n, t), plane in _planes(masks):
            for mask in per_object[n].instances(int(visit.frames[t])):
                if mask.shape != plane.shape:
                    raise DatasetError(
                        f"{visit.clip_id}: masks differ in size, {plane.shape} and {mask.shape}"
                    )
                plane |= mask
        return masks
    merged = np.stack([sample.mask_at(int(f)) for f in visit.frames])[None]
    return merged if merged.any() else merged[:0]


def _planes(masks: NDArray[np.bool_]) -> Iterator[tuple[tuple[int, ...], NDArray[np.bool_]]]:
    return ((index, masks[index]) for index in np.ndindex(masks.shape[:2]))


def video_samples(
    sources: Sequence[dict[str, str]],
    *,
    model: str,
    seed: int = 0,
    prompt: str = "model",
    **options: Any,
) -> tuple[list[str], VideoSamples]:
    """Make the samples of a run (a `data.factory`).

    Args:
        sources: {"dataset", "root", "split"} of each data set.
        model: directory of the thinker's checkpoint, or a bundle: it decides sizes and prompt.
        seed: of all draws.
        prompt: variant of the prompts; see `prompts.template_of`.
        **options: of `choose_visits`.
    """
    visits = open_videos(sources, seed=seed, **options)
    return list(visits), VideoSamples(visits, open_model(model), prompt=prompt, seed=seed)


def video_scorer(
    sources: Sequence[dict[str, str]],
    *,
    bundle: str,
    seed: int = 0,
    max_clips: int = 2,
    cache_mb: int = 1024,
    **options: Any,
) -> ClipScorer:
    """Make a reward worker for the same samples (a `workers.factory`).

    Args:
        sources: as for `video_samples`, since both must name the same samples.
        bundle: whose grounder and tracker judge.
        seed: as for `video_samples`.
        max_clips: clips whose masks are held.
        cache_mb: of tracker encodings held.
        **options: of `choose_visits`, as for `video_samples`.
    """
    from omni_training.data.world import open_detail

    visits = open_videos(sources, seed=seed, **options)
    grounder, tracker = open_detail(bundle, cache_mb << 20)
    load = load_videos(visits, tracker.image_size)
    return ClipScorer(load, grounder, tracker, max_clips=max_clips)


def load_videos(visits: dict[str, Visit], tracker_size: int) -> Callable[[str], VideoClip]:
    """Return what loads a sample's clip in a worker."""

    def load(sample_id: str) -> VideoClip:
        if sample_id not in visits:
            raise DatasetError(
                f"no sample {sample_id!r}: give the workers the same sources, seed and options"
            )
        return VideoClip(visits[sample_id], tracker_size)

    return load


def open_videos(
    sources: Sequence[dict[str, str]], *, seed: int, **options: Any
) -> dict[str, Visit]:
    """Draw the visits of several data sets, each from its own generator.

    Raises:
        DatasetError: a source or an option has a key that nothing reads, or a source lacks one.
    """
    known = set(inspect.signature(choose_visits).parameters) - {"samples", "seed"}
    if unknown := sorted(set(options) - known):
        raise DatasetError(f"nothing reads the options {unknown}; known: {sorted(known)}")
    visits: dict[str, Visit] = {}
    for number, source in enumerate(sources):
        if set(source) != {"dataset", "root", "split"}:
            raise DatasetError(f"expected a source of dataset, root and split, got {dict(source)}")
        records = open_dataset(source["dataset"], source["root"], source["split"])
        visits |= choose_visits(records, seed=seed + number, **options)
    return visits


def open_processor(model: str) -> Processor:
    """Return the processor of a checkpoint or bundle directory, or of an embedded bundle's name."""
    return open_model(model).processor()
