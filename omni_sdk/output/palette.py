"""The colours of object ids, the same in every file that the SDK writes."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

_COLOURS = 22


@functools.lru_cache(maxsize=1)
def davis_palette() -> NDArray[np.uint8]:
    """Return the palette of the DAVIS annotations, (256, 3) uint8 RGB; entry 0, the background, is black.

    Entries 1 to 21 are PASCAL VOC's bit-interleaved colours (with DAVIS's 191 for VOC's 192), the rest are
    grey.
    """
    palette = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    for index in range(_COLOURS):
        for channel in range(3):
            high = 128 * (index >> channel & 1)
            low = 64 * (index >> (channel + 3) & 1)
            palette[index, channel] = min(high + low, 191)
    palette.flags.writeable = False
    return palette


def object_colour(object_id: int) -> tuple[int, int, int]:
    """Return a colour for an object id >= 1: the palette's 21 colours, over and over."""
    red, green, blue = (int(v) for v in davis_palette()[1 + (object_id - 1) % (_COLOURS - 1)])
    return red, green, blue
