"""A clip made of arithmetic, and a frame source over arrays: what trackers are compared on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from omni_sdk.media.frame_source import ImageFrameSource


class ArrayFrameSource(ImageFrameSource):
    """A source over (T, S, S, 3) uint8 frames that are the source themselves."""

    def __init__(self, images: NDArray[np.uint8], fps: float = 8.0) -> None:
        count, height, width = images.shape[:3]
        times = [i / fps for i in range(count)]
        super().__init__(lambda i, _: images[i], times, (height, width), height)


def moving_square(frames: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A bright square moving over a gradient: (T, S, S, 3) uint8 and its boxes (T, 4) float32."""
    y, x = np.mgrid[:side, :side] / side
    ground = np.stack([60 + 60 * x, 80 + 40 * y, 90 + 30 * (x + y) / 2], -1)
    images, boxes = [], []
    for t in range(frames):
        x0, y0 = int(side * (0.2 + 0.03 * t)), int(side * (0.3 + 0.015 * t))
        x1, y1 = x0 + side // 3, y0 + side // 3
        image = ground.copy()
        image[y0:y1, x0:x1] = (230, 60, 40)
        images.append(image.astype(np.uint8))
        boxes.append([x0, y0, x1, y1])
    return np.stack(images), np.array(boxes, np.float32)
