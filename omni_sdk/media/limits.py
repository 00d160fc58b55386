"""What a source may cost: sizes, times, protocols and containers, all of which a caller can change."""

from __future__ import annotations

import numbers
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

from omni_sdk.errors import LimitError

ENVIRONMENT_PREFIX = "OMNI_SDK_"

# Demuxers by libavformat's names. None of these opens another file; concat, hls, dash, image2 (file name
# patterns) and the device inputs do, and are left out on purpose.
DEFAULT_FORMATS = (
    *(
        "mov,mp4,m4a,3gp,3g2,mj2",
        "matroska,webm",
        "avi",
        "mpegts",
        "mpeg",
        "flv",
        "asf",
        "ogg",
        "mxf",
    ),
    *(
        "nut",
        "ivf",
        "h264",
        "hevc",
        "obu",
        "m4v",
        "mpegvideo",
        "mjpeg",
        "yuv4mpegpipe",
        "gif",
        "apng",
    ),
    *("png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe"),
)


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Bounds on one source. Exceeding one raises `LimitError`, which names the field to change.

    Attributes:
        max_file_bytes: size of the file, or of a download or recording.
        max_duration_seconds: length of the source.
        max_pixels: width * height of a frame; checked before anything is decoded.
        max_streams: streams in the container.
        max_frames: frames in the index.
        max_frames_held: decoded frames that walking backward holds at once.
        max_containers: places of a file that are decoded side by side, each with a decoder and its
            reference frames (22 MB for 1080p H.264). With 1, frame threads share them: less memory, and
            about two thirds of the speed where the wanted frames lie far apart.
        max_batch_bytes: bytes of RGB frames in one returned batch.
        max_audio_seconds: sound that is decoded.
        max_wall_seconds: time spent reading and decoding in one call.
        live_seconds: how long a camera or an rtsp source is recorded.
        protocols: allowed protocols: "file", "http", "https", "rtsp".
        formats: allowed containers, by libavformat's demuxer names.
    """

    max_file_bytes: int = 8 << 30
    max_duration_seconds: float = 4 * 3600.0
    max_pixels: int = 36_000_000
    max_streams: int = 32
    max_frames: int = 1_000_000
    max_frames_held: int = 32
    max_containers: int = 4
    max_batch_bytes: int = 1 << 30
    max_audio_seconds: float = 4 * 3600.0
    max_wall_seconds: float = 600.0
    live_seconds: float = 10.0
    protocols: tuple[str, ...] = ("file",)
    formats: tuple[str, ...] = DEFAULT_FORMATS

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            found = f"got {value!r} ({type(value).__name__})"
            if isinstance(field.default, tuple):
                if isinstance(value, str):  # every part of the text would be allowed
                    raise LimitError(f"{field.name} must be a tuple (each a text), {found}")
            elif isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise LimitError(f"{field.name} must be a number, {found}")
            elif not float(value) > 0:
                raise LimitError(f"{field.name} must be positive, got {value!r}")

    @classmethod
    def from_environment(cls) -> MediaLimits:
        """Return the defaults with OMNI_SDK_MAX_FILE_BYTES and its siblings applied.

        Each numeric field is read from OMNI_SDK_ + its name in capitals (plain numbers).

        Raises:
            LimitError: a variable is not a positive number, or nothing reads an OMNI_SDK_MAX_* of this name.
        """
        changed: dict[str, int | float] = {}
        known = {
            ENVIRONMENT_PREFIX + f.name.upper(): (f.name, f.default)
            for f in fields(cls)
            if isinstance(f.default, int | float)
        }
        given = {name for name in os.environ if name.startswith(f"{ENVIRONMENT_PREFIX}MAX_")}
        # A limit that somebody believes in and nothing applies is worse than none.
        if unknown := sorted(given - known.keys()):
            raise LimitError(f"nothing reads {unknown[0]}; known: {', '.join(known)}")
        for name, (field, default) in known.items():
            text = os.environ.get(name)
            if text is None:
                continue
            try:
                changed[field] = type(default)(text)
                cls(**{field: changed[field]})  # type: ignore[arg-type]
            except ValueError as error:
                kind = "an integer" if isinstance(default, int) else "a number"
                raise LimitError(f"{name} must be {kind} above 0, got {text!r}") from error
        return cls(**changed)  # type: ignore[arg-type]


class WallClock:
    """Stops a loop that reads or decodes for too long.

    Time inside `paused()` does not count, so that a slow consumer of a frame iterator is not blamed on
    the file.
    """

    def __init__(self, limits: MediaLimits, what: str) -> None:
        self._limit = limits.max_wall_seconds
        self._what = what
        self._start = time.monotonic()

    def check(self) -> None:
        """Raise LimitError once the time is used up; call it once per packet."""
        if time.monotonic() - self._start > self._limit:
            raise LimitError(
                f"{self._what} took longer than max_wall_seconds={self._limit:g}; raise that limit in "
                "MediaLimits or use a shorter or smaller source"
            )

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside out of the account."""
        before = time.monotonic()
        try:
            yield
        finally:
            self._start += time.monotonic() - before
