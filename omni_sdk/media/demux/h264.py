"""Which H.264 packets decoding can really start at, and which nothing else refers to.

Containers also mark as sync frames the starts of a gradual refresh, from which the picture is whole only
some frames later (recovery point SEI with recovery_frame_cnt > 0, ITU-T H.264 D.2.8). libavcodec
drops the frames before that.
"""

from __future__ import annotations

from collections.abc import Iterator

_SLICE, _IDR, _SEI, _SPS, _PPS, _DELIMITER = 1, 5, 6, 7, 8, 9
_SLICES = frozenset({1, 2, 3, 4, 5})  # whole ones and data partitions
_RECOVERY_POINT = 6
_HEAD_BYTES = 1 << 14  # parameter sets and SEI come first and are small


def nal_length_size(extradata: bytes | None) -> int:
    """Return the bytes of the length in front of each NAL unit, 0 for start codes (Annex B)."""
    if extradata and len(extradata) >= 7 and extradata[0] == 1:
        return (extradata[4] & 3) + 1
    return 0


def starts_cleanly(packet: bytes, length_size: int) -> bool:
    """Tell whether a packet is an IDR picture or a recovery point whose first picture is whole.

    Args:
        packet: one access unit.
        length_size: as from `nal_length_size`.
    """
    return bool(clean_start(packet, length_size, len(packet)))


def clean_start(head: bytes, length_size: int, size: int) -> bool | None:
    """As `starts_cleanly`, from the first bytes of a packet.

    Args:
        head: how the access unit begins.
        length_size: as from `nal_length_size`; with start codes (0) the whole is needed.
        size: bytes of the whole packet.

    Returns:
        The answer, or None where more of the packet is needed.
    """
    exact = False
    for nal in _nal_units(head, length_size, size):
        kind = nal[0] & 31
        if kind == _IDR:
            return True
        if kind == _SLICE:
            return exact
        if kind == _SEI:
            exact = exact or _recovery_count(nal[1:]) == 0
    return exact if len(head) == size else None


def is_unreferenced(packet: bytes, length_size: int) -> bool:
    """Tell whether no other picture refers to this one: all of its slices have nal_ref_idc 0.

    A packet without slices, or with a parameter set, is not one that decoding can do without.

    Args:
        packet: one access unit.
        length_size: as from `nal_length_size`.
    """
    found = False
    for nal in _nal_units(packet, length_size, len(packet)):
        kind = nal[0] & 31
        if kind in (_SPS, _PPS) or (kind in _SLICES and nal[0] & 0x60):
            return False
        found = found or kind in _SLICES
    return found


def empty_packet(length_size: int) -> bytes:
    """Return a packet that holds an access unit delimiter and no picture; arguments as above."""
    delimiter = bytes([_DELIMITER, 0xF0])  # primary_pic_type 7: any slices
    start = len(delimiter).to_bytes(length_size, "big") if length_size else b"\x00\x00\x01"
    return start + delimiter


def _nal_units(packet: bytes, length_size: int, whole: int) -> Iterator[bytes]:
    """Yield the (start of) each NAL unit; ends at anything that does not fit."""
    if length_size:
        at = 0
        while at + length_size < len(packet):
            size = int.from_bytes(packet[at : at + length_size], "big")
            at += length_size
            if at + size > whole:
                return
            if size:
                yield packet[at : at + min(size, _HEAD_BYTES)]
            at += size
        return
    at = packet.find(b"\x00\x00\x01")
    while at >= 0:
        following = packet.find(b"\x00\x00\x01", at + 3, at + _HEAD_BYTES)
        nal = packet[at + 3 : following if following >= 0 else at + _HEAD_BYTES]
        if nal:
            yield nal
        at = following


def _recovery_count(sei: bytes) -> int | None:
    """Return recovery_frame_cnt of a SEI NAL unit's payloads, None without a recovery point."""
    payloads = sei.replace(b"\x00\x00\x03", b"\x00\x00")  # emulation prevention
    at = 0
    while at + 2 < len(payloads):
        values = []
        for _ in range(2):  # payload type, then size: runs of 255 and a last byte
            value = 0
            while at < len(payloads) and payloads[at] == 255:
                value += 255
                at += 1
            if at >= len(payloads):
                return None
            values.append(value + payloads[at])
            at += 1
        kind, size = values
        if kind == _RECOVERY_POINT:
            bits = "".join(f"{byte:08b}" for byte in payloads[at : at + min(size, 8)])
            zeros = len(bits) - len(bits.lstrip("0"))
            code = bits[zeros : 2 * zeros + 1]  # ue(v)
            return int(code, 2) - 1 if len(code) == zeros + 1 else None
        at += size
    return None
