"""Sound as mono float32 on the video's clock."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from omni_sdk.errors import LimitError
from omni_sdk.media.container import media_errors, open_container
from omni_sdk.media.frames import AudioClip
from omni_sdk.media.limits import MediaLimits, WallClock
from omni_sdk.media.packets import tagged_seconds

logger = logging.getLogger(__name__)

_EARLY_SECONDS = 0.25  # sound that ends so much before its container's promise is not all there
_GAP_SECONDS = 0.1  # smaller jumps between packets are jitter of the container's clock


class _Track:
    """Places resampled sound by its time: gaps become silence, repeated sound overwrites."""

    def __init__(self, sampling_rate: int) -> None:
        self.rate = sampling_rate
        self.parts: list[tuple[int, list[NDArray[np.float32]]]] = []
        self.end_seconds = 0.0
        self._resampler: av.AudioResampler | None = None
        self._input: tuple[str, str, int] | None = None
        self.damaged = False

    def add(self, frame: av.AudioFrame, seconds: float | None) -> None:
        """Append a decoded frame that starts at `seconds` on the video's clock."""
        start = self.end_seconds if seconds is None else seconds
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if (
            self._resampler is None
            or kind != self._input
            or abs(start - self.end_seconds) > _GAP_SECONDS
        ):
            self.flush()
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=self.rate)
            self._input = kind
            self.parts.append((round(start * self.rate), []))
            self.end_seconds = start
        frame.pts = None  # placed here; the resampler only has to join
        self._take(self._resampler.resample(frame))
        self.end_seconds += frame.samples / frame.sample_rate

    def flush(self) -> None:
        """Take out what the resampler's filter still holds."""
        if self._resampler is not None:
            self._take(self._resampler.resample(None))
            self._resampler = None

    def _take(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            samples = np.asarray(frame.to_ndarray(), np.float32)  # already float: a view
            self.parts[-1][1].append(samples.reshape(-1))

    def render(self, max_samples: int) -> NDArray[np.float32]:
        """Join the parts; sample 0 is at time 0, what lies before is cut."""
        joined = [(at, np.concatenate(blocks)) for at, blocks in self.parts if blocks]
        total = min(max((at + len(b) for at, b in joined), default=0), max_samples)
        samples = np.zeros(max(total, 0), np.float32)
        for at, block in joined:
            block = block[max(-at, 0) :]
            room = samples[max(at, 0) :]
            room[: len(block)] = block[: len(room)]
        return samples


def _frames(
    container: InputContainer, name: str, clock: WallClock, track: _Track
) -> Iterator[av.AudioFrame]:
    """Decode the first sound stream; damaged packets are left out, an unreadable rest ends it."""
    stream = container.streams.audio[0]
    packets = container.demux(stream)
    while True:
        clock.check()
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, MemoryError, UnicodeError) as error:
            logger.warning("%r: the sound ends early: %s", name, error)
            track.damaged = True
            return
        try:
            frames = stream.codec_context.decode(packet if packet and packet.size else None)
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, MemoryError):
            track.damaged = True
            continue
        track.damaged |= any(frame.is_corrupt for frame in frames)
        yield from frames
        if packet is None or not packet.size:
            return


def _promised_seconds(container: InputContainer) -> float:
    """Return the container's time at which the sound should end; 0 where it does not say."""
    stream = container.streams.audio[0]
    if container.format.name in ("mpegts", "mpeg"):  # an estimate, as for the video
        return 0.0
    if stream.duration and stream.time_base:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    return tagged_seconds(stream) or 0.0


def read_audio(
    path: Path,
    limits: MediaLimits,
    *,
    first_seconds: float,
    sampling_rate: int,
    max_seconds: float | None,
) -> AudioClip | None:
    """Decode and resample the sound of a file (libswresample, mono mix-down).

    Args:
        path: a local file.
        limits: bounds.
        first_seconds: container time of the first video frame, which becomes time 0.
        sampling_rate: wanted rate in Hz.
        max_seconds: sound after this time is left out; None: all of it.

    Returns:
        The sound, or None where there is no sound stream or nothing in it can be decoded.

    Raises:
        LimitError: the sound goes on for more than `max_audio_seconds`.
        MediaError: the file cannot be read.
    """
    name = str(path)
    clock = WallClock(limits, f"decoding the sound of {name!r}")
    wanted = limits.max_audio_seconds if max_seconds is None else max_seconds
    container = open_container(path, limits)
    try:
        if not container.streams.audio:
            return None
        if container.streams.audio[0].codec_context is None:
            logger.warning("%r: there is no decoder for its sound", name)
            return None
        track = _Track(sampling_rate)
        start: float | None = None
        with media_errors(name):
            for frame in _frames(container, name, clock, track):
                seconds = None if frame.time is None else float(frame.time) - first_seconds
                if start is None:
                    start = seconds or 0.0
                if (track.end_seconds if seconds is None else seconds) >= wanted:
                    if max_seconds is None:
                        raise LimitError(
                            f"{name!r} has more than max_audio_seconds={wanted:g} of sound"
                        )
                    break
                track.add(frame, seconds)
            else:
                promised = _promised_seconds(container) - first_seconds
                track.damaged |= track.end_seconds < promised - _EARLY_SECONDS
            if track.parts:
                track.flush()
        samples = track.render(int(wanted * sampling_rate))
        if start is None:
            logger.warning("%r: nothing in its sound stream can be decoded", name)
            return None
        return AudioClip(samples, sampling_rate, start, track.damaged)
    finally:
        container.close()
