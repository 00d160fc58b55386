"""Sound packets gathered while a demux reads the file anyway, to be decoded without reading it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import av
from av.audio.stream import AudioStream
from av.container import InputContainer

from omni_sdk.media.demux.container import tagged_seconds

_MAX_BYTES = 32 << 20  # half an hour of 128 kbit/s; more is read in a pass of its own

AudioPacket: TypeAlias = "av.Packet[AudioStream]"


@dataclass(frozen=True, slots=True, eq=False)
class SoundPackets:
    """The first sound stream of a file, undecoded.

    Attributes:
        context: its decoder, which outlives the container.
        packets: all of its packets, in the file's order.
        promised_seconds: see `promised_seconds`.
        ended_early: the rest of the file could not be read.
    """

    context: av.AudioCodecContext
    packets: tuple[AudioPacket, ...]
    promised_seconds: float
    ended_early: bool


class SoundGatherer:
    """Takes the sound out of a demux of all streams."""

    def __init__(self, container: InputContainer) -> None:
        self._container = container
        streams = container.streams.audio
        self._stream = streams[0] if streams and streams[0].codec_context else None
        self._packets: list[AudioPacket] = []
        self._num_bytes = 0

    def add(self, packet: av.Packet) -> None:  # type: ignore[type-arg]
        """Keep a packet if it is the sound's."""
        if self._stream is None or packet.stream_index != self._stream.index:
            return
        self._packets.append(packet)
        self._num_bytes += packet.size
        if self._num_bytes > _MAX_BYTES:
            self._stream = None
            self._packets.clear()

    def result(self, *, ended_early: bool) -> SoundPackets | None:
        """Return the sound; None where there is none that can be decoded, or too much to keep."""
        if self._stream is None:
            return None
        return SoundPackets(
            self._stream.codec_context,
            tuple(self._packets),
            promised_seconds(self._container),
            ended_early,
        )


def promised_seconds(container: InputContainer) -> float:
    """Return the container's time at which its first sound stream should end; 0 where it does not say."""
    stream = container.streams.audio[0]
    if container.format.name in ("mpegts", "mpeg"):  # an estimate, as for the video
        return 0.0
    if stream.duration and stream.time_base:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    return tagged_seconds(stream) or 0.0
