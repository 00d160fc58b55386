"""A video that the caller already holds as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from omni_sdk.errors import LimitError, MediaError
from omni_sdk.media.frames import AudioClip, VideoIndex
from omni_sdk.media.limits import MediaLimits
from omni_sdk.media.pixels.resize import Filter, resize
from omni_sdk.media.random_access import RandomAccessVideo
from omni_sdk.media.video import check_audio

NAME = "<frames>"


class ArrayVideo(RandomAccessVideo):
    """Frames from memory; no sound."""

    def __init__(
        self,
        frames: Iterable[NDArray[np.uint8]],
        limits: MediaLimits,
        *,
        fps: float | None = None,
        times_seconds: Sequence[float] | None = None,
    ) -> None:
        """Keep the frames.

        Args:
            frames: (H, W, 3) uint8 RGB arrays, all of one size; a (T, H, W, 3) array is one too.
            limits: bounds; `max_batch_bytes` bounds what is kept.
            fps: frames per second; 25 where neither it nor times are given.
            times_seconds: time of each frame, ascending; counted from the first.

        Raises:
            MediaError: no frame, or one of another shape or type.
            LimitError: too many pixels or bytes.
            ValueError: bad `fps` or `times_seconds`.
        """
        self._frames = _check_frames(frames, limits)
        height, width = self._frames[0].shape[:2]
        seconds, duration = _times(len(self._frames), fps, times_seconds)
        if duration > limits.max_duration_seconds:
            raise LimitError(
                f"{NAME} last {duration:.0f} s, more than "
                f"max_duration_seconds={limits.max_duration_seconds:g}"
            )
        index = VideoIndex(
            pts_seconds=seconds,
            sync_frames=np.arange(len(self._frames)),
            height=height,
            width=width,
            rotation=0,
            duration_seconds=duration,
            truncated=False,
        )
        super().__init__(NAME, index, limits, has_audio=False)

    def _image(self, index: int, size: tuple[int, int] | None, filter: Filter) -> NDArray[np.uint8]:
        image = self._frames[index]
        return image.copy() if size is None else resize(image, size, filter)

    def audio(
        self, sampling_rate: int = 16000, max_seconds: float | None = None
    ) -> AudioClip | None:
        """Return None: arrays have no sound."""
        self._check_open()
        check_audio(sampling_rate, max_seconds)
        return None

    def close(self) -> None:
        """Let go of the frames."""
        super().close()
        self._frames = []


def _check_frames(
    frames: Iterable[NDArray[np.uint8]], limits: MediaLimits
) -> list[NDArray[np.uint8]]:
    kept: list[NDArray[np.uint8]] = []
    num_bytes = 0
    for n, frame in enumerate(frames):
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3:
            what = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame)
            raise MediaError(f"{NAME}: frame {n}: expected a (H, W, 3) uint8 array, got {what}")
        if frame.shape[2] != 3 or frame.size == 0:
            raise MediaError(
                f"{NAME}: frame {n}: expected a (H, W, 3) uint8 array, got {frame.shape}"
            )
        if kept and frame.shape != kept[0].shape:
            raise MediaError(f"{NAME}: frame {n} is {frame.shape}, frame 0 is {kept[0].shape}")
        if frame.shape[0] * frame.shape[1] > limits.max_pixels:
            raise LimitError(
                f"{NAME}: frames of {frame.shape[1]}x{frame.shape[0]} pixels, more than "
                f"max_pixels={limits.max_pixels}"
            )
        num_bytes += frame.nbytes
        if num_bytes > limits.max_batch_bytes or n >= limits.max_frames:
            raise LimitError(
                f"{NAME}: more than max_batch_bytes={limits.max_batch_bytes} bytes or "
                f"max_frames={limits.max_frames} frames; write them to a file instead"
            )
        kept.append(np.ascontiguousarray(frame))
    if not kept:
        raise MediaError(f"{NAME}: expected at least one frame, got none")
    return kept


def _times(
    count: int, fps: float | None, times_seconds: Sequence[float] | None
) -> tuple[NDArray[np.float64], float]:
    if fps is not None and times_seconds is not None:
        raise ValueError("give fps or times_seconds, not both")
    if times_seconds is None:
        rate = 25.0 if fps is None else float(fps)
        if not 0 < rate <= 100_000:
            raise ValueError(f"fps must be positive, got {fps}")
        return np.arange(count) / rate, count / rate
    times = np.asarray(times_seconds, np.float64)
    if times.shape != (count,) or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise ValueError(
            f"times_seconds must be {count} finite ascending times, one per frame, got {times.shape}"
        )
    seconds = times - times[0]
    step = float(np.median(np.diff(seconds))) if count > 1 else 0.04
    return seconds, float(seconds[-1]) + (step or 0.04)
