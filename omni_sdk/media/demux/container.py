"""The only door to libavformat: allow-lists, limits, and one error line for all that can go wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream

from omni_sdk.errors import LimitError, MediaError
from omni_sdk.media.limits import MediaLimits

# Still images are opened by what they hold: by their name libavformat may take them for a pattern of many
# files (image2), which is not allowed.
_IMAGE_FORMATS = (
    (b"\x89PNG\r\n\x1a\n", "png_pipe"),
    (b"\xff\xd8\xff", "jpeg_pipe"),
    (b"BM", "bmp_pipe"),
    (b"II*\x00", "tiff_pipe"),
    (b"MM\x00*", "tiff_pipe"),
)


@contextmanager
def media_errors(name: str) -> Iterator[None]:
    """Turn whatever reading the source `name` raises into one `MediaError`.

    Besides FFmpeg's errors, damaged files have been seen to raise MemoryError (a size field) and
    UnicodeDecodeError (metadata).
    """
    try:
        yield
    except (av.error.FFmpegError, MemoryError, UnicodeError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MediaError(f"{name!r} cannot be read as a video or image: {reason}") from error


def check_file(path: Path, limits: MediaLimits) -> None:
    """Check that a path is a regular file of a sensible size.

    Raises:
        MediaError: nothing there, a directory, not a regular file, or empty.
        LimitError: larger than `max_file_bytes`, or local files are not allowed.
    """
    name = str(path)
    if "file" not in limits.protocols:
        raise LimitError(
            f"{name!r}: local files are not allowed; MediaLimits.protocols lacks 'file'"
        )
    try:
        if not path.exists():
            raise MediaError(f"no such file: {name!r}")
        if path.is_dir():
            raise MediaError(f"{name!r} is a directory, expected a video or image file")
        if not path.is_file():
            raise MediaError(f"{name!r} is not a regular file, expected a video or image file")
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # a name too long, a NUL byte, no permission
        raise MediaError(f"{name!r} cannot be opened: {error}") from error
    if size == 0:
        raise MediaError(f"{name!r} is empty (0 bytes), expected a video or image file")
    if size > limits.max_file_bytes:
        raise LimitError(
            f"{name!r} has {size} bytes, more than max_file_bytes={limits.max_file_bytes}"
        )


def _image_format(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(16)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp_pipe"
    return next((name for magic, name in _IMAGE_FORMATS if head.startswith(magic)), None)


def open_container(path: Path, limits: MediaLimits, *, is_quick: bool = False) -> InputContainer:
    """Open a local file for demuxing; the caller closes it.

    Args:
        path: a local file.
        limits: bounds.
        is_quick: for a file whose header is known to say enough: libavformat does not decode frames to
            find out more (27 ms for 1080p, 4 ms without). The reordering depth of a stream that does
            not state it is then unknown at first: frames may be lost, never wrong.

    Raises:
        MediaError: the file is missing or is no video or image of an allowed container.
        LimitError: too large a file, or too many streams.
    """
    check_file(path, limits)
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(limits.formats),
        "max_pixels": str(limits.max_pixels),
    }
    if is_quick:
        options |= {"skip_frame": "all", "probesize": "65536"}
    name = str(path)
    try:
        image_format = _image_format(path)
    except OSError as error:
        raise MediaError(f"{name!r} cannot be opened: {error}") from error
    with media_errors(name):
        # "file:" keeps a name such as "concat:a|b" or "-" from being read as a protocol.
        container = av.open(
            f"file:{path}", format=image_format, options=options, metadata_errors="ignore"
        )
    streams = len(container.streams)
    if streams > limits.max_streams:
        container.close()
        raise LimitError(
            f"{name!r} has {streams} streams, more than max_streams={limits.max_streams}"
        )
    return container


def read_only(stream: Stream) -> None:
    """Tell the demuxer to leave out the packets of all other streams, as far as it can."""
    for other in stream.container.streams:
        other.discard = Discard.default if other.index == stream.index else Discard.all


def video_stream(container: InputContainer, name: str, limits: MediaLimits) -> VideoStream:
    """Return the stream to decode, its size checked.

    Raises:
        MediaError: no video stream (a cover picture is none), no decoder, or no size.
        LimitError: a frame has more than `max_pixels`.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = sorted({s.type for s in container.streams if s.type != "video"})
        found = f"only {' and '.join(kinds)}" if kinds else "no stream at all"
        raise MediaError(f"{name!r} has no video stream, found {found}")
    stream = streams[0]
    context = stream.codec_context
    if context is None:
        raise MediaError(f"{name!r}: there is no decoder for its video stream")
    width, height = context.width, context.height
    if width * height > limits.max_pixels:
        raise LimitError(
            f"{name!r} has frames of {width}x{height} = {width * height} pixels, more than "
            f"max_pixels={limits.max_pixels}"
        )
    # A container may claim a small size and hold a large one: the decoder checks again.
    context.options = {**context.options, "max_pixels": str(limits.max_pixels)}
    return stream


def tagged_seconds(stream: Stream) -> float | None:
    """Return the end of a stream in seconds as Matroska's muxers tag it, None without such a tag."""
    text = stream.metadata.get("DURATION", "")
    found = re.fullmatch(r"(\d{1,4}):(\d{2}):(\d{2}(?:\.\d{1,9})?)\s*", text)
    return None if found is None else int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
