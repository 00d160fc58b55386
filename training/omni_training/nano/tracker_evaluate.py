"""How well a tracker tracks on held-out clips, read through the runtime's own rules.

Truth and frames are drawn at `TRUTH_SIDE` and at the model's size; masks are scored at `TRUTH_SIDE`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from omni_sdk.config import TrackingConfig
from omni_sdk.demo.render import mask_box, object_map, render
from omni_sdk.demo.scene import Scene, make_scene
from omni_sdk.demo.world import DURATION_SECONDS, held_out_seed
from omni_sdk.dus.masks import rle_decode
from omni_sdk.dus.tracker import Sam2Tracker
from omni_sdk.hf.sam2_checkpoint import dus_spec
from omni_sdk.hf.tracker import HfTracker
from omni_sdk.metrics.davis import region_similarity
from omni_sdk.stages import FrameSource, KeyframePrompt, TrackerFrame
from transformers import Sam2VideoModel

from omni_training.nano.tracker_clips import RULES, perturb_box

TRUTH_SIDE = 384
PROMPT_AREA = 0.002
"""Share of the frame that an object must show at its best to be judged: less is a sliver behind another."""

WRONG_BOX_ERROR = 0.08
"""Deviation of a wrong box's edges over its extent; boxes then overlap the true one by about 0.75."""


class SceneFrames:
    """`omni_sdk.stages.FrameSource` over a scene, without a file."""

    height = width = TRUTH_SIDE

    def __init__(self, scene: Scene, side: int, times_seconds: Sequence[float]) -> None:
        """Show a scene at these times in frames of side x side pixels."""
        self.num_frames = len(times_seconds)
        self._scene, self._size, self._times = scene, (side, side), times_seconds

    def object_maps(self) -> NDArray[np.uint8]:
        """Return (L, TRUTH_SIDE, TRUTH_SIDE), which object each pixel shows."""
        size = (TRUTH_SIDE, TRUTH_SIDE)
        return np.stack([object_map(self._scene, t, size) for t in self._times])

    def forward(self, start: int, stop: int) -> Iterator[TrackerFrame]:
        """Yield frames start, start + 1, ... stop - 1."""
        return map(self._frame, range(start, stop))

    def backward(self, start: int, stop: int) -> Iterator[TrackerFrame]:
        """Yield frames start, start - 1, ... stop + 1."""
        return map(self._frame, range(start, stop, -1))

    def _frame(self, index: int) -> TrackerFrame:
        seconds = self._times[index]
        return TrackerFrame(index, seconds, render(self._scene, seconds, self._size))


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
        """Frames, seen from the prompt, on which the object is back."""
        lost = ~self.visible
        forward = np.cumsum(lost[self.prompt :]) > 0
        backward = np.cumsum(lost[self.prompt :: -1])[::-1] > 0
        return self.visible & np.concatenate([backward[:-1], forward])


def score_scene(
    tracker: Sam2Tracker,
    frames: FrameSource,
    maps: NDArray[np.uint8],
    *,
    error: float,
    last: bool,
    rng: np.random.Generator,
) -> list[TrackScore]:
    """Track every object of a scene from one box each.

    Args:
        tracker: whose rules and model are judged.
        frames: the clip.
        maps: (L, H, W), which object each pixel of a frame shows.
        error: of the boxes; see `perturb_box`.
        last: prompt on the last frame that shows the object whole, else on the first: then the rest of
            the clip is tracked backward in time.
        rng: of the errors.
    """
    scores = []
    for target in range(int(maps.max(initial=0))):
        masks = maps == target + 1
        areas = masks.sum((1, 2))
        whole = np.flatnonzero(areas >= 0.6 * areas.max())
        if areas.max() < PROMPT_AREA * masks[0].size:
            continue
        prompt = int(whole[-1 if last else 0])
        box = np.array(mask_box(masks[prompt]), np.float32)
        box = perturb_box(rng, box, error, masks.shape[-1])
        run = tracker.track(frames, [KeyframePrompt(prompt, box[None])], TrackingConfig())
        found = np.zeros_like(masks)
        for item in run:
            found[item.frame_index] = rle_decode(item.masks[0].counts, masks.shape[1:])
        scores.append(
            TrackScore(
                j=np.array([region_similarity(a, b) for a, b in zip(found, masks, strict=True)]),
                visible=areas > 0,
                empty=~found.any((1, 2)),
                prompt=prompt,
            )
        )
    return scores


def evaluate_clips(
    model: Sam2VideoModel,
    *,
    rules: str = "next",
    clips: int = 12,
    frames: int = 16,
    error: float = 0.0,
    last: bool = False,
    first_clip: int = 0,
) -> dict[str, float]:
    """Return the means over held-out clips, all objects of each; see `summarise_tracks`."""
    tracker = _tracker(model)
    scores: list[TrackScore] = []
    for number, scene in enumerate(_held_out(rules, clips, first_clip)):
        times = [t * DURATION_SECONDS / frames for t in range(frames)]
        source = SceneFrames(scene, tracker.image_size, times)
        scores += score_scene(
            tracker,
            source,
            source.object_maps(),
            error=error,
            last=last,
            rng=np.random.default_rng(number),
        )
    return summarise_tracks(scores)


def summarise_tracks(scores: list[TrackScore]) -> dict[str, float]:
    """Return means over frames.

    j_visible: IoU where the object can be seen; j: on all frames; absent_empty: share of the frames without
    the object that are answered with an empty mask; j_after_absence; false_absent: share of the frames with
    it that are answered so; j_prompted: on the prompted frame. A mean of nothing is left out.
    """
    j = np.concatenate([s.j for s in scores])
    visible = np.concatenate([s.visible for s in scores])
    empty = np.concatenate([s.empty for s in scores])
    after = np.concatenate([s.after_absence for s in scores])
    values = {
        "j_prompted": np.array([s.j[s.prompt] for s in scores]),
        "j_visible": j[visible],
        "j": j,
        "absent_empty": empty[~visible],
        "false_absent": empty[visible],
        "j_after_absence": j[after],
    }
    means = {name: float(value.mean()) for name, value in values.items() if len(value)}
    return means | {"absent_frames": int((~visible).sum()), "after_frames": int(after.sum())}


def evaluate_boxes(
    model: Sam2VideoModel, *, rules: str = "next", clips: int = 40, first_clip: int = 0
) -> dict[str, float]:
    """Return the IoU of the mask that a box gives, on one frame per held-out clip.

    "box_iou": from the true box; "box_iou_wrong": from one with errors of `WRONG_BOX_ERROR`.
    """
    tracker = _tracker(model)
    ious: dict[str, list[float]] = {"box_iou": [], "box_iou_wrong": []}
    for number, scene in enumerate(_held_out(rules, clips, first_clip)):
        rng = np.random.default_rng(number)
        source = SceneFrames(scene, tracker.image_size, [float(rng.uniform(2, 7))])
        maps = source.object_maps()
        for name, error in (("box_iou", 0.0), ("box_iou_wrong", WRONG_BOX_ERROR)):
            scored = score_scene(tracker, source, maps, error=error, last=False, rng=rng)
            ious[name] += [float(s.j[0]) for s in scored]
    return {name: float(np.mean(values)) for name, values in ious.items()}


def _tracker(model: Sam2VideoModel) -> HfTracker:
    return HfTracker.from_model(model, dus_spec(model, "."), device=str(model.device))


def _held_out(rules: str, clips: int, first_clip: int) -> Iterator[Scene]:
    families = RULES[rules].families
    for index in range(clips):
        family, number = families[index % len(families)], first_clip + index // len(families)
        yield make_scene(held_out_seed(family, number), family, RULES[rules])
