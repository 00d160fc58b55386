"""Ref-AVS Bench (GeWu-Lab/Ref-AVS; Zenodo 12970978): expressions about clips with sound.

    REFAVS/metadata.csv                                  columns vid, uid, split, fid, exp
    REFAVS/media/<folder>/{audio.wav, frames/0.jpg .. 9.jpg}
    REFAVS/gt_mask/<folder>/fid_<fid>/00000.png .. 00009.png    anything but black is the object

<folder> is `uid.rsplit('_', 2)[0]`, not `vid`: they differ for the clips without a target, whose own
folder begins with "null_". Rows of the split "TODO" are unfinished and dropped, with a count. Frames are
one per second.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from omni_sdk.datasets import _files
from omni_sdk.datasets.masks import BinaryMaps
from omni_sdk.datasets.records import Dataset, Sample, Video, open_split
from omni_sdk.errors import DatasetError

NAME = "refavs"
SPLITS = ("train", "val", "test_s", "test_u", "test_n")
UNFINISHED = "TODO"
COLUMNS = ("vid", "uid", "split", "fid", "exp")
NUM_FRAMES = 10
MAX_CSV_BYTES = 64 << 20
_FRAME_NAMES = tuple(str(k) for k in range(NUM_FRAMES))
_MASK_NAMES = tuple(f"{k:05d}" for k in range(NUM_FRAMES))


@dataclass(frozen=True, slots=True)
class MetadataRow:
    """A row of metadata.csv: `folder` of media and masks, `category` as the uid spells it ("null")."""

    uid: str
    video_id: str
    split: str
    object_id: int
    expression: str
    folder: str
    category: str


def open_refavs(root: str | os.PathLike[str], split: str = "test_s") -> Dataset:
    """Open a split; the metadata is read when the first sample is asked for.

    Args:
        root: the folder `REFAVS`.
        split: "train", "val", "test_s" (seen), "test_u" (unseen) or "test_n" (null).

    Raises:
        ValueError: the split is unknown.
        DatasetError: the root is not a folder.
    """
    folder = Path(root)
    return open_split(NAME, folder, split, splits=SPLITS, load=partial(_load, folder, split))


def read_metadata(path: str | os.PathLike[str]) -> list[MetadataRow]:
    """Read every row of metadata.csv, the unfinished ones too.

    Raises:
        DatasetError: the file is missing, too large, or a row departs from the schema.
    """
    file = Path(path)
    try:
        if file.stat().st_size > MAX_CSV_BYTES:
            raise DatasetError(f"{file}: expected at most {MAX_CSV_BYTES} bytes")
        with file.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            missing = set(COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise DatasetError(
                    f"{file}: expected columns {', '.join(COLUMNS)}, without {missing}"
                )
            return [_row(row, f"{file} line {reader.line_num}") for row in reader]
    except OSError as e:
        raise DatasetError(f"{file}: cannot be read: {e.strerror or e}") from e
    except (csv.Error, UnicodeDecodeError) as e:
        raise DatasetError(f"{file}: not valid CSV: {e}") from e


def sample_of(root: Path, row: MetadataRow) -> Sample:
    """Return the record of a row."""
    media = root / "media" / row.folder
    video = Video(
        row.folder,
        media / "frames",
        _FRAME_NAMES,
        audio_path=media / "audio.wav",
    )
    masks = root / "gt_mask" / row.folder / f"fid_{row.object_id}"
    return Sample(
        NAME,
        row.split,
        video,
        row.uid,
        row.expression,
        (row.object_id,),
        "no_target" if row.category == "null" else "",
        BinaryMaps(masks, _MASK_NAMES),
    )


def samples_of(
    root: Path, rows: list[MetadataRow], split: str
) -> tuple[list[Sample], dict[str, int]]:
    """Return the records of a split, and how many rows belong to none, by reason."""
    unfinished = sum(row.split == UNFINISHED for row in rows)
    dropped = {"unfinished rows (split TODO)": unfinished} if unfinished else {}
    return [sample_of(root, row) for row in rows if row.split == split], dropped


def _load(root: Path, split: str) -> tuple[list[Sample], dict[str, int]]:
    return samples_of(root, read_metadata(root / "metadata.csv"), split)


def _row(row: dict[str, str | None], where: str) -> MetadataRow:
    values = {name: _files.expect(row.get(name), str, f"{where} {name!r}") for name in COLUMNS}
    uid = _files.file_name(values["uid"], f"{where} 'uid'")
    parts = uid.rsplit("_", 2)
    if len(parts) != 3 or not parts[0]:
        raise DatasetError(f"{where} 'uid': expected <folder>_<category>_<n>, got {uid!r}")
    if values["split"] not in (*SPLITS, UNFINISHED):
        raise DatasetError(f"{where} 'split': expected one of {SPLITS}, got {values['split']!r}")
    return MetadataRow(
        uid,
        values["vid"],
        values["split"],
        _files.whole_number(values["fid"], f"{where} 'fid'"),
        values["exp"],
        _files.file_name(parts[0], f"{where} 'uid'"),
        parts[1],
    )
