"""What tracks are worth, against the truth of their scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from omni_sdk.dus.boxes import mask_box
from omni_sdk.metrics.davis import region_similarity
from omni_sdk.stages import KeyframePrompt

from omni_training.nano.tracker.clips import perturb_box

PROMPT_AREA = 0.002
"""Share of the frame that an object must show at its best to be scored: less is a sliver behind another."""

Masks = NDArray[np.bool_]
Track = Callable[[KeyframePrompt], Masks]
"""From a prompt to (L, H, W) masks."""


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
        after: NDArray[np.bool_] = self.visible & np.concatenate([backward[:-1], forward])
        return after


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
        empty = ~np.asarray(found.any((1, 2)))
        scores.append(TrackScore(np.array(j), areas > 0, empty, prompt))
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
