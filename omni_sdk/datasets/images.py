"""Frames and masks on disk: JPEG and PNG through PyAV's decoders, never through its file access."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from omni_sdk.datasets import png
from omni_sdk.errors import DatasetError, LimitError
from omni_sdk.output.png import SIGNATURE

MAX_FILE_BYTES = 64 << 20
MAX_PIXELS = 1 << 26


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) in pixels from the header of a JPEG or PNG file.

    Raises:
        DatasetError: the file is missing, too large, or neither.
        LimitError: more than 2^26 pixels.
    """
    return _header_size(_read(path), str(path))


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return a JPEG or PNG picture, (H, W, 3) uint8 RGB.

    Raises:
        DatasetError: the file is missing, too large, damaged, or neither.
        LimitError: more than 2^26 pixels.
    """
    return decode_image(_read(path), str(path))


def decode_image(data: bytes, where: str) -> NDArray[np.uint8]:
    """Return a JPEG or PNG picture that is in memory, (H, W, 3) uint8 RGB.

    Args:
        data: the file's bytes.
        where: what they are, for messages.

    Raises:
        DatasetError: too large, damaged, or neither.
        LimitError: more than 2^26 pixels.
    """
    if len(data) > MAX_FILE_BYTES:
        raise DatasetError(f"{where}: expected at most {MAX_FILE_BYTES} bytes, got {len(data)}")
    if data.startswith(SIGNATURE):
        png.verify_png(data, where, max_pixels=MAX_PIXELS)
    else:
        _header_size(data, where)
        # The decoder fills what is missing at the end with grey. A thumbnail's end lies before the frame.
        if data.rfind(b"\xff\xd9") < _frame_header(data, where):
            raise DatasetError(f"{where}: cannot be decoded: JPEG cut short")
    return _rgb(data, where)


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Return the values stored in an indexed or grey PNG: indices or grey levels, (H, W) uint8.

    Raises:
        DatasetError: the file is missing, too large, damaged, in colour, or of 16 bits.
        LimitError: more than 2^26 pixels.
    """
    data, where = _read(path), str(path)
    header = png.verify_png(data, where, max_pixels=MAX_PIXELS)
    if header.colour not in (png.INDEXED, png.GREY) or header.depth == 16:
        raise DatasetError(
            f"{where}: expected an indexed or grey PNG of at most 8 bits, got colour type "
            f"{header.colour}, {header.depth} bits"
        )
    frame = _decode(data, where)
    plane = frame.planes[0]
    rows: NDArray[np.uint8] = np.frombuffer(memoryview(plane), np.uint8)
    rows = rows.reshape(-1, plane.line_size)[: header.height]
    if header.colour == png.GREY and header.depth == 1:
        rows = np.unpackbits(rows, axis=1)
    # A copy: the decoder owns the plane.
    return np.array(rows[:, : header.width])


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Return where a PNG of any kind is not black, (H, W) bool: what `cv2.imread(..) > 0` means.

    Raises:
        DatasetError: the file is missing, too large or damaged.
        LimitError: more than 2^26 pixels.
    """
    data, where = _read(path), str(path)
    header = png.verify_png(data, where, max_pixels=MAX_PIXELS)
    if header.colour == png.INDEXED:
        palette = np.frombuffer(header.palette[:768], np.uint8)
        lit = np.zeros(256, np.bool_)
        lit[: palette.size // 3] = palette[: palette.size // 3 * 3].reshape(-1, 3).any(axis=1)
        return lit[read_labels(path)]
    if header.colour == png.GREY and header.depth <= 8:
        return np.not_equal(read_labels(path), 0)
    return np.asarray(_rgb(data, where).any(axis=2))


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DatasetError(f"{path}: expected at most {MAX_FILE_BYTES} bytes, got {size}")
        return path.read_bytes()
    except OSError as e:
        raise DatasetError(f"{path}: cannot be read: {e.strerror or e}") from e


def _decode(data: bytes, where: str) -> av.VideoFrame:
    """Decode one still picture from memory."""
    codec = av.CodecContext.create("png" if data.startswith(SIGNATURE) else "mjpeg", "r")
    assert isinstance(codec, av.VideoCodecContext)
    codec.thread_count = 1
    # max_pixels: a JPEG may hold a second, larger frame header.
    codec.options = {"err_detect": "explode", "max_pixels": str(MAX_PIXELS)}
    try:
        frames = codec.decode(av.Packet(data)) or codec.decode(None)
    except (av.error.FFmpegError, ValueError) as e:
        raise DatasetError(f"{where}: cannot be decoded: {e}") from e
    if not frames:
        raise DatasetError(f"{where}: cannot be decoded: no picture in it")
    return frames[0]


def _rgb(data: bytes, where: str) -> NDArray[np.uint8]:
    return np.asarray(_decode(data, where).to_ndarray(format="rgb24"), np.uint8)


def _header_size(data: bytes, where: str) -> tuple[int, int]:
    """Return (height, width) within the limits."""
    if data.startswith(SIGNATURE) and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
    else:
        position = _frame_header(data, where)
        height, width = struct.unpack_from(">HH", data, position + 5)
    if height == 0 or width == 0:
        raise DatasetError(f"{where}: expected a picture, its header says {width}x{height}")
    if height * width > MAX_PIXELS:
        raise LimitError(f"{where}: expected at most {MAX_PIXELS} pixels, got {width}x{height}")
    return height, width


def _frame_header(data: bytes, where: str) -> int:
    """Return where the header of a JPEG's frame begins (ITU T.81, B.1.1.3)."""
    if not data.startswith(b"\xff\xd8"):
        raise DatasetError(f"{where}: neither a JPEG nor a PNG file")
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        # Start of frame, all codings; C4, C8 and CC are tables that share the range.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return position
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    raise DatasetError(f"{where}: JPEG without a size")
