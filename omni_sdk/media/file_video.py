"""A video or image in a local file."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from omni_sdk.media.audio import read_audio
from omni_sdk.media.demux.container import media_errors
from omni_sdk.media.demux.damage import FLAGGED_LATE, FRAME_THREADED
from omni_sdk.media.demux.decode import Group, decode_groups, decode_linear, plan_groups
from omni_sdk.media.demux.index import index_file
from omni_sdk.media.demux.reader import PacketReader
from omni_sdk.media.demux.walk import Walker
from omni_sdk.media.frames import AudioClip, VideoFrame
from omni_sdk.media.limits import MediaLimits, WallClock
from omni_sdk.media.pixels.convert import RgbConverter
from omni_sdk.media.pixels.resize import Filter
from omni_sdk.media.video import Put, Video, check_audio, check_size

_MAX_THREADS = 4  # frame threads of one decoder; each holds a frame
# Of a container's speed, what each further frame thread adds: an estimate, for groups of a hundred packets
# and more. For groups of fifteen it was 0.27 (1080p, two threads: 1.65 s, two containers: 1.05 s).
_THREAD_GAIN = 0.6

Convert = Callable[[av.VideoFrame], tuple[NDArray[np.uint8], NDArray[np.uint8] | None]]


class FileVideo(Video):
    """Frames and sound of a local file.

    Walks that are under way hold it open, and the container of the index, until frames are first decoded.
    """

    def __init__(self, path: Path, limits: MediaLimits, *, name: str | None = None) -> None:
        self._cpus = os.cpu_count() or 1
        indexed = index_file(path, limits, threads=min(self._cpus, _MAX_THREADS))
        super().__init__(name or str(path), indexed.index, limits, has_audio=indexed.has_audio)
        self._path = path
        self._table = indexed.table
        self._first_seconds = indexed.first_seconds
        self._orientation = indexed.orientation
        self._is_quick = indexed.is_quick
        self._sound = indexed.sound
        self._can_thread = indexed.codec in FRAME_THREADED | FLAGGED_LATE
        self._spare = indexed.reader  # from the index, for the first who decodes
        self._readers: weakref.WeakSet[PacketReader] = weakref.WeakSet()
        if self._spare is not None:
            self._readers.add(self._spare)

    def _clock(self, what: str) -> WallClock:
        return WallClock(self._limits, f"{what} {self._name!r}")

    def _reader(
        self,
        clock: WallClock,
        threads: int,
        *,
        is_quick: bool = False,
        reorder: int | None = None,
    ) -> PacketReader:
        reader = PacketReader(
            self._path, self._limits, clock, threads=threads, is_quick=is_quick, reorder=reorder
        )
        self._readers.add(reader)
        return reader

    def _take_spare(self, clock: WallClock, threads: int) -> PacketReader | None:
        """Return the index's container, if it is still there and decodes with as many threads."""
        spare, self._spare = self._spare, None
        if spare is None:
            return None
        if spare.threads != threads:
            spare.close()
            return None
        spare.clock = clock
        return spare

    def close(self) -> None:
        """End walks that are under way, too: their iterators may be kept alive by who gave them up."""
        super().close()
        self._sound = None
        for reader in list(self._readers):
            reader.close()

    def _converter(self, size: tuple[int, int] | None, filter: Filter) -> RgbConverter:
        frame_size = (self._index.height, self._index.width)
        return RgbConverter(frame_size, check_size(size), filter, self._orientation, self.pixels)

    def _pictures(self, size: tuple[int, int] | None, filter: Filter, luma: bool) -> Convert:
        """Return what turns a decoded frame into its RGB image and, where asked for, its luma."""
        convert = self._converter(size, filter)
        return lambda frame: (convert(frame), convert.luma(frame) if luma else None)

    def _decode(
        self, indices: list[int], size: tuple[int, int] | None, filter: Filter, put: Put
    ) -> set[int]:
        clock = self._clock("decoding")
        table = self._table
        if table is None:
            convert = self._converter(size, filter)
            with self._reader(clock, 1) as reader, media_errors(self._name):
                for index, frame in decode_linear(reader, set(indices), indices[-1]):
                    put(index, convert.picture(frame))
                return reader.damaged(None)
        groups = plan_groups(table, indices)
        shares, threads = share_out(
            groups, self._cpus, self._limits.max_containers, can_thread=self._can_thread
        )
        spare = self._take_spare(clock, threads)

        def work(share: list[Group], opened: PacketReader | None = None) -> set[int]:
            damaged: set[int] = set()
            convert = self._converter(size, filter)

            def emit(index: int, frame: av.VideoFrame) -> None:
                put(index, convert.picture(frame))

            is_quick = self._is_quick
            reorder: int | None = table.reorder_depth
            while share:
                if opened is None:
                    opened = self._reader(clock, threads, is_quick=is_quick, reorder=reorder)
                with opened as reader, media_errors(self._name):
                    wanted = _members(share)
                    share = decode_groups(reader, table, share, emit)
                    left = _members(share)
                    if is_quick or reader.flags_late:  # they are tried again
                        wanted -= left
                    else:
                        for index in left:
                            reader.lost(table, index)
                            put(index, None)
                        share = []
                    damaged |= reader.damaged(table) & wanted
                    is_quick, reorder, opened = False, None, None
            return damaged

        here, *elsewhere = shares
        if not elsewhere:
            return work(here, spare)
        # One share in this thread: it finds the memory that the index has used, and saves a thread.
        with ThreadPoolExecutor(len(elsewhere), thread_name_prefix="omni-decode") as pool:
            pending = [pool.submit(work, share) for share in elsewhere]
            return work(here, spare).union(*(done.result() for done in pending))

    def _walker(self, clock: WallClock) -> Walker:
        threads = min(self._cpus, _MAX_THREADS)

        def open_reader(reorder: int | None) -> PacketReader:
            return self._reader(clock, 1 if self._table is None else threads, reorder=reorder)

        return Walker(open_reader, self._table, self._missing)

    def _note_damage(self, walker: Walker, start: int, stop: int) -> None:
        self._corrupt |= walker.damaged() & set(range(start, stop)) - self._missing

    def forward(
        self,
        start: int,
        stop: int,
        size: tuple[int, int] | None = None,
        filter: Filter = "bilinear",
        *,
        luma: bool = False,
    ) -> Iterator[VideoFrame]:
        """See `Video.forward`."""
        self._check_forward(start, stop)
        return self._walk_forward(start, stop, self._pictures(size, filter, luma))

    def _walk_forward(self, start: int, stop: int, convert: Convert) -> Iterator[VideoFrame]:
        if start == stop:
            return
        clock = self._clock("decoding")
        with self._walker(clock) as walker:
            try:
                for index, frame in walker.frames(start, stop):
                    with media_errors(self._name):
                        pictures = convert(frame)
                    with clock.paused():
                        yield self._video_frame(index, *pictures)
                    self._check_open()
            finally:
                self._note_damage(walker, start, stop)

    def backward(
        self,
        start: int,
        stop: int,
        size: tuple[int, int] | None = None,
        filter: Filter = "bilinear",
        *,
        luma: bool = False,
    ) -> Iterator[VideoFrame]:
        """See `Video.backward`."""
        self._check_backward(start, stop)
        return self._walk_backward(start, stop, self._pictures(size, filter, luma))

    def _walk_backward(self, start: int, stop: int, convert: Convert) -> Iterator[VideoFrame]:
        clock = self._clock("decoding")
        sync = self._index.sync_frames
        end = start + 1
        with self._walker(clock) as walker:
            while end > stop + 1:
                group = int(sync[np.searchsorted(sync, end - 1, side="right") - 1])
                begin = max(group, stop + 1, end - self._limits.max_frames_held)
                with media_errors(self._name):
                    held = [(i, convert(f)) for i, f in walker.frames(begin, end)]
                self._note_damage(walker, begin, end)
                while held:
                    index, pictures = held.pop()
                    with clock.paused():
                        yield self._video_frame(index, *pictures)
                    self._check_open()
                end = begin

    def _video_frame(
        self, index: int, image: NDArray[np.uint8], luma: NDArray[np.uint8] | None
    ) -> VideoFrame:
        return VideoFrame(index, float(self._index.pts_seconds[index]), image, luma)

    def audio(
        self, sampling_rate: int = 16000, max_seconds: float | None = None
    ) -> AudioClip | None:
        """See `Video.audio`."""
        self._check_open()
        check_audio(sampling_rate, max_seconds)
        if not self._has_audio:
            return None
        # Used once: a decoder that has run may keep state over a flush (AAC's noise).
        gathered, self._sound = self._sound, None
        clip = read_audio(
            self._path,
            self._limits,
            first_seconds=self._first_seconds,
            sampling_rate=sampling_rate,
            max_seconds=max_seconds,
            gathered=gathered,
            is_quick=self._is_quick,
        )
        self._sound_damaged |= clip is None or clip.damaged
        return clip


def _members(groups: list[Group]) -> set[int]:
    return {index for _, _, members in groups for index in members}


def share_out(
    groups: list[Group], cpus: int, max_containers: int, *, can_thread: bool
) -> tuple[list[list[Group]], int]:
    """Choose between containers side by side and frame threads in one.

    Containers are the better for many groups. Where one group is most of the work the others would wait
    for it.

    Returns:
        The share of each container, and the frame threads that each has.
    """
    best: tuple[float, list[list[Group]], int] | None = None
    for containers in range(min(len(groups), cpus, max_containers), 0, -1):
        shares = split_evenly(groups, containers)
        threads = max(1, min(cpus // containers, _MAX_THREADS))
        largest = max(sum(last - first + 1 for first, last, _ in share) for share in shares)
        speed = 1 + _THREAD_GAIN * (threads - 1) if can_thread else 1.0
        if best is None or largest / speed < best[0]:
            best = largest / speed, shares, threads
    assert best is not None
    return best[1], best[2]


def split_evenly(groups: list[Group], shares: int) -> list[list[Group]]:
    """Share decode groups out by their packets, none of the shares empty.

    Many are cut into runs, within which reading goes on where it is. Few are dealt out, the largest first
    to the least share: runs of four groups can be half again as long as their mean.
    """
    sizes = np.array([last - first + 1 for first, last, _ in groups])
    if len(groups) > 8 * shares:
        ends = np.cumsum(sizes)
        middle = ends - sizes / 2
        share = np.minimum((middle * shares / ends[-1]).astype(int), shares - 1)
    else:
        share, load = np.zeros(len(groups), int), np.zeros(shares)
        for n in np.argsort(-sizes, kind="stable"):
            share[n] = load.argmin()
            load[share[n]] += sizes[n]
    parts = [[g for g, s in zip(groups, share, strict=True) if s == n] for n in range(shares)]
    return [part for part in parts if part]
