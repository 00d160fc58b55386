"""From whatever the caller names as a source to a `Video`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from omni_sdk.errors import MediaError
from omni_sdk.media.array_video import ArrayVideo
from omni_sdk.media.file_video import FileVideo
from omni_sdk.media.limits import MediaLimits
from omni_sdk.media.live import check_protocol, download, record_camera, record_rtsp
from omni_sdk.media.video import Video


@runtime_checkable
class VideoSource(Protocol):
    """A source that opens itself, such as a folder of frames with its rate and sound."""

    def open_video(self, limits: MediaLimits) -> Video:
        """Open it within these limits."""
        ...


Source: TypeAlias = "str | os.PathLike[str] | int | Iterable[NDArray[np.uint8]] | VideoSource"


def is_live(source: object) -> bool:
    """Tell whether a source shows other frames each time that it is opened: a camera, or an rtsp address."""
    if isinstance(source, int | np.integer):
        return True
    return isinstance(source, str) and source.lower().startswith("rtsp://")


class TemporaryVideo(FileVideo):
    """A recording or download; its file is deleted on close."""

    def __init__(self, path: Path, limits: MediaLimits, *, name: str) -> None:
        self._temporary = path
        try:
            super().__init__(path, limits, name=name)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def close(self) -> None:
        """Delete the file."""
        super().close()
        self._temporary.unlink(missing_ok=True)


def open_source(
    source: Source,
    *,
    limits: MediaLimits | None = None,
    fps: float | None = None,
    times_seconds: Sequence[float] | None = None,
) -> Video:
    """Open a source of frames; use it as a context manager.

    Args:
        source: path of a video or an image (a video of one frame); an http(s) or rtsp URL where
            `limits.protocols` lists it; a camera's number; (H, W, 3) uint8 RGB arrays; or a `VideoSource`.
            Cameras and rtsp are recorded for `limits.live_seconds` into a temporary file.
        limits: bounds; None: the defaults with the OMNI_SDK_MAX_* variables applied.
        fps: frame rate of arrays.
        times_seconds: times of arrays, instead of `fps`.

    Returns:
        The video, indexed.

    Raises:
        MediaError: it cannot be opened or nothing in it can be decoded; the message is one line.
        LimitError: a limit is exceeded; the message names it.
        ValueError: `fps` or `times_seconds` for something that is not arrays.
    """
    limits = MediaLimits.from_environment() if limits is None else limits
    if isinstance(source, Iterable) and not isinstance(source, str | bytes):
        return ArrayVideo(source, limits, fps=fps, times_seconds=times_seconds)
    if fps is not None or times_seconds is not None:
        raise ValueError("fps and times_seconds are for arrays; files and cameras have their own")
    if isinstance(source, VideoSource):
        return source.open_video(limits)
    if isinstance(source, bool) or not isinstance(source, str | os.PathLike | int | np.integer):
        raise MediaError(
            "expected a path, a URL, a camera's number or arrays as source, got "
            f"{type(source).__name__}"
        )
    if isinstance(source, int | np.integer):
        if source < 0:
            raise MediaError(f"camera numbers start at 0, got {source}")
        path = record_camera(int(source), limits)
        return TemporaryVideo(path, limits, name=f"camera {source}")
    text = os.fspath(source)
    if not isinstance(source, str) or "://" not in text:
        if not text:
            raise MediaError("expected a path, a URL or a camera's number as source, got ''")
        return FileVideo(Path(text), limits)
    scheme = check_protocol(text, limits)
    if scheme == "file":
        return FileVideo(Path(unquote(urlsplit(text).path)), limits)
    if scheme in ("http", "https"):
        return TemporaryVideo(download(text, limits), limits, name=text)
    if scheme == "rtsp":
        return TemporaryVideo(record_rtsp(text, limits), limits, name=text)
    raise MediaError(f"{text!r}: the protocol {scheme!r} is not supported")
