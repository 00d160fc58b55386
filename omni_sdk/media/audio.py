"""Sound as mono float32 on the video's clock."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from omni_sdk.errors import LimitError
from omni_sdk.media.demux.container import media_errors, open_container, read_only
from omni_sdk.media.demux.sound import AudioPacket, SoundPackets, promised_seconds
from omni_sdk.media.frames import AudioClip
from omni_sdk.media.limits import MediaLimits, WallClock

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
    context: av.AudioCodecContext,
    packets: Iterator[AudioPacket],
    name: str,
    clock: WallClock,
    track: _Track,
) -> Iterator[av.AudioFrame]:
    """Decode a sound stream; damaged packets are left out, an unreadable rest ends it."""
    while True:
        clock.check()
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, MemoryError, UnicodeError) as error:
            logger.warning("%r: the sound ends early: %s", name, error)
            track.damaged = True
            return
        try:
            frames = context.decode(packet if packet and packet.size else None)
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, MemoryError):
            track.damaged = True
            continue
        track.damaged |= any(frame.is_corrupt for frame in frames)
        yield from frames
        if packet is None or not packet.size:
            return


def read_audio(
    path: Path,
    limits: MediaLimits,
    *,
    first_seconds: float,
    sampling_rate: int,
    max_seconds: float | None,
    gathered: SoundPackets | None = None,
    is_quick: bool = False,
) -> AudioClip | None:
    """Decode and resample the sound of a file (libswresample, mono mix-down).

    Args:
        path: a local file.
        limits: bounds.
        first_seconds: container time of the first video frame, which becomes time 0.
        sampling_rate: wanted rate in Hz.
        max_seconds: sound after this time is left out; None: all of it.
        gathered: the sound's packets, where a demux has met them: the file is not read again.
        is_quick: as for `open_container`, otherwise.

    Returns:
        The sound, or None where there is no sound stream or nothing in it can be decoded.

    Raises:
        LimitError: the sound goes on for more than `max_audio_seconds`.
        MediaError: the file cannot be read.
    """
    name = str(path)
    clock = WallClock(limits, f"decoding the sound of {name!r}")
    track = _Track(sampling_rate)
    wanted = limits.max_audio_seconds if max_seconds is None else max_seconds

    def place(
        context: av.AudioCodecContext, packets: Iterator[AudioPacket], promised: float
    ) -> AudioClip | None:
        start: float | None = None
        with media_errors(name):
            for frame in _frames(context, packets, name, clock, track):
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
                end = promised - first_seconds
                track.damaged |= track.end_seconds < end - _EARLY_SECONDS
            if track.parts:
                track.flush()
        samples = track.render(int(wanted * sampling_rate))
        if start is None:
            logger.warning("%r: nothing in its sound stream can be decoded", name)
            return None
        return AudioClip(samples, sampling_rate, start, track.damaged)

    if gathered is not None:
        track.damaged = gathered.ended_early
        return place(gathered.context, iter(gathered.packets), gathered.promised_seconds)
    container = open_container(path, limits, is_quick=is_quick)
    try:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            logger.warning("%r: there is no decoder for its sound", name)
            return None
        read_only(stream)
        return place(stream.codec_context, container.demux(stream), promised_seconds(container))
    finally:
        container.close()
