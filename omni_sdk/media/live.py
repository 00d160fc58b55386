"""Sources that are not local files: brought into a temporary file within bounds, then read as one."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import av
import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from omni_sdk.errors import LimitError, MediaError
from omni_sdk.media.demux.container import media_errors
from omni_sdk.media.limits import MediaLimits, WallClock

_TIMEOUT_SECONDS = 10.0
_CAMERA_INPUTS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}:none")}
# What libavformat itself needs below each protocol.
_RTSP_PROTOCOLS = "rtsp,rtp,udp,tcp"
_REMUXED = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "mpeg4"})


class _SameSchemeOnly(urllib.request.HTTPRedirectHandler):
    """No redirects: an allowed address must not lead to one that is not."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Refuse."""
        return


def _temporary_file(suffix: str) -> Path:
    handle, name = tempfile.mkstemp(prefix="omni-sdk-", suffix=suffix)
    os.close(handle)
    return Path(name)


def check_protocol(url: str, limits: MediaLimits) -> str:
    """Return a URL's protocol; LimitError where `MediaLimits.protocols` does not list it."""
    scheme = urlsplit(url).scheme.lower()
    if scheme not in limits.protocols:
        raise LimitError(
            f"{url!r}: the protocol {scheme!r} is not allowed; allowed are "
            f"{', '.join(map(repr, limits.protocols))}; add it to MediaLimits.protocols to allow it"
        )
    return scheme


def download(url: str, limits: MediaLimits) -> Path:
    """Copy an http(s) resource to a temporary file, which the caller deletes; redirects are refused.

    Raises:
        MediaError: it cannot be had.
        LimitError: more bytes than `max_file_bytes`, or more time than `max_wall_seconds`.
    """
    clock = WallClock(limits, f"downloading {url!r}")
    opener = urllib.request.build_opener(_SameSchemeOnly)
    target = _temporary_file(".media")
    try:
        with opener.open(url, timeout=_TIMEOUT_SECONDS) as response, target.open("wb") as file:
            total = 0
            while block := response.read(1 << 16):
                clock.check()
                total += len(block)
                if total > limits.max_file_bytes:
                    raise LimitError(
                        f"{url!r} has more than max_file_bytes={limits.max_file_bytes} bytes"
                    )
                file.write(block)
    except (OSError, ValueError) as error:
        target.unlink(missing_ok=True)
        if isinstance(error, LimitError):
            raise
        raise MediaError(f"{url!r} cannot be downloaded: {error}") from error
    return target


def record_camera(number: int, limits: MediaLimits) -> Path:
    """Record a camera for `live_seconds` into a temporary file, which the caller deletes."""
    if sys.platform not in _CAMERA_INPUTS:
        raise MediaError(f"camera {number}: cameras are not supported on {sys.platform}")
    demuxer, device = _CAMERA_INPUTS[sys.platform]
    return record(device.format(number), f"camera {number}", limits, demuxer=demuxer)


def record_rtsp(url: str, limits: MediaLimits) -> Path:
    """Record an rtsp source for `live_seconds` into a temporary file, which the caller deletes."""
    options = {"protocol_whitelist": _RTSP_PROTOCOLS, "rtsp_transport": "tcp"}
    return record(url, url, limits, demuxer="rtsp", options=options)


def record(
    address: str,
    name: str,
    limits: MediaLimits,
    *,
    demuxer: str,
    options: dict[str, str] | None = None,
) -> Path:
    """Record `live_seconds` of a source: packets are copied, raw camera pictures are encoded.

    Args:
        address: as libavformat wants it.
        name: as the user knows it, for messages.
        limits: bounds.
        demuxer: libavformat's name of the input.
        options: its options.

    Returns:
        A temporary Matroska file, which the caller deletes.

    Raises:
        MediaError: it cannot be opened, or sends no video.
        LimitError: frames too large, or more bytes than `max_file_bytes`.
    """
    target = _temporary_file(".mkv")
    try:
        with media_errors(name):
            source = av.open(
                address,
                format=demuxer,
                options=options or {},
                timeout=_TIMEOUT_SECONDS,
                metadata_errors="ignore",
            )
            with source, av.open(str(target), "w", format="matroska") as sink:
                if not source.streams.video:
                    raise MediaError(f"{name!r} sends no video")
                count = _copy(source, sink, name, target, limits)
        if count == 0:
            raise MediaError(f"{name!r} sent no frame within {limits.live_seconds:g} s")
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target


def _copy(source: InputContainer, sink: Any, name: str, target: Path, limits: MediaLimits) -> int:
    stream = source.streams.video[0]
    context = stream.codec_context
    if context.width * context.height > limits.max_pixels:
        raise LimitError(f"{name!r} sends {context.width}x{context.height}, more than max_pixels")
    copied = context.name in _REMUXED
    sounds = source.streams.audio[:1]
    outputs = {s.index: sink.add_stream_from_template(s) for s in sounds}
    if copied:
        outputs[stream.index] = sink.add_stream_from_template(stream)
        encoder = None
    else:
        encoder = _add_encoder(sink, stream)
    deadline = time.monotonic() + limits.live_seconds
    count = 0
    for packet in source.demux(stream, *sounds):
        if time.monotonic() > deadline or target.stat().st_size > limits.max_file_bytes:
            break
        if packet.dts is None:
            continue
        if packet.stream_index != stream.index or copied:
            count += packet.stream_index == stream.index
            packet.stream = outputs[packet.stream_index]
            sink.mux(packet)
        elif encoder is not None:
            for frame in stream.codec_context.decode(cast("av.Packet[VideoStream]", packet)):
                count += 1
                sink.mux(encoder.encode(frame.reformat(format="yuv420p")))
    if encoder is not None:
        sink.mux(encoder.encode(None))
    return count


def _add_encoder(sink: Any, stream: VideoStream) -> VideoStream:
    context = stream.codec_context
    encoder = cast(VideoStream, sink.add_stream("mpeg4", rate=stream.average_rate or 25))
    encoder.width, encoder.height, encoder.pix_fmt = context.width, context.height, "yuv420p"
    encoder.codec_context.qmax = 4
    return encoder
