"""Overlay videos and indexed PNGs, written frame by frame."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from omni_sdk.errors import MediaError
from omni_sdk.media.frames import AudioClip
from omni_sdk.output.palette import davis_palette, object_colour
from omni_sdk.output.png import encode_png

Mask = NDArray[np.bool_]

_TIME_BASE = Fraction(
    1, 30000
)  # exact for 24, 25, 29.97, 30, 50 and 60 fps; MPEG-4 allows up to 65535
_AUDIO_BLOCK = 1024
# In order of preference; a PyAV build without GPL parts lacks the first.
_CODECS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"preset": "veryfast", "crf": "20"}),
    ("mpeg4", {"qmin": "2", "qmax": "6"}),
)


def label_map(masks: Mapping[int, Mask], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Paint masks into one (H, W) uint8 map of object ids; where two overlap the higher id is on top.

    Args:
        masks: object id, in [1, 255] -> (H, W) bool.
        size: (height, width).

    Raises:
        ValueError: an id that does not fit, or a mask of another size.
    """
    labels = np.zeros(size, np.uint8)
    for object_id in sorted(masks):
        if not 1 <= object_id <= 255:
            raise ValueError(f"an indexed PNG holds object ids 1 to 255, got {object_id}")
        if masks[object_id].shape != tuple(size):
            raise ValueError(f"mask {object_id}: expected {size}, got {masks[object_id].shape}")
        labels[masks[object_id]] = object_id
    return labels


def write_indexed_png(path: str | os.PathLike[str], label_map: NDArray[np.uint8]) -> Path:
    """Write object ids as an 8-bit indexed PNG with the DAVIS palette.

    Args:
        path: target; its folder is made.
        label_map: (H, W) uint8, 0 is the background.

    Returns:
        The path.

    Raises:
        ValueError: another shape or type.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(encode_png(label_map, davis_palette()))
    return target


def contour(mask: Mask, thickness: int) -> Mask:
    """Return the inner border of a mask, `thickness` pixels wide; the frame's edge is no border."""
    inner = mask
    for _ in range(thickness):
        padded = np.pad(inner, 1, mode="edge")
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def draw_masks(
    image: NDArray[np.uint8], masks: Mapping[int, Mask], opacity: float = 0.5
) -> NDArray[np.uint8]:
    """Return a copy of an image with masks in their objects' colours and an opaque contour.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: object id >= 1 -> (H, W) bool.
        opacity: of the colour inside the contour, in [0, 1].

    Raises:
        ValueError: a mask of another size.
    """
    drawn = image.copy()
    thickness = max(1, round(min(image.shape[:2]) / 360))
    alpha = round(256 * opacity)
    for object_id in sorted(masks):
        mask = np.asarray(masks[object_id], bool)
        if mask.shape != image.shape[:2]:
            raise ValueError(f"mask {object_id}: expected {image.shape[:2]}, got {mask.shape}")
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows) == 0:
            continue
        # Only the object's neighbourhood is touched; a pixel more, so that its border is seen.
        window = (
            slice(max(rows[0] - 1, 0), rows[-1] + 2),
            slice(max(columns[0] - 1, 0), columns[-1] + 2),
        )
        part, inside = drawn[window], mask[window]
        colour = np.array(object_colour(object_id), np.int32)
        mixed = (part[inside].astype(np.int32) * (256 - alpha) + colour * alpha) >> 8
        part[inside] = mixed.astype(np.uint8)
        part[contour(inside, thickness)] = colour.astype(np.uint8)
    return drawn


class OverlayWriter:
    """Writes an mp4 of frames with their masks drawn in. Use as a context manager.

    H.264 where PyAV has libx264, else MPEG-4 part 2. Frames with odd sides get their last row or column
    doubled, for both codecs store colour at half size.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        size: tuple[int, int],
        fps: float = 25.0,
        sound: AudioClip | None = None,
        opacity: float = 0.5,
    ) -> None:
        """Start the file.

        Args:
            path: target, an .mp4; its folder is made.
            size: (height, width) of the frames in pixels.
            fps: nominal frame rate, positive; the true times are given with each frame.
            sound: to go with the frames, as from `Video.audio`, encoded as AAC.
            opacity: of the masks, in [0, 1].

        Raises:
            ValueError: `fps` or `opacity` out of range.
            MediaError: the file cannot be written.
        """
        if not 0 < fps <= 1000 or not 0 <= opacity <= 1:
            raise ValueError(
                f"expected 0 < fps <= 1000 and 0 <= opacity <= 1, got {fps=} {opacity=}"
            )
        self.path = Path(path)
        self._size = size
        self._opacity = opacity
        self._sound = sound
        self._written = 0  # sound samples
        self._last_pts = -1
        self._closed = False
        self._fps = fps
        if self.path.is_dir():
            raise MediaError(f"{str(path)!r} cannot be written: it is a directory")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _write_errors(self.path):
            self._container = av.open(str(self.path), "w", format="mp4")
            self._video = self._add_video(fps)
            self._audio = self._add_audio()

    def _add_video(self, fps: float) -> VideoStream:
        rate = Fraction(fps).limit_denominator(1001)
        codec, options = next(c for c in _CODECS if c[0] in av.codecs_available)
        stream = cast(VideoStream, self._container.add_stream(codec, rate, dict(options)))
        height, width = self._size
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        return stream

    def _add_audio(self) -> AudioStream | None:
        if self._sound is None:
            return None
        return self._container.add_stream("aac", self._sound.sampling_rate, layout="mono")

    def __enter__(self) -> OverlayWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(
        self, image: NDArray[np.uint8], masks: Mapping[int, Mask], *, pts_seconds: float
    ) -> None:
        """Add a frame; times must ascend.

        Args:
            image: (H, W, 3) uint8 RGB.
            masks: object id >= 1 -> (H, W) bool.
            pts_seconds: its time from the first frame.

        Raises:
            ValueError: a size or time that does not fit.
            MediaError: the file cannot be written.
        """
        if image.shape != (*self._size, 3) or image.dtype != np.uint8:
            raise ValueError(f"expected uint8 {(*self._size, 3)}, got {image.dtype} {image.shape}")
        pts = round(pts_seconds / _TIME_BASE)
        if pts <= self._last_pts:
            raise ValueError(
                f"frame times must ascend, got {pts_seconds} after {float(self._last_pts * _TIME_BASE)}"
            )
        self._last_pts = pts
        drawn = draw_masks(image, masks, self._opacity)
        height, width = self._size
        if height % 2 or width % 2:
            drawn = np.pad(drawn, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(drawn), format="rgb24")
        frame = frame.reformat(format="yuv420p")
        frame.pts, frame.time_base = pts, _TIME_BASE
        with _write_errors(self.path):
            self._container.mux(self._video.encode(frame))
            self._write_sound(pts_seconds)

    def _write_sound(self, until_seconds: float) -> None:
        """Encode the sound up to a time, block by block, so that it interleaves with the frames."""
        if self._audio is None or self._sound is None:
            return
        rate = self._sound.sampling_rate
        end = min(round(until_seconds * rate), len(self._sound.samples))
        while self._written < end:
            block = self._sound.samples[None, self._written : self._written + _AUDIO_BLOCK]
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(block), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = self._written
            self._container.mux(self._audio.encode(frame))
            self._written += block.shape[1]

    def close(self) -> None:
        """Finish the file; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._last_pts >= 0:
                with _write_errors(self.path):
                    self._container.mux(self._video.encode(None))
                    self._write_sound(float(self._last_pts * _TIME_BASE) + 1 / self._fps)
                    if self._audio is not None:
                        self._container.mux(self._audio.encode(None))
        finally:
            with _write_errors(self.path):
                self._container.close()


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (av.error.FFmpegError, MemoryError) as error:
        raise MediaError(f"{str(path)!r} cannot be written: {error}") from error
