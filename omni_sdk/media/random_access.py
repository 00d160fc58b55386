"""A video whose frames can each be had on their own: arrays in memory, or one picture file per frame."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from omni_sdk.media.frames import VideoFrame, luma_of
from omni_sdk.media.pixels.resize import Filter
from omni_sdk.media.video import Put, Video, check_size


class RandomAccessVideo(Video):
    """All ways through a video, from a method that gives one frame."""

    @abstractmethod
    def _image(self, index: int, size: tuple[int, int] | None, filter: Filter) -> NDArray[np.uint8]:
        """Return a frame, (H, W, 3) uint8 RGB, resized to `size` if one is given; a copy."""

    def _decode(
        self, indices: list[int], size: tuple[int, int] | None, filter: Filter, put: Put
    ) -> set[int]:
        for index in indices:
            put(index, self._image(index, size, filter))
        return set()

    def _walk(
        self, indices: range, size: tuple[int, int] | None, filter: Filter, luma: bool
    ) -> Iterator[VideoFrame]:
        for index in indices:
            self._check_open()
            seconds = float(self._index.pts_seconds[index])
            gray = luma_of(self._image(index, None, filter)) if luma else None
            yield VideoFrame(index, seconds, self._image(index, size, filter), gray)

    def forward(
        self,
        start: int,
        stop: int,
        size: tuple[int, int] | None = None,
        filter: Filter = "bilinear",
        *,
        luma: bool = False,
    ) -> Iterator[VideoFrame]:
        """See `Video.forward`."""
        self._check_forward(start, stop)
        return self._walk(range(start, stop), check_size(size), filter, luma)

    def backward(
        self,
        start: int,
        stop: int,
        size: tuple[int, int] | None = None,
        filter: Filter = "bilinear",
        *,
        luma: bool = False,
    ) -> Iterator[VideoFrame]:
        """See `Video.backward`."""
        self._check_backward(start, stop)
        return self._walk(range(start, stop, -1), check_size(size), filter, luma)
