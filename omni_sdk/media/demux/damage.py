"""Which frames were decoded from damaged data: what decoders tell, and what follows from it.

Note [Damage]
libavcodec conceals damage: it fills what it cannot read from the frames around and gives a whole frame. What
it tells of that differs by codec (measured on PyAV 18 / FFmpeg 8.1):

- H.264, MPEG-4, MPEG-2 flag the frame (AVFrame.decode_error_flags). The flag is copied when the frame is
  given out, which with frame threads may be before it is set: these decoders get one thread. For H.264
  there is a way round, see Note [Flags under frame threads].
- MJPEG and PNG find more when told to refuse damage (err_detect: explode, and PNG's checksums). What they
  refuse is decoded once more by a lenient decoder, and flagged.
- HEVC, VP9, AV1 and FFV1 flag nothing; some damage is refused, and then the frame is missing.

Frames that are decoded after a damaged or lost one, up to the next place where decoding can start, may
refer to it: they count as damaged too. Damage that leaves a valid stream of other pictures cannot be told
from a sound one without a checksum, and is not found.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from omni_sdk.media.demux.packets import PacketTable

# Note [Flags under frame threads]
# The thread that decodes packet n copies the flags of the frame that it gives out, which is one of packet
# m <= n. With t threads a thread takes packet n only when packet n - t is done. So the copy holds all there
# is to tell where n = m (its own frame) or n - m >= t. libavcodec's H.264 gives a frame out when more than
# has_b_frames frames wait, the lowest first; at most r of those (the reordering depth) were decoded before
# packet m, so n - m >= has_b_frames - r. With has_b_frames = r + t, t more frames than needed are held
# back and no flag is lost. At the end the thread that drains gives out all the rest at once, so that t - 1
# packets without a picture go before. (Measured on 1280x720, one bit flipped per file: without both, 2 and 4
# threads lost flags; without the packets at the end 4 threads lost 5 of 50; with both, 2 to 4 threads none
# of 59.)
# What fills the damage may still differ from run to run, and an error is told late: where anything was
# flagged, refused or did not come, the group is decoded again with one thread.
#
# Note [Spoilt decoders]
# flush_buffers does not undo all that damage leaves in a decoder. libavcodec's H.264, with two frame threads,
# then showed the sound key frame of the next group with other pixels and no flag; with one, it filled the
# same damage otherwise the second time. A decoder that has met damage finishes its group and is not used
# again (`PacketReader.read_from`).
FLAGGED_LATE = frozenset({"h264"})
_MAX_DELAY = 15  # libavcodec/h264dec.h: MAX_DELAYED_PIC_COUNT is 16

# Decoders that flag no concealed damage, so that frame threads lose no flag.
FRAME_THREADED = frozenset({"hevc", "vp9", "vp8", "av1", "libdav1d", "prores"})
_STRICT = {"mjpeg": "explode", "png": "crccheck+explode", "apng": "crccheck+explode"}


def strict_options(codec: str) -> dict[str, str]:
    """Return the options that make a decoder refuse damage; empty where it flags what it conceals."""
    return {"err_detect": _STRICT[codec]} if codec in _STRICT else {}


def late_options(codec: str, threads: int, reorder: int | None) -> dict[str, str]:
    """Return what lets a decoder that flags damage late have frame threads; empty where it cannot.

    Args:
        codec: decoder's name.
        threads: frame threads.
        reorder: the stream's reordering depth in frames, None where it is not known.
    """
    if threads == 1 or codec not in FLAGGED_LATE or reorder is None:
        return {}
    delay = reorder + threads
    return {"has_b_frames": str(delay)} if delay <= _MAX_DELAY else {}


def damaged_frames(table: PacketTable, ticks: Iterable[int], *, whole_groups: bool) -> set[int]:
    """Return the frames that are damaged, given the packets that are.

    Args:
        table: the packets.
        ticks: presentation times of packets that were damaged, refused or lost.
        whole_groups: the times are those of a decoder with frame threads, which tells late: everything
            from the sync frame before counts.

    Returns:
        Frame indices: of the packets themselves, and of all that may refer to them.
    """
    rows = np.flatnonzero(np.isin(table.pts, np.fromiter(ticks, np.int64)) | table.is_damaged)
    every = np.arange(len(table))
    starts = np.append(
        0, table.sync_rows
    )  # of group 0, before the first sync frame, and of the others
    group = np.searchsorted(table.sync_rows, every, side="right")
    first = np.full(len(starts), len(table))  # each group's first damaged row
    np.minimum.at(first, group[rows], starts[group[rows]] if whole_groups else rows)
    hurt = every >= first[group]
    # Leading pictures are shown before the sync frame of their group, and refer back over it.
    leading = (group > 0) & (table.pts < table.pts[starts[group]])
    hurt |= leading & (first[group - 1] < len(table))
    return {int(i) for i in np.searchsorted(table.frame_pts, table.pts[hurt & table.is_shown])}


class LinearDamage:
    """The same for frames that are counted, from key frame to key frame."""

    def __init__(self) -> None:
        self.frames: set[int] = set()
        self._group_start = 0
        self._tainted_groups = 0

    def lost(self, index: int) -> None:
        """Note that a packet gave no frame, before the one that will have this index."""
        self.frames.update(range(self._group_start, index))
        # The decoder may still hold a key frame back that comes before the lost one.
        self._tainted_groups = 2

    def saw(self, index: int, *, is_key: bool, is_damaged: bool) -> None:
        """Note a decoded frame."""
        if is_key:
            self._group_start = index
            self._tainted_groups = max(self._tainted_groups - 1, 0)
        if is_damaged:
            self._tainted_groups = max(self._tainted_groups, 1)
            self.frames.update(range(self._group_start, index))
        if self._tainted_groups:
            self.frames.add(index)
