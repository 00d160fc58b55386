"""DAVIS 2017: sequences with indexed masks, for the semi-supervised and the unsupervised track.

DAVIS/JPEGImages/480p/<sequence>/00000.jpg
DAVIS/Annotations/480p/<sequence>/00000.png              0 background, 1..N objects, 255 void
DAVIS/Annotations_unsupervised/480p/...                  the same for the unsupervised track
DAVIS/ImageSets/{2017,2019}/{train,val,test-dev,test-challenge}.txt
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omni_sdk.datasets import _files, images
from omni_sdk.datasets.records import Video
from omni_sdk.errors import DatasetError

NAME = "davis2017"
SPLITS = ("train", "val", "test-dev", "test-challenge")
VOID_LABEL = 255


@dataclass(frozen=True, slots=True)
class DavisSequence:
    """A sequence: its frames, and the label maps there are (test splits: of the first frame, or none).

    Attributes:
        video: the frames.
        annotation_paths: the label maps there are, in order of their names.
    """

    video: Video
    annotation_paths: tuple[Path, ...]

    def labels_at(self, frame: int) -> NDArray[np.uint8]:
        """Return a label map, (H, W) uint8: 0 background, 1..N objects, 255 void.

        Raises:
            DatasetError: the map is missing or damaged.
        """
        path = self._annotations / f"{self.video.frame_names[frame]}.png"
        return images.read_labels(path)

    def labels(self) -> Iterator[NDArray[np.uint8]]:
        """Read all label maps there are in order, one at a time."""
        return (images.read_labels(path) for path in self.annotation_paths)

    def num_objects(self) -> int:
        """Return the largest label of the first map, as the benchmark counts objects.

        Raises:
            DatasetError: the sequence has no label map.
        """
        if not self.annotation_paths:
            raise DatasetError(f"{self.video.video_id}: expected a label map, this split has none")
        first = images.read_labels(self.annotation_paths[0])
        return int(np.max(first, where=first != VOID_LABEL, initial=0))

    @property
    def _annotations(self) -> Path:
        if not self.annotation_paths:
            raise DatasetError(f"{self.video.video_id}: expected label maps, this split has none")
        return self.annotation_paths[0].parent


def open_davis(
    root: str | os.PathLike[str],
    split: str = "val",
    *,
    unsupervised: bool = False,
    resolution: str = "480p",
) -> tuple[DavisSequence, ...]:
    """List the sequences of a split; only names are read.

    Args:
        root: the folder `DAVIS`.
        split: "train", "val", "test-dev" or "test-challenge".
        unsupervised: the annotations of that track (its test lists are of 2019).
        resolution: "480p" or "Full-Resolution".

    Raises:
        ValueError: the split is unknown.
        DatasetError: the list or a sequence's frames are missing.
    """
    if split not in SPLITS:
        raise ValueError(f"{NAME}: expected split one of {', '.join(SPLITS)}, got {split!r}")
    folder = Path(root)
    names = read_list(folder, split, unsupervised=unsupervised)
    annotations = folder / ("Annotations_unsupervised" if unsupervised else "Annotations")
    return tuple(_sequence(folder, annotations, resolution, name) for name in names)


def read_list(root: Path, split: str, *, unsupervised: bool = False) -> tuple[str, ...]:
    """Return the names of a split's sequences.

    Raises:
        DatasetError: the list is missing, empty, or holds a name that is none.
    """
    year = "2019" if unsupervised and split.startswith("test") else "2017"
    path = root / "ImageSets" / year / f"{split}.txt"
    try:
        lines = path.read_text(encoding="utf-8").split()
    except OSError as e:
        raise DatasetError(f"{path}: cannot be read: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise DatasetError(f"{path}: not text: {e}") from e
    if not lines:
        raise DatasetError(f"{path}: expected names of sequences, found none")
    return tuple(_files.file_name(line, str(path)) for line in lines)


def _sequence(root: Path, annotations: Path, resolution: str, name: str) -> DavisSequence:
    folder = root / "JPEGImages" / resolution / name
    frames = tuple(sorted(path.stem for path in folder.glob("*.jpg")))
    if not frames:
        raise DatasetError(f"{folder}: expected the frames of {name}, found none")
    maps = tuple(sorted((annotations / resolution / name).glob("*.png")))
    return DavisSequence(Video(name, folder, frames), maps)
