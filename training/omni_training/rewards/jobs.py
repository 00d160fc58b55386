"""What goes to a reward worker and what comes back: moments or boxes in, scalars out.

Jobs and scores are made of plain numbers and short texts. Frames and masks never travel: a worker reads
the clip itself, by its id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

MAX_KEYFRAMES = 64


@dataclass(frozen=True, slots=True)
class GroundingPoint:
    """One keyframe to be scored.

    Attributes:
        sample: index of the sampled frame that the reasoner meant.
        frame_index: that frame in the source.
        description: what to look for.
        boxes_xyxy: boxes in pixels of the source frame where they are known; None: the worker's grounder
            finds them.
        second_looks: (sample, frame_index) of other frames of the moment, in the order in which it is looked
            for there while nothing is found.
    """

    sample: int
    frame_index: int
    description: str
    boxes_xyxy: tuple[tuple[float, float, float, float], ...] | None = None
    second_looks: tuple[tuple[int, int], ...] = ()

    def looks(self) -> tuple[GroundingPoint, ...]:
        """Return the point, then the same on the frames of its second looks."""
        others = (replace(self, sample=s, frame_index=f) for s, f in self.second_looks)
        return self, *others


@dataclass(frozen=True, slots=True)
class RewardJob:
    """One rollout of one clip.

    Attributes:
        sample_id: the training sample: clip and query. Its rollouts share the clip's encodings.
        clip_id: the clip; jobs of one clip go to one worker.
        points: keyframes in time order.
        masks: whether R_G is wanted (it costs a propagation).
        preset: a name of `presets.PRESETS`: how boxes and masks are scored.
    """

    sample_id: str
    clip_id: str
    points: tuple[GroundingPoint, ...]
    masks: bool = True
    preset: str = "paper"

    def __post_init__(self) -> None:
        if len(self.points) > MAX_KEYFRAMES:
            raise ValueError(f"at most {MAX_KEYFRAMES} keyframes per job, got {len(self.points)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the job as JSON values."""
        points = [
            {
                "sample": p.sample,
                "frame_index": p.frame_index,
                "description": p.description,
                "boxes_xyxy": None if p.boxes_xyxy is None else [list(b) for b in p.boxes_xyxy],
                "second_looks": [list(look) for look in p.second_looks],
            }
            for p in self.points
        ]
        return {
            "sample_id": self.sample_id,
            "clip_id": self.clip_id,
            "points": points,
            "masks": self.masks,
            "preset": self.preset,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> RewardJob:
        """Rebuild a job from `to_dict`."""
        points = tuple(
            GroundingPoint(
                p["sample"],
                p["frame_index"],
                p["description"],
                None if p["boxes_xyxy"] is None else tuple(tuple(b) for b in p["boxes_xyxy"]),
                tuple((sample, frame) for sample, frame in p["second_looks"]),
            )
            for p in value["points"]
        )
        return cls(value["sample_id"], value["clip_id"], points, value["masks"], value["preset"])


@dataclass(frozen=True, slots=True)
class DusScores:
    """What the detail system made of a job's keyframes.

    Attributes:
        box: R_A (paper) or avg_iou (reference), [0, 1].
        mask: R_G or sam_iou, [0, 1]; None when not asked for.
        mismatch: surplus-box term of the reference preset, <= 0; 0 in the paper preset.
        num_boxes: boxes found over all keyframes.
        seconds: wall time the worker spent.
    """

    box: float
    mask: float | None
    mismatch: float = 0.0
    num_boxes: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class BackendStats:
    """Counts of a backend since it started; failures are also logged one by one."""

    jobs: int = 0
    failed: int = 0
    retried: int = 0
    replaced_workers: int = 0


class RewardBackend(Protocol):
    """Scores jobs; a job that fails gives None and is counted, never an exception."""

    stats: BackendStats

    async def score(self, jobs: Sequence[RewardJob]) -> list[DusScores | None]:
        """Return the scores of each job, in order."""

    def close(self) -> None:
        """Give back what the backend holds; a second call does nothing."""
