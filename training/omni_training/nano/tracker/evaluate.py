"""How well a tracker tracks on held-out clips, read through the runtime: from arrays, or from mp4 files.

Every object that can be seen well is tracked through the whole clip from one box. Masks are scored at
`TRUTH_SIDE` pixels, the size of the demo's files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omni_sdk.config import TrackingConfig
from omni_sdk.demo.clip import write_clip
from omni_sdk.demo.render import mask_box, object_map, render
from omni_sdk.demo.scene import Scene, make_scene
from omni_sdk.demo.world import DURATION_SECONDS, FAMILIES, held_out_seed
from omni_sdk.dus.masks import rle_decode
from omni_sdk.hf.sam2_checkpoint import dus_spec
from omni_sdk.hf.tracker import HfTracker
from omni_sdk.media.frame_source import ImageFrameSource
from omni_sdk.media.limits import MediaLimits
from omni_sdk.metrics.davis import region_similarity
from omni_sdk.pipeline import Pipeline
from omni_sdk.results import BundleInfo
from omni_sdk.stages import KeyframePrompt, Tracker
from transformers import Sam2VideoModel

from omni_training.nano.tracker.clips import perturb_box

TRUTH_SIDE = 384
PROMPT_AREA = 0.002
"""Share of the frame that an object must show at its best to be judged: less is a sliver behind another."""

WRONG_BOX_ERROR = 0.08
"""Deviation of a wrong box's edges over its extent; boxes then overlap the true one by about 0.75."""

Masks = NDArray[np.bool_]
Track = Callable[[KeyframePrompt], Masks]
"""From a prompt to (L, H, W) masks."""


def scene_frames(scene: Scene, side: int, times_seconds: Sequence[float]) -> ImageFrameSource:
    """Show a scene at these times in frames of side x side pixels, without a file."""
    return ImageFrameSource(
        lambda i, size: render(scene, times_seconds[i], size),
        times_seconds,
        (TRUTH_SIDE, TRUTH_SIDE),
        side,
    )


@dataclass(frozen=True)
class TrackScore:
    """One object in one clip; all arrays (L,), in the order of time.

    Attributes:
        j: IoU with the visible part of the object; 1 where both are empty.
        visible: whether the object can be seen.
        empty: whether the answer is empty.
        prompt: the prompted frame.
    """

    j: NDArray[np.float64]
    visible: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    prompt: int

    @property
    def after_absence(self) -> NDArray[np.bool_]:
        """Frames on which the object is back, seen from the prompt."""
        lost = ~self.visible
        forward = np.cumsum(lost[self.prompt :]) > 0
        backward = np.cumsum(lost[self.prompt :: -1])[::-1] > 0
        return self.visible & np.concatenate([backward[:-1], forward])


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
    for number, scene in enumerate(_held_out(clips, first_clip)):
        source = scene_frames(scene, tracker.image_size, times)

        def track(prompt: KeyframePrompt, source: ImageFrameSource = source) -> Masks:
            size = (source.height, source.width)
            run = tracker.track(source, [prompt], TrackingConfig())
            found = {item.frame_index: rle_decode(item.masks[0].counts, size) for item in run}
            return np.stack([found[t] for t in range(source.num_frames)])

        rng = np.random.default_rng(number)
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
        for number, scene in enumerate(_held_out(clips, first_clip)):
            truth = write_clip(scene, path, size=(TRUTH_SIDE, TRUTH_SIDE), fps=fps)

            def track(prompt: KeyframePrompt) -> Masks:
                (found,) = pipeline.track(path, [prompt])
                return np.stack([found.mask_at(int(t)) for t in found.frame_indices])

            rng = np.random.default_rng(number)
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
    for number, scene in enumerate(_held_out(clips, first_clip)):
        rng = np.random.default_rng(number)
        times = [float(rng.uniform(2, 7))]
        source = scene_frames(scene, tracker.image_size, times)

        def track(prompt: KeyframePrompt, source: ImageFrameSource = source) -> Masks:
            (item,) = tracker.track(source, [prompt], TrackingConfig())
            return rle_decode(item.masks[0].counts, (source.height, source.width))[None]

        for name, error in (("box_iou", 0.0), ("box_iou_wrong", WRONG_BOX_ERROR)):
            found = score_objects(_maps(scene, times), track, error=error, last=False, rng=rng)
            ious[name] += [float(score.j[0]) for score in found]
    return {name: float(np.mean(values)) for name, values in ious.items()}


def score_objects(
    maps: NDArray[np.uint8],
    track: Track,
    *,
    error: float,
    last: bool,
    rng: np.random.Generator,
) -> list[TrackScore]:
    """Track every object of a clip that is seen well, from one box each.

    Args:
        maps: (L, H, W), which object each pixel of a frame shows; 0: none.
        track: gives the masks for a prompt.
        error: of the boxes; see `perturb_box`.
        last: see `evaluate_clips`.
        rng: of the errors.
    """
    scores = []
    for target in range(1, int(maps.max(initial=0)) + 1):
        masks = maps == target
        areas = masks.sum((1, 2))
        if areas.max() < PROMPT_AREA * masks[0].size:
            continue
        prompt = int(np.flatnonzero(areas >= 0.6 * areas.max())[-1 if last else 0])
        box = np.array(mask_box(masks[prompt]), np.float32)
        box = perturb_box(rng, box, error, masks.shape[-1])
        found = track(KeyframePrompt(prompt, box[None]))
        j = [region_similarity(a, b) for a, b in zip(found, masks, strict=True)]
        scores.append(TrackScore(np.array(j), areas > 0, ~found.any((1, 2)), prompt))
    return scores


def summarise_tracks(scores: Sequence[TrackScore]) -> dict[str, float]:
    """Return means over the frames of all tracks; a mean of nothing is left out.

    j_prompted: IoU on the prompted frame; j_visible: where the object can be seen; j: on all frames, an
    absence that is answered as such counting 1; absent_empty: share of the frames without the object whose
    mask is empty; false_absent: of those with it; j_after_absence: IoU where the object is back;
    absent_frames, after_frames: how many there are.
    """
    j, visible, empty, after = (
        np.concatenate([getattr(score, name) for score in scores])
        for name in ("j", "visible", "empty", "after_absence")
    )
    values = {
        "j_prompted": np.array([score.j[score.prompt] for score in scores]),
        "j_visible": j[visible],
        "j": j,
        "absent_empty": empty[~visible],
        "false_absent": empty[visible],
        "j_after_absence": j[after],
    }
    means = {name: float(value.mean()) for name, value in values.items() if len(value)}
    return means | {"absent_frames": int((~visible).sum()), "after_frames": int(after.sum())}


def as_tracker(model: Sam2VideoModel) -> HfTracker:
    """Return the runtime's tracker over a model in memory, with the pixels' mean and deviation of SAM 2."""
    return HfTracker.from_model(model, dus_spec(model, "."), device=str(model.device))


def _maps(scene: Scene, times_seconds: Sequence[float]) -> NDArray[np.uint8]:
    size = (TRUTH_SIDE, TRUTH_SIDE)
    return np.stack([object_map(scene, t, size) for t in times_seconds])


def _held_out(clips: int, first_clip: int) -> Iterator[Scene]:
    for index in range(clips):
        family, number = FAMILIES[index % len(FAMILIES)], first_clip + index // len(FAMILIES)
        yield make_scene(held_out_seed(family, number), family)
