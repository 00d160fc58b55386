"""What the media layer hands out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omni_sdk.media.pixels.patch_layout import Patches


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One decoded frame.

    Attributes:
        frame_index: presentation order, from 0.
        pts_seconds: presentation time from the source's first frame.
        image: (H, W, 3) uint8 RGB, rotation applied.
        luma: (height, width) uint8 grey values at the source's size, rotation applied, where asked for.
    """

    frame_index: int
    pts_seconds: float
    image: NDArray[np.uint8]
    luma: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of the source.

    Attributes:
        path: as given, or a name such as "<frames>".
        width: in pixels, after rotation.
        height: in pixels, after rotation.
        num_frames: frames that can be decoded.
        average_fps: frames per second.
        duration_seconds: from the first frame to the end of the last.
        has_audio: whether there is a sound stream.
        truncated: whether the container promised more than could be read.
        missing_frames: frames that were wanted and could not be decoded.
        corrupt_frames: frames that were decoded from damaged data.
    """

    path: str
    width: int
    height: int
    num_frames: int
    average_fps: float
    duration_seconds: float
    has_audio: bool
    truncated: bool = False
    missing_frames: int = 0
    corrupt_frames: int = 0


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Sampled frames, in the order in which they were asked for.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, rotation applied; (0, H, W, 3) where patches were asked for.
        frame_indices: (T,) int64 presentation-order index of each.
        pts_seconds: (T,) float64 seconds from the source's first frame.
        missing: indices that were asked for and could not be decoded.
        corrupt: indices that are there but were decoded from damaged data, or may refer to such.
        patches: the frames as patches, where these were asked for.
    """

    frames: NDArray[np.uint8]
    frame_indices: NDArray[np.int64]
    pts_seconds: NDArray[np.float64]
    missing: tuple[int, ...] = ()
    corrupt: tuple[int, ...] = ()
    patches: Patches | None = None

    def __len__(self) -> int:
        return len(self.frame_indices)

    def __repr__(self) -> str:
        return (
            f"FrameBatch(frames={self.frames.shape}, frame_indices={self.frame_indices.tolist()}, "
            f"missing={self.missing}, corrupt={self.corrupt})"
        )


@dataclass(frozen=True, slots=True)
class AudioClip:
    """Sound on the video's clock: sample 0 is heard with the first video frame.

    Attributes:
        samples: (N,) float32 mono, nominally in [-1, 1].
        sampling_rate: in Hz.
        start_seconds: where the sound track starts against the first video frame: silence was put in
            front when positive, that much sound was cut when negative.
        damaged: some of the sound could not be decoded; silence is in its place.
    """

    samples: NDArray[np.float32]
    sampling_rate: int
    start_seconds: float
    damaged: bool = False

    def __repr__(self) -> str:
        return (
            f"AudioClip(samples={self.samples.shape}, sampling_rate={self.sampling_rate}, "
            f"start_seconds={self.start_seconds:g})"
        )


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """What is known of a video's frames without decoding all of them.

    Attributes:
        pts_seconds: (N,) float64 presentation times from the first frame, ascending.
        sync_frames: (K,) int64 ascending indices of frames at which decoding can start.
        height: pixels, after rotation.
        width: pixels, after rotation.
        rotation: degrees, counterclockwise, that were applied: 0, 90, 180 or -90.
        duration_seconds: from the first frame to the end of the last.
        truncated: the container promised more than could be read.
    """

    pts_seconds: NDArray[np.float64]
    sync_frames: NDArray[np.int64]
    height: int
    width: int
    rotation: int
    duration_seconds: float
    truncated: bool

    def __len__(self) -> int:
        return len(self.pts_seconds)

    def __repr__(self) -> str:
        return (
            f"VideoIndex(frames={len(self)}, sync_frames={len(self.sync_frames)}, "
            f"size={self.height}x{self.width}, rotation={self.rotation}, "
            f"duration_seconds={self.duration_seconds:g}, truncated={self.truncated})"
        )


def luma_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (H, W) uint8 grey values of an (H, W, 3) uint8 RGB image: BT.601 in units of 1/256."""
    wide = image.astype(np.uint16)
    luma = 77 * wide[..., 0] + 150 * wide[..., 1] + 29 * wide[..., 2] + 128
    return (luma >> 8).astype(np.uint8)
