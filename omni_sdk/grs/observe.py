"""Sample a source the way a reasoner wants to see it: frames, clock and sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from omni_sdk.config import SamplingConfig
from omni_sdk.media.clock import Clock
from omni_sdk.stages import Observation, PatchReader, Reasoner

if TYPE_CHECKING:
    from omni_sdk.bundle.manifest import SamplingSpec
    from omni_sdk.media.video import Video
    from omni_sdk.utils.timing import Stopwatch


def num_frames(spec: SamplingSpec, duration_seconds: float, available: int) -> int:
    """Return how many frames a reasoner is shown: fps * duration within the spec's bounds.

    The bounds are the authors' (8 to 24 frames); a source with fewer frames gives all it has.
    """
    wanted = round(duration_seconds * spec.fps)
    return max(1, min(max(wanted, spec.min_frames), spec.max_frames, available))


def observe(
    video: Video, reasoner: Reasoner, config: SamplingConfig, watch: Stopwatch
) -> Observation:
    """Decode what the reasoner looks at and listens to.

    Args:
        video: an open source.
        reasoner: says how many frames it wants and of which size.
        config: the caller's wishes.
        watch: receives "decode" and "audio".

    Returns:
        Frames that could be decoded, with a clock over just these; audio from the first frame on.
    """
    spec, info = reasoner.sampling, video.info
    count = min(
        config.num_frames or num_frames(spec, info.duration_seconds, info.num_frames),
        info.num_frames,
    )
    # Planes become patches at once; with "exact" they become images, as the reference has them.
    layout = None
    if config.pixels == "fast" and isinstance(reasoner, PatchReader):
        layout = reasoner.patch_layout
    with watch.stage("decode"):
        batch = video.sample(
            num_frames=count,
            strategy=spec.strategy,
            size=reasoner.frame_size(info.height, info.width),
            patches=layout,
        )
    clock = Clock(
        frame_indices=np.asarray(batch.frame_indices, np.int64),
        pts_seconds=np.asarray(batch.pts_seconds, np.float64),
        end_seconds=info.duration_seconds,
        virtual_fps=spec.virtual_fps,
    )
    audio = None
    if config.audio and info.has_audio:
        with watch.stage("audio"):
            clip = video.audio(sampling_rate=reasoner.sampling_rate)
            audio = None if clip is None else clip.samples
    return Observation(batch.frames, clock, audio, batch.patches)
