"""The size at which a frame or an image is shown to the model."""

from __future__ import annotations

import math

from omni_sdk.errors import LimitError

MAX_ASPECT_RATIO = 200


def smart_resize(
    height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Return the size nearest to the given one whose sides are multiples of `factor`.

    The aspect ratio is kept as closely as that allows, and height * width lies within the budget
    (upstream: smart_resize of Qwen2VLImageProcessor; the same numbers, including its rounding to even).

    Args:
        height: in pixels, at least 1.
        width: in pixels, at least 1.
        factor: patch_size * merge_size.
        min_pixels: least height * width of the result.
        max_pixels: greatest height * width of the result (a side never falls below `factor`).

    Raises:
        ValueError: a side below 1.
        LimitError: (also a ValueError) one side is more than 200 times the other.
    """
    if height < 1 or width < 1:
        raise ValueError(f"a frame needs at least 1x1 pixels, got {height}x{width}")
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise LimitError(
            f"the longer side may be at most {MAX_ASPECT_RATIO} times the shorter one, got "
            f"{height}x{width}; crop or pad the frames"
        )
    new_height = round(height / factor) * factor
    new_width = round(width / factor) * factor
    if new_height * new_width > max_pixels:
        beta = math.sqrt((height * width) / max_pixels)
        new_height = max(factor, math.floor(height / beta / factor) * factor)
        new_width = max(factor, math.floor(width / beta / factor) * factor)
    elif new_height * new_width < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * beta / factor) * factor
        new_width = math.ceil(width * beta / factor) * factor
    return new_height, new_width
