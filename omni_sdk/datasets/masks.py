"""Where a sample's masks come from: run-length codes in JSON, label maps or binary maps in PNG.

Nothing is read before a mask is asked for. Every source gives the instances of a frame one by one, so
that the caller decides whether they are merged (J, F) or counted (ReVOS A and R).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from omni_sdk.datasets import _files, images
from omni_sdk.errors import DatasetError

Mask = NDArray[np.bool_]


class MaskSource(Protocol):
    """Masks of one sample, by position of the frame in its video."""

    def instances(self, frame: int) -> Iterator[Mask]:
        """Yield the (H, W) bool mask of each instance annotated on the frame; there may be none."""
        ...

    def size(self) -> tuple[int, int] | None:
        """Return (height, width), or None where nothing at all is annotated."""
        ...


class RleTable:
    """A `mask_dict.json`, read when the first mask is asked for and then shared by all samples.

    Pickled (to a worker) it travels without its contents and reads them again there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._table: dict[str, Any] | None = None

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.__init__(path)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"RleTable({str(self.path)!r})"

    def table(self) -> dict[str, Any]:
        """Return the whole file.

        Raises:
            DatasetError: it is missing or not a JSON object; a `mask_dict.pkl` in its place is refused.
        """
        with self._lock:
            if self._table is None:
                refuse_pickle(self.path)
                self._table = _files.read_json(self.path)
            return self._table

    def frames(self, key: str) -> list[Any]:
        """Return one annotation: an RLE, a list of RLEs or None per frame.

        Raises:
            DatasetError: there is no such annotation, or it is not a list.
        """
        value = self.table().get(key)
        if isinstance(value, dict):  # the foreground file has one level more
            value = value.get("masks_rle")
        if not isinstance(value, list):
            raise DatasetError(f"{self.path}: expected a list of masks under {key!r}, found none")
        return value


def refuse_pickle(path: Path) -> None:
    """Raise with the way out where only the pickled form of a mask file exists."""
    pickled = path.with_suffix(".pkl")
    if pickled.exists() and not path.exists():
        raise DatasetError(
            f"{pickled}: a pickle can run code when opened, so it is never loaded. Convert it once, "
            'without running anything in it: python -c "from omni_sdk.datasets.convert import '
            f"convert_mask_dict; convert_mask_dict('{pickled}')\" writes {path.name} beside it"
        )


@dataclass(frozen=True, slots=True)
class RleMasks:
    """Instances under some keys of a table, each with one RLE (or list of RLEs, or null) per frame."""

    table: RleTable
    keys: tuple[str, ...]

    def instances(self, frame: int) -> Iterator[Mask]:
        """Yield the masks of a frame.

        Raises:
            DatasetError: a key or frame is missing, or an RLE is malformed.
        """
        for key in self.keys:
            frames = self.table.frames(key)
            if not 0 <= frame < len(frames):
                raise DatasetError(
                    f"{self.table.path}: expected a mask of frame {frame} under {key!r}, "
                    f"it has {len(frames)}"
                )
            for rle in _rles(frames[frame]):
                yield decode_rle(rle, f"{self.table.path}[{key!r}][{frame}]")

    def size(self) -> tuple[int, int] | None:
        """Return (height, width) of the first mask there is."""
        for key in self.keys:
            for frame, value in enumerate(self.table.frames(key)):
                for rle in _rles(value):
                    return rle_size(rle, f"{self.table.path}[{key!r}][{frame}]")
        return None


@dataclass(frozen=True, slots=True)
class LabelMaps:
    """Instances as values of one indexed PNG per frame (255 is void and never an instance)."""

    folder: Path
    frame_names: tuple[str, ...]
    labels: tuple[int, ...]

    def instances(self, frame: int) -> Iterator[Mask]:
        """Yield the masks of a frame.

        Raises:
            DatasetError: the PNG is missing or damaged.
        """
        values = images.read_labels(self.folder / f"{self.frame_names[frame]}.png")
        for label in self.labels:
            yield values == label

    def size(self) -> tuple[int, int] | None:
        """Return (height, width) of the first map."""
        return images.image_size(self.folder / f"{self.frame_names[0]}.png")


@dataclass(frozen=True, slots=True)
class BinaryMaps:
    """One object as one PNG per frame, anything but black being the object."""

    folder: Path
    frame_names: tuple[str, ...]

    def instances(self, frame: int) -> Iterator[Mask]:
        """Yield the mask of a frame.

        Raises:
            DatasetError: the PNG is missing or damaged.
        """
        yield images.read_mask(self.folder / f"{self.frame_names[frame]}.png")

    def size(self) -> tuple[int, int] | None:
        """Return (height, width) of the first map."""
        return images.image_size(self.folder / f"{self.frame_names[0]}.png")


def rle_size(rle: object, where: str) -> tuple[int, int]:
    """Return (height, width) of a COCO RLE object.

    Raises:
        DatasetError: it has no valid "size".
    """
    size = _files.entry(_files.expect(rle, dict, where), "size", list, where)
    if len(size) != 2:
        raise DatasetError(f"{where}['size']: expected [height, width], got {len(size)} values")
    height, width = (_files.expect(value, int, f"{where}['size']") for value in size)
    if height <= 0 or width <= 0 or height * width > images.MAX_PIXELS:
        raise DatasetError(
            f"{where}['size']: expected [height, width] of 1 to {images.MAX_PIXELS} pixels, got {size}"
        )
    return height, width


def decode_rle(rle: object, where: str) -> Mask:
    """Decode a COCO compressed RLE object from JSON, (H, W) bool.

    Raises:
        DatasetError: it is malformed or does not fill its size.
    """
    # Imported here: the kernels load with the tracker, and reading expressions needs none.
    from omni_sdk.dus.masks import rle_decode

    size = rle_size(rle, where)
    counts = _files.entry(_files.expect(rle, dict, where), "counts", str, where)
    try:
        return rle_decode(counts.encode("ascii"), size)
    except ValueError as e:  # UnicodeEncodeError and the decoder's typed errors are ValueErrors
        raise DatasetError(f"{where}['counts']: {e}") from e


def _rles(value: Any) -> list[Any]:
    """Return the RLEs of a frame: null and {} are none, a list is several."""
    if not value:
        return []
    return [rle for rle in value if rle] if isinstance(value, list) else [value]
