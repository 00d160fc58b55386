"""Where sampled frames go: an array of images, or patches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omni_sdk.media.pixels.convert import Picture
from omni_sdk.media.pixels.fast import PlanePicture
from omni_sdk.media.pixels.patch_layout import Patches, PatchLayout

Finished = tuple[NDArray[np.uint8], Patches | None]


class ImageTarget:
    """Collects `count` RGB images of a (height, width).

    Attributes:
        num_bytes: that `allocate` will take.
    """

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        self._shape = (count, *size, 3)
        self.num_bytes = count * size[0] * size[1] * 3

    def allocate(self) -> None:
        """Take the memory."""
        self._frames = np.empty(self._shape, np.uint8)

    def put(self, at: int, picture: Picture) -> None:
        """Put a picture in its place; several threads may do so at a time."""
        if isinstance(picture, PlanePicture):
            picture.rgb(self._frames[at])
        else:
            self._frames[at] = picture

    def finish(self, kept: NDArray[np.int64]) -> Finished:
        """Return the images in the places `kept`, ascending."""
        return self._frames if len(kept) == self._shape[0] else self._frames[kept], None


class PatchTarget:
    """Collects the patches of `count` pictures; the interface of `ImageTarget`.

    Raises:
        ValueError: a side is no multiple of patch_size * merge_size.
    """

    def __init__(self, count: int, size: tuple[int, int], layout: PatchLayout) -> None:
        self._layout = layout
        self._grid = layout.grid(count, size)
        self._size = size
        pixels = self._grid[0] * layout.temporal_patch_size * size[0] * size[1]
        self.num_bytes = pixels * 3 * np.dtype(layout.dtype).itemsize

    def allocate(self) -> None:
        """Take the memory."""
        self._values = self._layout.empty(self._grid)

    def put(self, at: int, picture: Picture) -> None:
        """Put a picture in its place; several threads may do so at a time."""
        if isinstance(picture, PlanePicture):
            picture.patches(self._layout, self._values, at)
        else:
            self._layout.write(picture[None], self._values, at)

    def finish(self, kept: NDArray[np.int64]) -> Finished:
        """Return no images, and the patches of the places `kept`, ascending."""
        return np.empty((0, *self._size, 3), np.uint8), self._layout.finish(
            self._values, self._grid, kept
        )
