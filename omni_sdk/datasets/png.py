"""What a PNG file promises, verified before a decoder sees it: size, kind, checksums, amount of pixels.

Source: the PNG specification (W3C, third edition), sections 5 and 11. The decoder (PyAV) would pass over a
file cut short after its pixels or with a damaged checksum; a mask may not be silently incomplete.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from omni_sdk.errors import DatasetError, LimitError
from omni_sdk.output.png import SIGNATURE

GREY, RGB, INDEXED, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
_CHANNELS = {GREY: 1, RGB: 3, INDEXED: 1, GREY_ALPHA: 2, RGBA: 4}
_DEPTHS = {
    GREY: (1, 8, 16),
    RGB: (8, 16),
    INDEXED: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    RGBA: (8, 16),
}


@dataclass(frozen=True, slots=True)
class PngHeader:
    """Size in pixels, bits per sample, colour type and the palette as RGB triples (may be empty)."""

    width: int
    height: int
    depth: int
    colour: int
    palette: bytes = b""


def verify_png(data: bytes, where: str, *, max_pixels: int) -> PngHeader:
    """Check a whole PNG file and return its header.

    Args:
        data: the file.
        where: for messages.
        max_pixels: limit of width * height.

    Raises:
        DatasetError: not a PNG, damaged, cut short, interlaced or of an unusual depth.
        LimitError: more than `max_pixels`.
    """
    if data[:8] != SIGNATURE:
        raise DatasetError(f"{where}: not a PNG file")
    header: PngHeader | None = None
    palette, pixels, position, ended = b"", [], 8, False
    while not ended:
        if position + 12 > len(data):
            raise DatasetError(f"{where}: PNG cut short at byte {len(data)}")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise DatasetError(f"{where}: PNG cut short inside {kind!r}")
        body = data[position + 8 : end - 4]
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(data[end - 4 : end], "big"):
            raise DatasetError(f"{where}: PNG damaged, wrong checksum of {kind!r}")
        if header is None:
            header = _read_header(kind, body, where, max_pixels)
        elif kind == b"PLTE":
            palette = body
        elif kind == b"IDAT":
            pixels.append(body)
        ended = kind == b"IEND"
        position = end
    assert header is not None
    _verify_pixels(header, b"".join(pixels), where)
    return PngHeader(header.width, header.height, header.depth, header.colour, palette)


def _read_header(kind: bytes, body: bytes, where: str, max_pixels: int) -> PngHeader:
    if kind != b"IHDR" or len(body) != 13:
        raise DatasetError(f"{where}: PNG without a header")
    width, height, depth, colour, compression, filters, interlace = struct.unpack(">IIBBBBB", body)
    if not (0 < width < 1 << 31 and 0 < height < 1 << 31) or compression or filters:
        raise DatasetError(f"{where}: PNG header is not valid")
    if width * height > max_pixels:
        raise LimitError(f"{where}: expected at most {max_pixels} pixels, got {width}x{height}")
    if depth not in _DEPTHS.get(colour, ()) or interlace:
        raise DatasetError(
            f"{where}: expected a plain grey, indexed or RGB PNG, got colour type {colour}, "
            f"{depth} bits, interlace {interlace}; save it again without interlacing"
        )
    return PngHeader(width, height, depth, colour)


def _verify_pixels(header: PngHeader, stream: bytes, where: str) -> None:
    """Decompress as much as the size asks for, never more, and see that it is all there."""
    row = (header.width * _CHANNELS[header.colour] * header.depth + 7) // 8 + 1
    expected = header.height * row
    inflate = zlib.decompressobj()
    try:
        got = len(inflate.decompress(stream, expected + 1))
    except zlib.error as e:
        raise DatasetError(f"{where}: PNG damaged: {e}") from e
    if got != expected:
        raise DatasetError(f"{where}: expected {expected} bytes of pixels in the PNG, got {got}")
