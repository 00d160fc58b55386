"""A video as the tracker reads it: at the tracker's size, timed, and decoded ahead of its use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from omni_sdk.stages import TrackerFrame
from omni_sdk.utils.prefetch import Prefetch

if TYPE_CHECKING:
    from omni_sdk.media.frames import VideoFrame
    from omni_sdk.media.video import Video
    from omni_sdk.utils.timing import Stopwatch

FRAMES_AHEAD = 4
"""Frames held beyond the one in use: at 1024 px each takes 3 MiB, its luma a byte per pixel of the source."""


class TrackedFrames:
    """The `FrameSource` of a video. A context manager: leaving it ends every walk.

    A video serves one thread at a time: with `overlap`, nothing else may be asked of it until the walk has
    ended or the context is left.

    Args:
        video: open.
        side: of the square images that the tracker reads, in pixels.
        watch: receives "decode" and "overlapped".
        overlap: decode in a thread of its own.
    """

    def __init__(self, video: Video, side: int, watch: Stopwatch, *, overlap: bool) -> None:
        self._video, self._watch, self._overlap = video, watch, overlap
        self._size = (side, side)
        self._ahead: list[Prefetch[VideoFrame]] = []
        self.height, self.width = video.info.height, video.info.width
        self.num_frames = video.info.num_frames

    def __enter__(self) -> TrackedFrames:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for walk in self._ahead:
            walk.close()
            self._watch.overlap("decode", walk.busy_ms, walk.waited_ms)
        self._ahead.clear()

    def forward(self, start: int, stop: int, *, luma: bool = False) -> Iterator[TrackerFrame]:
        """Yield frames start, start + 1, ... stop - 1."""
        return self._walk(lambda: self._video.forward(start, stop, size=self._size, luma=luma))

    def backward(self, start: int, stop: int, *, luma: bool = False) -> Iterator[TrackerFrame]:
        """Yield frames start, start - 1, ... stop + 1."""
        return self._walk(lambda: self._video.backward(start, stop, size=self._size, luma=luma))

    def _walk(self, open_walk: Callable[[], Iterator[VideoFrame]]) -> Iterator[TrackerFrame]:
        frames: Iterator[VideoFrame]
        if self._overlap:
            ahead = Prefetch(open_walk, FRAMES_AHEAD)
            self._ahead.append(ahead)
            frames = ahead
        else:
            frames = self._watch.iterate("decode", open_walk())
        for f in frames:
            yield TrackerFrame(f.frame_index, f.pts_seconds, f.image, f.luma)
