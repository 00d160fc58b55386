"""8-bit PNG files of one value per pixel: grey, or indices into a palette."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _INDEXED = 0, 3


def encode_png(values: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> bytes:
    """Return a PNG file of (H, W) uint8 values.

    Args:
        values: grey, or with a palette the index of each pixel's colour.
        palette: (256, 3) uint8 RGB.

    Raises:
        ValueError: another shape or type.
    """
    if values.dtype != np.uint8 or values.ndim != 2 or values.size == 0:
        raise ValueError(f"expected (H, W) uint8 values, got {values.dtype} {values.shape}")
    height, width = values.shape
    rows = np.zeros((height, width + 1), np.uint8)  # a leading 0 per row: no prediction
    rows[:, 1:] = values
    colour = _GREY if palette is None else _INDEXED
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))]
    if palette is not None:
        chunks.append((b"PLTE", palette.tobytes()))
    chunks += [(b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    return SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
