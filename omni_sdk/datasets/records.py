"""What every reader gives: typed records that know where things lie and read them when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from omni_sdk.datasets import images
from omni_sdk.datasets.masks import MaskSource
from omni_sdk.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Video:
    """The frames of a video as files.

    Attributes:
        video_id: its name in the data set.
        folder: of the frames.
        frame_names: without suffix, in the order that masks and evaluators count them.
        suffix: of the frame files.
        audio_path: sound, where the data set has any.
    """

    video_id: str
    folder: Path
    frame_names: tuple[str, ...]
    suffix: str = ".jpg"
    audio_path: Path | None = None

    def __len__(self) -> int:
        return len(self.frame_names)

    @property
    def frame_paths(self) -> tuple[Path, ...]:
        """The frame files, in order."""
        return tuple(self.folder / f"{name}{self.suffix}" for name in self.frame_names)

    def read_frame(self, frame: int) -> NDArray[np.uint8]:
        """Decode a frame, (H, W, 3) uint8 RGB.

        Raises:
            DatasetError: the file is missing or damaged.
        """
        return images.read_image(self.frame_paths[frame])

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Decode all frames in order, one at a time."""
        return (images.read_image(path) for path in self.frame_paths)

    def size(self) -> tuple[int, int]:
        """Return (height, width) from the first frame's header.

        Raises:
            DatasetError: there is no frame, or it cannot be read.
        """
        if not self.frame_names:
            raise DatasetError(f"{self.folder}: expected a frame, the video has none")
        return images.image_size(self.frame_paths[0])


@dataclass(frozen=True, slots=True)
class Sample:
    """A video, one expression about it, and the masks of what it names.

    Attributes:
        dataset: name of the data set.
        split: as the data set names it.
        video: the frames.
        expression_id: unique within the video; predictions are filed under it.
        expression: as published.
        object_ids: of the objects named, as published; empty where the split hides them.
        kind: "referring", "reasoning", "no_target" (nothing in the clip matches) or "" where unknown.
        masks: of the objects, or None where the split has none.
        foreground: of all known objects, named or not (ReVOS), else None.
    """

    dataset: str
    split: str
    video: Video
    expression_id: str
    expression: str
    object_ids: tuple[int, ...] = ()
    kind: str = ""
    masks: MaskSource | None = None
    foreground: MaskSource | None = None

    def mask_at(self, frame: int) -> NDArray[np.bool_]:
        """Return the masks of all instances on a frame merged, (H, W) bool.

        Raises:
            DatasetError: the split has no masks, or they are missing, malformed or differ in size.
        """
        return np.not_equal(self.instances_at(frame), 0)

    def instances_at(self, frame: int) -> NDArray[np.uint8]:
        """Return how many of the sample's instances lie over each pixel, (H, W) uint8.

        Raises:
            DatasetError: the split has no masks, or they are missing, malformed or differ in size.
        """
        return self._count(self.masks, "masks", frame)

    def foreground_at(self, frame: int) -> NDArray[np.uint8]:
        """Return how many known objects lie over each pixel, (H, W) uint8.

        Raises:
            DatasetError: the data set has no foreground masks, or they are missing or malformed.
        """
        return self._count(self.foreground, "foreground masks", frame)

    def _count(self, source: MaskSource | None, what: str, frame: int) -> NDArray[np.uint8]:
        where = f"{self.dataset} {self.split} {self.video.video_id}/{self.expression_id}"
        if source is None:
            raise DatasetError(f"{where}: this split has no {what}")
        if not 0 <= frame < len(self.video):
            raise DatasetError(f"{where}: expected a frame below {len(self.video)}, got {frame}")
        total: NDArray[np.uint8] | None = None
        for mask in source.instances(frame):
            if total is None:
                total = mask.astype(np.uint8)
            elif mask.shape != total.shape:
                raise DatasetError(
                    f"{where} frame {frame}: expected {what} of one size, got {total.shape} and "
                    f"{mask.shape}"
                )
            else:
                total += mask
        if total is None:
            total = np.zeros(source.size() or self.video.size(), np.uint8)
        return total


class Dataset(Sequence[Sample]):
    """The samples of one split. Annotations are read on first use, masks and frames per sample.

    Attributes:
        name: of the data set.
        split: as the data set names it.
        root: folder that it was opened at.
    """

    def __init__(
        self,
        name: str,
        split: str,
        root: Path,
        *,
        load: Callable[[], tuple[list[Sample], dict[str, int]]],
    ) -> None:
        self.name = name
        self.split = split
        self.root = root
        self._load = load
        self._loaded: tuple[tuple[Sample, ...], dict[str, int]] | None = None

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {self.split!r}, {str(self.root)!r})"

    def __getstate__(self) -> dict[str, object]:
        # A worker reads the annotations itself; they would be the bulk of the message.
        return {**self.__dict__, "_loaded": None}

    def _contents(self) -> tuple[tuple[Sample, ...], dict[str, int]]:
        if self._loaded is None:
            samples, dropped = self._load()
            self._loaded = tuple(samples), dropped
        return self._loaded

    @property
    def dropped(self) -> dict[str, int]:
        """How many entries of the published files are left out, by reason."""
        return dict(self._contents()[1])

    def __len__(self) -> int:
        return len(self._contents()[0])

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Sample, ...]: ...
    def __getitem__(self, index: int | slice) -> Sample | tuple[Sample, ...]:
        return self._contents()[0][index]


def open_split(
    name: str,
    root: Path,
    split: str,
    *,
    splits: tuple[str, ...],
    load: Callable[[], tuple[list[Sample], dict[str, int]]],
) -> Dataset:
    """Return a `Dataset` once its folder exists and the split has a known name.

    Raises:
        ValueError: the split is unknown.
        DatasetError: the root is not a folder.
    """
    if split not in splits:
        raise ValueError(f"{name}: expected split one of {', '.join(splits)}, got {split!r}")
    if not root.is_dir():
        raise DatasetError(f"{root}: expected the folder of {name}, found none")
    return Dataset(name, split, root, load=load)


def frames_root(root: Path) -> Path:
    """Return the folder of the videos' folders: `JPEGImages`, or the root itself where it was left out."""
    inner = root / "JPEGImages"
    return inner if inner.is_dir() else root
