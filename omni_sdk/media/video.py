"""A video, whatever it comes from: sampled, fetched, walked both ways, and heard."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from omni_sdk.errors import LimitError, MediaError
from omni_sdk.media.frames import AudioClip, FrameBatch, VideoFrame, VideoIndex, VideoInfo
from omni_sdk.media.limits import MediaLimits
from omni_sdk.media.pixels.convert import Picture, PixelPath
from omni_sdk.media.pixels.patch_layout import PatchLayout
from omni_sdk.media.pixels.resize import MAX_SIDE, Filter
from omni_sdk.media.pixels.targets import ImageTarget, PatchTarget
from omni_sdk.media.select import Strategy, select_frames

Put = Callable[[int, "Picture | None"], None]  # frame index, picture; None takes it back


class Video(ABC):
    """A source of frames and sound. A context manager; one thread at a time.

    Frame indices are presentation order, times are seconds from the first frame.

    Attributes:
        pixels: how resized frames are made, to be set before any is asked for. "exact": equal to the models'
            reference preprocessing to the last bit; "fast": `omni_sdk.media.pixels.fast`, where it reads the
            pixel format.
    """

    pixels: PixelPath = "exact"

    def __init__(
        self, name: str, index: VideoIndex, limits: MediaLimits, *, has_audio: bool
    ) -> None:
        self._name = name
        self._index = index
        self._limits = limits
        self._has_audio = has_audio
        self._missing: set[int] = set()
        self._corrupt: set[int] = set()
        self._sound_damaged = False
        self._closed = False

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r}, {self._index!r})"

    @property
    def index(self) -> VideoIndex:
        """Times, sync frames, size."""
        return self._index

    @property
    def missing(self) -> tuple[int, ...]:
        """Frames that were wanted so far and could not be decoded, ascending."""
        return tuple(sorted(self._missing))

    @property
    def corrupt(self) -> tuple[int, ...]:
        """Frames that were handed out so far and were decoded from damaged data, ascending.

        A walk adds its frames when it ends, backward: after each piece. What damage is found, and what
        cannot be: Note [Damage] in `omni_sdk.media.demux.damage`.
        """
        return tuple(sorted(self._corrupt))

    @property
    def info(self) -> VideoInfo:
        """A summary for results; `truncated` once anything promised was not there."""
        index = self._index
        return VideoInfo(
            path=self._name,
            width=index.width,
            height=index.height,
            num_frames=len(index),
            average_fps=len(index) / index.duration_seconds,
            duration_seconds=index.duration_seconds,
            has_audio=self._has_audio,
            truncated=index.truncated or bool(self._missing) or self._sound_damaged,
            missing_frames=len(self._missing),
            corrupt_frames=len(self._corrupt),
        )

    def sample(
        self,
        *,
        num_frames: int | None = None,
        fps: float | None = None,
        indices: Sequence[int] | NDArray[np.int64] | None = None,
        times_seconds: Sequence[float] | NDArray[np.float64] | None = None,
        strategy: Strategy = "linspace",
        size: tuple[int, int] | None = None,
        filter: Filter = "bicubic",
        patches: PatchLayout | None = None,
    ) -> FrameBatch:
        """Return frames named in exactly one way (see `select_frames`).

        Args:
            num_frames: that many frames by `strategy`, no more than there are.
            fps: the frame on screen every 1 / fps seconds, each once.
            indices: these frames.
            times_seconds: the frames on screen then.
            strategy: "linspace": round(linspace(0, N - 1, n)); "bins": the first frame of each of n equal
                spans of the duration.
            size: (height, width) in pixels to resize to; None: as they are.
            filter: "bicubic" or "bilinear", antialiased.
            patches: give normalised patches in the place of images.

        Raises:
            ValueError: bad arguments; IndexError for a frame outside the video.
            LimitError: more bytes than `max_batch_bytes`, or too much time.
            MediaError: none of the frames can be decoded.
        """
        wanted = select_frames(
            self._index.pts_seconds,
            self._index.duration_seconds,
            num_frames=num_frames,
            fps=fps,
            indices=indices,
            times_seconds=times_seconds,
            strategy=strategy,
        )
        return self._batch(wanted, size, filter, patches)

    def fetch(self, indices: Sequence[int] | NDArray[np.int64]) -> FrameBatch:
        """Return these frames at full resolution; errors as `sample`."""
        return self.sample(indices=indices)

    @abstractmethod
    def forward(
        self,
        start: int,
        stop: int,
        size: tuple[int, int] | None = None,
        filter: Filter = "bilinear",
        *,
        luma: bool = False,
    ) -> Iterator[VideoFrame]:
        """Yield frames start, start + 1, ... stop - 1 at bounded memory.

        A frame that cannot be decoded is left out and noted in `missing`.

        Args:
            start: first frame, in [0, N].
            stop: end, in [start, N].
            size: (height, width) to resize to; None: as they are.
            filter: "bicubic" or "bilinear", antialiased.
            luma: give each frame's grey values at full size, too.

        Raises:
            IndexError: a range outside the video.
            LimitError: decoding took too long.
        """

    @abstractmethod
    def backward(
        self,
        start: int,
        stop: int,
        size: tuple[int, int] | None = None,
        filter: Filter = "bilinear",
        *,
        luma: bool = False,
    ) -> Iterator[VideoFrame]:
        """Yield frames start, start - 1, ... stop + 1, as `forward`.

        At most `max_frames_held` frames are held: a group of frames between sync frames that is longer is
        decoded again for each piece.

        Args:
            start: first frame, in [-1, N - 1].
            stop: end, in [-1, start].
            size: as in `forward`.
            filter: as in `forward`.
            luma: as in `forward`.

        Raises:
            IndexError: a range outside the video.
            LimitError: decoding took too long.
        """

    @abstractmethod
    def audio(
        self, sampling_rate: int = 16000, max_seconds: float | None = None
    ) -> AudioClip | None:
        """Return the sound as mono float32, sample 0 at the first video frame, or None without sound.

        Args:
            sampling_rate: in Hz, in [1000, 384000].
            max_seconds: sound after this time is left out; None: all.

        Raises:
            LimitError: more sound than `max_audio_seconds`.
        """

    def close(self) -> None:
        """Release everything; later calls raise MediaError."""
        self._closed = True

    @abstractmethod
    def _decode(
        self, indices: list[int], size: tuple[int, int] | None, filter: Filter, put: Put
    ) -> set[int]:
        """Hand each of these (ascending, different) frames that can be decoded to `put`.

        Returns:
            Frames, of these or others, that are known to be decoded from damaged data.
        """

    def _batch(
        self,
        wanted: NDArray[np.int64],
        size: tuple[int, int] | None,
        filter: Filter,
        patches: PatchLayout | None,
    ) -> FrameBatch:
        self._check_open()
        height, width = check_size(size) or (self._index.height, self._index.width)
        target = (
            ImageTarget(len(wanted), (height, width))
            if patches is None
            else PatchTarget(len(wanted), (height, width), patches)
        )
        num_bytes = target.num_bytes
        if num_bytes > self._limits.max_batch_bytes:
            raise LimitError(
                f"{len(wanted)} frames of {width}x{height} take {num_bytes} bytes, more than "
                f"max_batch_bytes={self._limits.max_batch_bytes}; ask for fewer or smaller frames"
            )
        target.allocate()
        distinct, place = np.unique(wanted, return_inverse=True)
        came: set[int] = set()

        def put(index: int, picture: Picture | None) -> None:
            if picture is None:
                came.discard(index)
                return
            came.add(index)
            for at in np.flatnonzero(place == np.searchsorted(distinct, index)):
                target.put(int(at), picture)

        corrupt = self._decode([int(i) for i in distinct], size, filter, put) & came
        self._corrupt |= corrupt
        missing = tuple(int(i) for i in distinct if int(i) not in came)
        self._missing.update(missing)
        if not came:
            raise MediaError(
                f"{self._name!r}: none of the {len(distinct)} wanted frames can be decoded"
            )
        kept = np.flatnonzero(~np.isin(wanted, missing))
        indices = wanted[kept]
        frames, patched = target.finish(kept)
        return FrameBatch(
            frames=frames,
            frame_indices=indices,
            pts_seconds=self._index.pts_seconds[indices],
            missing=missing,
            corrupt=tuple(sorted(corrupt)),
            patches=patched,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise MediaError(f"{self._name!r} is closed")

    def _check_forward(self, start: int, stop: int) -> None:
        self._check_open()
        if not 0 <= start <= stop <= len(self):
            raise IndexError(
                f"expected 0 <= start <= stop <= {len(self)} (frames), got {start=} {stop=}"
            )

    def _check_backward(self, start: int, stop: int) -> None:
        self._check_open()
        if not -1 <= stop <= start < len(self):
            raise IndexError(
                f"expected -1 <= stop <= start < {len(self)} (frames), got {start=} {stop=}"
            )


def check_size(size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return a wanted (height, width) as ints; ValueError when a side is outside [1, 2**20]."""
    if size is None:
        return None
    height, width = (int(side) for side in size)
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ValueError(f"size must be (height, width), each in [1, {MAX_SIDE}], got {size}")
    return height, width


def check_audio(sampling_rate: int, max_seconds: float | None) -> None:
    """Check the arguments of `Video.audio`; ValueError when one is out of range."""
    if not 1000 <= sampling_rate <= 384_000:
        raise ValueError(f"sampling_rate must be in [1000, 384000] Hz, got {sampling_rate}")
    if max_seconds is not None and not max_seconds > 0:
        raise ValueError(f"max_seconds must be positive, got {max_seconds}")
