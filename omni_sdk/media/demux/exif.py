"""The EXIF orientation of still images, which PyAV cannot hand out whole (it drops mirrors)."""

from __future__ import annotations

import struct
from pathlib import Path

_MAX_BYTES = 1 << 20  # cameras write EXIF in front; WebP has it at the end
_ORIENTATION_TAG = 0x0112


def exif_orientation(path: Path) -> int:
    """Return the EXIF orientation, 1 to 8, of a JPEG, PNG, WebP or TIFF file; 1 where none is stated."""
    with path.open("rb") as file:
        head = file.read(_MAX_BYTES)
    block = _exif_block(head)
    if block is None and head[8:12] == b"WEBP":
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - _MAX_BYTES, 0))
            tail = file.read()
        at = tail.rfind(b"EXIF")
        block = tail[at + 8 :] if at >= 0 else None
        if block is not None and block.startswith(b"Exif\x00\x00"):
            block = block[6:]
    return _orientation(block) if block is not None else 1


def _exif_block(head: bytes) -> bytes | None:
    """Return the TIFF structure inside an image's first bytes."""
    if head.startswith((b"II*\x00", b"MM\x00*")):
        return head
    if head.startswith(b"\x89PNG"):
        at = 8
        while at + 8 <= len(head):
            size, kind = struct.unpack_from(">I4s", head, at)
            if kind == b"eXIf":
                return head[at + 8 : at + 8 + size]
            at += size + 12
        return None
    if head.startswith(b"\xff\xd8"):
        at = 2
        while at + 4 <= len(head) and head[at] == 0xFF and head[at + 1] != 0xDA:
            (size,) = struct.unpack_from(">H", head, at + 2)
            if head[at + 1] == 0xE1 and head[at + 4 : at + 10] == b"Exif\x00\x00":
                return head[at + 10 : at + 2 + size]
            at += 2 + size
    return None


def _orientation(block: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, directory)
        for n in range(count):
            tag, _, _, value = struct.unpack_from(order + "HHIH", block, directory + 2 + 12 * n)
            if tag == _ORIENTATION_TAG:
                return value if 1 <= value <= 8 else 1
    except struct.error:  # points outside of the block
        return 1
    return 1
