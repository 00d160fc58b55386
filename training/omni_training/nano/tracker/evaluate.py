"""How well a tracker tracks on held-out clips, read through the runtime: from arrays, or from mp4 files.

Every object that can be seen well is tracked through the whole clip from one box. Masks are compared at
`TRUTH_SIDE` pixels, the size of the demo's files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omni_sdk.config import TrackingConfig
from omni_sdk.demo.clip import write_clip
from omni_sdk.demo.render import object_map, render
from omni_sdk.demo.scene import Scene, make_scene
from omni_sdk.demo.world import DURATION_SECONDS, FAMILIES, held_out_seed
from omni_sdk.dus.masks import rle_decode
from omni_sdk.hf.sam2_checkpoint import dus_spec, load_model
from omni_sdk.hf.tracker import HfTracker
from omni_sdk.media.frame_source import ImageFrameSource
from omni_sdk.media.limits import MediaLimits
from omni_sdk.pipeline import Pipeline
from omni_sdk.results import BundleInfo
from omni_sdk.stages import KeyframePrompt, Tracker
from transformers import Sam2VideoModel

from omni_training.nano.tracker.scores import (
    Masks,
    Track,
    TrackScore,
    score_objects,
    summarise_tracks,
)

TRUTH_SIDE = 384
WRONG_BOX_ERROR = 0.08
"""Deviation of a wrong box's edges over its extent; boxes then overlap the true one by about 0.75."""


def scene_frames(scene: Scene, side: int, times_seconds: Sequence[float]) -> ImageFrameSource:
    """Show a scene at these times in frames of side x side pixels, without a file."""
    return ImageFrameSource(
        lambda i, size: render(scene, times_seconds[i], size),
        times_seconds,
        (TRUTH_SIDE, TRUTH_SIDE),
        side,
    )


def evaluate_clips(
    model: Sam2VideoModel,
    *,
    clips: int = 12,
    frames: int = 16,
    error: float = 0.0,
    last: bool = False,
    first_clip: int = 0,
) -> dict[str, float]:
    """Score a model on held-out clips that were never files.

    Args:
        model: on any device.
        clips: how many; the families take turns.
        frames: evenly spaced in each clip.
        error: of the boxes; see `perturb_box`.
        last: prompt where an object is seen well for the last time, so that the clip is tracked backward;
            else where it is seen well first.
        first_clip: number of the first clip in each family's held-out range.

    Returns:
        See `summarise_tracks`.
    """
    tracker = as_tracker(model)
    times = [t * DURATION_SECONDS / frames for t in range(frames)]
    scores: list[TrackScore] = []
    for scene, rng in _held_out(clips, first_clip):
        track = _rendered(tracker, scene, times)
        scores += score_objects(_maps(scene, times), track, error=error, last=last, rng=rng)
    return summarise_tracks(scores)


def evaluate_files(
    model: Sam2VideoModel | Tracker,
    *,
    clips: int = 12,
    fps: float = 8.0,
    error: float = 0.0,
    last: bool = False,
    first_clip: int = 0,
) -> dict[str, float]:
    """Score a model, or any tracker, on held-out clips that are written as mp4 and read back.

    Arguments as for `evaluate_clips`; `fps` is the files' frame rate.
    """
    tracker = as_tracker(model) if isinstance(model, Sam2VideoModel) else model
    info = BundleInfo(name="tracker", version="0", backend="", device="")
    pipeline = Pipeline(None, None, tracker, info, MediaLimits())
    scores: list[TrackScore] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"

        def track(prompt: KeyframePrompt) -> Masks:
            (found,) = pipeline.track(path, [prompt])
            return np.stack([found.mask_at(int(t)) for t in found.frame_indices])

        for scene, rng in _held_out(clips, first_clip):
            truth = write_clip(scene, path, size=(TRUTH_SIDE, TRUTH_SIDE), fps=fps)
            maps = _maps(scene, truth.pts_seconds)
            scores += score_objects(maps, track, error=error, last=last, rng=rng)
    return summarise_tracks(scores)


def evaluate_boxes(
    model: Sam2VideoModel, *, clips: int = 40, first_clip: int = 0
) -> dict[str, float]:
    """Return the IoU of the mask that a box gives, on one frame per held-out clip.

    "box_iou": from the true box; "box_iou_wrong": from one with errors of `WRONG_BOX_ERROR`.
    """
    tracker = as_tracker(model)
    ious: dict[str, list[float]] = {"box_iou": [], "box_iou_wrong": []}
    for scene, rng in _held_out(clips, first_clip):
        times = [float(rng.uniform(2, 7))]
        maps, track = _maps(scene, times), _rendered(tracker, scene, times)
        for name, error in (("box_iou", 0.0), ("box_iou_wrong", WRONG_BOX_ERROR)):
            found = score_objects(maps, track, error=error, last=False, rng=rng)
            ious[name] += [float(score.j[0]) for score in found]
    return {name: float(np.mean(values)) for name, values in ious.items()}


def evaluate_tracker(
    checkpoint: Path,
    *,
    clips: int,
    mp4: bool = False,
    device: str = "cpu",
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the measures of `evaluate_boxes`, then of tracks: true boxes, wrong ones, backward.

    Args:
        checkpoint: folder in transformers' layout.
        clips: of each family.
        mp4: read the clips from mp4 files of 8 frames/s; else 16 frames of each, never encoded.
        device: torch's name.

    Raises:
        BundleError: the checkpoint is incomplete, or not of a known layout.
    """
    model = load_model(checkpoint).to(device)
    evaluate, count = evaluate_files if mp4 else evaluate_clips, clips * len(FAMILIES)
    yield "boxes", evaluate_boxes(model, clips=count)
    yield "true_boxes", evaluate(model, clips=count)
    yield "wrong_boxes", evaluate(model, clips=count, error=WRONG_BOX_ERROR)
    yield "true_boxes_backward", evaluate(model, clips=count, last=True)


def as_tracker(model: Sam2VideoModel) -> HfTracker:
    """Return the runtime's tracker over a model in memory, with the pixels' mean and deviation of SAM 2."""
    return HfTracker.from_model(model, dus_spec(model, "."), device=str(model.device))


def _rendered(tracker: HfTracker, scene: Scene, times_seconds: Sequence[float]) -> Track:
    """Return what tracks in frames of a scene that were never a file."""
    source = scene_frames(scene, tracker.image_size, times_seconds)

    def track(prompt: KeyframePrompt) -> Masks:
        run = tracker.track(source, [prompt], TrackingConfig())
        size = (source.height, source.width)
        found = {item.frame_index: rle_decode(item.masks[0].counts, size) for item in run}
        return np.stack([found[t] for t in range(source.num_frames)])

    return track


def _maps(scene: Scene, times_seconds: Sequence[float]) -> NDArray[np.uint8]:
    size = (TRUTH_SIDE, TRUTH_SIDE)
    return np.stack([object_map(scene, t, size) for t in times_seconds])


def _held_out(clips: int, first_clip: int) -> Iterator[tuple[Scene, np.random.Generator]]:
    """Yield scenes, and what draws the errors of their boxes."""
    for index in range(clips):
        family, number = FAMILIES[index % len(FAMILIES)], first_clip + index // len(FAMILIES)
        yield make_scene(held_out_seed(family, number), family), np.random.default_rng(index)
