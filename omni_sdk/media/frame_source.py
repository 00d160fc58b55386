"""Frames as the tracker reads them, `omni_sdk.stages.FrameSource`: from a video, or from single images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omni_sdk.media.frames import VideoFrame, luma_of
from omni_sdk.utils.prefetch import Prefetch

if TYPE_CHECKING:
    from omni_sdk.media.video import Video
    from omni_sdk.utils.timing import Stopwatch

FRAMES_AHEAD = 4
"""Frames held beyond the one in use: at 1024 px each takes 3 MiB, its luma a byte per pixel of the source."""

ImageAt = Callable[[int, tuple[int, int]], NDArray[np.uint8]]
"""(frame index, (height, width)) -> the frame at that size, (height, width, 3) uint8 RGB."""


class VideoFrameSource:
    """The frames of a video, decoded ahead of their use. A context manager: leaving it ends every walk.

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

    def __enter__(self) -> VideoFrameSource:
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

    def forward(self, start: int, stop: int, *, luma: bool = False) -> Iterator[VideoFrame]:
        """Yield frames start, start + 1, ... stop - 1."""
        return self._walk(lambda: self._video.forward(start, stop, size=self._size, luma=luma))

    def backward(self, start: int, stop: int, *, luma: bool = False) -> Iterator[VideoFrame]:
        """Yield frames start, start - 1, ... stop + 1."""
        return self._walk(lambda: self._video.backward(start, stop, size=self._size, luma=luma))

    def _walk(self, open_walk: Callable[[], Iterator[VideoFrame]]) -> Iterator[VideoFrame]:
        if not self._overlap:
            return self._watch.iterate("decode", open_walk())
        ahead = Prefetch(open_walk, FRAMES_AHEAD)
        self._ahead.append(ahead)
        return ahead


class ImageFrameSource:
    """Frames that can each be had on their own: rendered, read from a picture file, or held in memory.

    Args:
        image_at: gives a frame at a size.
        times_seconds: of the frames, ascending; their number is that of the frames.
        size: (height, width) of the source in pixels; masks have this size.
        side: of the square images that the tracker reads, in pixels.
    """

    def __init__(
        self, image_at: ImageAt, times_seconds: Sequence[float], size: tuple[int, int], side: int
    ) -> None:
        self._image_at, self._times = image_at, times_seconds
        self._side = (side, side)
        self.height, self.width = size
        self.num_frames = len(times_seconds)

    def forward(self, start: int, stop: int, *, luma: bool = False) -> Iterator[VideoFrame]:
        """Yield frames start, start + 1, ... stop - 1."""
        return self._walk(range(start, stop), luma)

    def backward(self, start: int, stop: int, *, luma: bool = False) -> Iterator[VideoFrame]:
        """Yield frames start, start - 1, ... stop + 1."""
        return self._walk(range(start, stop, -1), luma)

    def _walk(self, indices: Iterable[int], luma: bool) -> Iterator[VideoFrame]:
        for index in indices:
            image = self._image_at(index, self._side)
            gray = luma_of(self._image_at(index, (self.height, self.width))) if luma else None
            yield VideoFrame(index, float(self._times[index]), image, gray)
