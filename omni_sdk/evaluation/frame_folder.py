"""A data set's video as a source: a picture file per frame, read when wanted, and a sound file beside."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from omni_sdk.datasets.records import Video as Recording
from omni_sdk.errors import DatasetError, LimitError, MediaError
from omni_sdk.media.audio import read_audio
from omni_sdk.media.frames import AudioClip, VideoIndex
from omni_sdk.media.limits import MediaLimits
from omni_sdk.media.pixels.resize import Filter, resize
from omni_sdk.media.random_access import RandomAccessVideo
from omni_sdk.media.video import check_audio


@dataclass(frozen=True, slots=True)
class FrameFolder:
    """A source for `Pipeline` and `open_source`; it holds no picture and can be opened again.

    Attributes:
        recording: where the frames and the sound lie.
        fps: frames per second.
    """

    recording: Recording
    fps: float

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 1000:
            raise ValueError(f"fps must be above 0, up to 1000, got {self.fps!r}")

    def open_video(self, limits: MediaLimits) -> FrameFolderVideo:
        """Open it; see `FrameFolderVideo`."""
        return FrameFolderVideo(self, limits)


class FrameFolderVideo(RandomAccessVideo):
    """Frames decoded one at a time, each when it is asked for."""

    def __init__(self, source: FrameFolder, limits: MediaLimits) -> None:
        """Read the first frame's size.

        Raises:
            MediaError: no frame, or the first one is missing or damaged.
            LimitError: too many or too large frames, or too long a video.
        """
        recording, name = source.recording, str(source.recording.folder)
        count = len(recording)
        self._recording = recording
        try:
            height, width = recording.size()
        except DatasetError as e:
            raise MediaError(str(e)) from e
        duration = count / source.fps
        for value, field in (
            (height * width, "max_pixels"),
            (count, "max_frames"),
            (duration, "max_duration_seconds"),
        ):
            if value > getattr(limits, field):
                raise LimitError(f"{name}: {value:g} is more than {field}={getattr(limits, field)}")
        index = VideoIndex(
            pts_seconds=np.arange(count) / source.fps,
            sync_frames=np.arange(count),
            height=height,
            width=width,
            rotation=0,
            duration_seconds=duration,
            truncated=False,
        )
        super().__init__(name, index, limits, has_audio=recording.audio_path is not None)

    def _image(self, index: int, size: tuple[int, int] | None, filter: Filter) -> NDArray[np.uint8]:
        # A frame that the data set promises and lacks is an error of the data set: it is never skipped.
        try:
            image = self._recording.read_frame(index)
        except DatasetError as e:
            raise MediaError(str(e)) from e
        if image.shape[:2] != (self._index.height, self._index.width):
            raise MediaError(
                f"{self._recording.frame_paths[index]}: expected {self._index.width}x"
                f"{self._index.height} pixels as the first frame, got {image.shape[1]}x{image.shape[0]}"
            )
        return image if size is None else resize(image, size, filter)

    def audio(
        self, sampling_rate: int = 16000, max_seconds: float | None = None
    ) -> AudioClip | None:
        """Return the sound file's sound, which starts with the first frame; see `Video.audio`.

        Raises:
            MediaError: the data set names a sound file that is missing or unreadable.
        """
        self._check_open()
        check_audio(sampling_rate, max_seconds)
        path = self._recording.audio_path
        if path is None:
            return None
        # The allow-list is one of videos; the name of this file comes from the data set's layout.
        limits = replace(self._limits, formats=(*self._limits.formats, "wav"))
        clip = read_audio(
            path, limits, first_seconds=0.0, sampling_rate=sampling_rate, max_seconds=max_seconds
        )
        if clip is None:
            raise MediaError(f"{path}: expected sound, found none")
        return clip
