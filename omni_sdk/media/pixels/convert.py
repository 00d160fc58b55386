"""Decoded frame -> RGB array, upright."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from omni_sdk.media.pixels.fast import FastConverter, PlanePicture
from omni_sdk.media.pixels.planes import planes_to_rgb
from omni_sdk.media.pixels.resize import Filter, resize
from omni_sdk.native import core

PixelPath = Literal["exact", "fast"]
Picture: TypeAlias = "NDArray[np.uint8] | PlanePicture"
"""An RGB image, or a frame that becomes one, or patches, where it is wanted."""

_LEAST_SHRINK = 2  # times, in pixels, from which the fast path pays


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a stored frame is turned for display: transpose first, then flip.

    Attributes:
        transpose: swap rows and columns.
        flip_x: mirror left-right, after the transposition.
        flip_y: mirror top-bottom, after the transposition.
    """

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Orientation:
        """Read the frame's display matrix; anything but quarter turns and mirrors is taken as upright.

        The matrix is (a, b, u; c, d, v; x, y, w) with x' = a x + c y, y' = b x + d y, 16.16 fixed point,
        y pointing down (libavutil/display.h).
        """
        try:
            # Not `frame.side_data`: the frame would keep that and it the frame, 3 MB until the next
            # garbage collection.
            side_data = SideDataContainer(frame)  # type: ignore[call-arg]  # absent from PyAV's stub
            data = bytes(side_data[SideDataType.DISPLAYMATRIX])
        except KeyError:
            return cls()
        except ValueError:  # PyAV 18 knows not all kinds of side data; the angle it can still tell
            return {90: cls(True, False, True), -90: cls(True, True, False)}.get(
                frame.rotation, cls(False, abs(frame.rotation) == 180, abs(frame.rotation) == 180)
            )
        a, b, _, c, d = (int(v) for v in np.frombuffer(data, np.int32, 5))
        if b == c == 0 and a and d:
            return cls(False, a < 0, d < 0)
        if a == d == 0 and b and c:
            return cls(True, c < 0, b < 0)
        return cls()

    @classmethod
    def of_exif(cls, value: int) -> Orientation:
        """Turn an EXIF orientation, 1 to 8, into one of these."""
        return cls(value >= 5, value in (2, 3, 6, 7), value in (3, 4, 7, 8))

    @property
    def rotation(self) -> int:
        """Degrees, counterclockwise; a mirror is not counted."""
        if not self.transpose:
            return 180 if self.flip_x and self.flip_y else 0
        return 90 if self.flip_y else -90

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn an (H, W, 3) image upright, as a view."""
        if self.transpose:
            image = image.transpose(1, 0, 2)
        return image[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


class RgbConverter:
    """Makes upright RGB arrays of one size; one per thread, for it reuses swscale's state.

    With pixels "exact" colours are swscale's, with the matrix and range that the stream states, as in the
    models' reference preprocessing; the resize equals torchvision's. With "fast", frames that lose at least
    half of their pixels take `omni_sdk.media.pixels.fast`, where it reads their format; all others go the
    same way as with "exact", which is as quick for them.
    """

    def __init__(
        self,
        frame_size: tuple[int, int],
        size: tuple[int, int] | None = None,
        filter: Filter = "bicubic",
        orientation: Orientation | None = None,
        pixels: PixelPath = "exact",
    ) -> None:
        self._frame_size = frame_size
        self._size = size
        self._filter: Filter = filter
        self._orientation = orientation  # None: as each frame says
        self._reformatter = VideoReformatter()
        self._fast: FastConverter | None = None
        if pixels == "fast" and size is not None:
            given, wanted = frame_size[0] * frame_size[1], size[0] * size[1]
            # From 1080p to 1024 x 1024 the fast path takes 1.7 times the exact one's time, from 360p to
            # 448 x 252 about as much: it makes chroma for every wanted pixel.
            if given >= _LEAST_SHRINK * wanted:
                self._fast = FastConverter(size, filter)

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Return the frame as a contiguous (H, W, 3) uint8 array; it may share the decoder's memory."""
        picture = self.picture(frame)
        return picture.rgb() if isinstance(picture, PlanePicture) else picture

    def picture(self, frame: av.VideoFrame) -> Picture:
        """Return the same, but leave the conversion for later where the fast path can do it."""
        if self._fast is not None:
            turn = self._orientation or Orientation.of(frame)
            own = (frame.width, frame.height) if turn.transpose else (frame.height, frame.width)
            if own == self._frame_size:  # else the resolution changed within the stream
                fast = self._fast(frame, (turn.transpose, turn.flip_x, turn.flip_y))
                if fast is not None:
                    return fast
        return self._exact(frame)

    def _exact(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        orientation = self._orientation or Orientation.of(frame)
        is_plain = orientation == Orientation() and (frame.height, frame.width) == self._frame_size
        if is_plain:
            direct = planes_to_rgb(frame, self._size, self._filter)
            if direct is not None:
                return direct
        # One thread: frames are already converted side by side, and results do not depend on it.
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
        plane, native = rgb.planes[0], core()
        if is_plain and native is not None and self._size not in (None, self._frame_size):
            small: NDArray[np.uint8] = native.resize_plane(
                plane, plane.line_size, self._frame_size, self._size, self._filter
            )
            return small
        image = np.ascontiguousarray(orientation.apply(_view(plane, rgb.height, rgb.width)))
        if image.shape[:2] != self._frame_size:  # the resolution changed within the stream
            image = resize(image, self._frame_size, "bilinear")
        return image if self._size is None else resize(image, self._size, self._filter)

    def luma(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Return the frame's grey values as a contiguous (H, W) uint8 array: its luma plane, as stored."""
        gray = np.asarray(self._reformatter.reformat(frame, format="gray").to_ndarray(), np.uint8)
        upright = (self._orientation or Orientation.of(frame)).apply(gray[..., None])
        if upright.shape[:2] != self._frame_size:
            upright = resize(np.repeat(upright, 3, -1), self._frame_size, "bilinear")
        return np.ascontiguousarray(upright[..., 0])


def _view(plane: VideoPlane, height: int, width: int) -> NDArray[np.uint8]:
    """Return an RGB plane as an (H, W, 3) array without copying it; the array keeps it alive."""
    memory = np.frombuffer(cast(memoryview, plane), np.uint8)  # PyAV's annotations lack the buffer
    rows = memory[: height * plane.line_size].reshape(height, plane.line_size)
    view: NDArray[np.uint8] = rows[:, : width * 3].reshape(height, width, 3)
    return view
