"""Ref-YouTube-VOS and Ref-DAVIS17: expressions for the objects of two older data sets.

    <root>/meta_expressions/{train,valid,test}/meta_expressions.json
    <root>/{train,valid}/JPEGImages/<video>/<frame>.jpg     (or without JPEGImages)
    <root>/{train,valid}/Annotations/<video>/<frame>.png    indexed by object id
    <root>/{train,valid}/mask_dict.json                     instead of Annotations, see below

VISA publishes the masks as `mask_dict.pkl` whose keys count all expressions, videos and expression ids in
sorted order. A pickle is never loaded: `omni_sdk.datasets.convert` turns it into `mask_dict.json`. Where
`Annotations` are present they are used. The published list of Ref-YouTube-VOS `valid` also holds the
videos of `test`; they are dropped (202 of 507 remain).
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from omni_sdk.datasets.expressions import Expression, VideoEntry, read_expressions
from omni_sdk.datasets.masks import LabelMaps, MaskSource, RleMasks, RleTable
from omni_sdk.datasets.records import Dataset, Sample, Video, frames_root, open_split

YOUTUBE, DAVIS17 = "ref-youtube-vos", "ref-davis17"
SPLITS = ("train", "valid")


def open_ref_youtube_vos(root: str | os.PathLike[str], split: str = "valid") -> Dataset:
    """Open a split of Ref-YouTube-VOS; `valid` has no published masks.

    Args:
        root: the folder `Ref-Youtube-VOS`.
        split: "train" or "valid".

    Raises:
        ValueError: the split is unknown.
        DatasetError: the root is not a folder.
    """
    folder = Path(root)
    load = partial(_load, YOUTUBE, folder, split)
    return open_split(YOUTUBE, folder, split, splits=SPLITS, load=load)


def open_ref_davis17(root: str | os.PathLike[str], split: str = "valid") -> Dataset:
    """Open a split of Ref-DAVIS17.

    Args:
        root: the folder `davis17`.
        split: "train" or "valid".

    Raises:
        ValueError: the split is unknown.
        DatasetError: the root is not a folder.
    """
    folder = Path(root)
    load = partial(_load, DAVIS17, folder, split)
    return open_split(DAVIS17, folder, split, splits=SPLITS, load=load)


def expressions_path(root: Path, split: str) -> Path:
    """Return the file of a split's expressions."""
    return root / "meta_expressions" / split / "meta_expressions.json"


def _load(name: str, root: Path, split: str) -> tuple[list[Sample], dict[str, int]]:
    entries = sorted(read_expressions(expressions_path(root, split)), key=lambda e: e.video_id)
    dropped: dict[str, int] = {}
    test = expressions_path(root, "test")
    if name == YOUTUBE and split == "valid" and test.exists():
        hidden = {entry.video_id for entry in read_expressions(test)}
        kept = [entry for entry in entries if entry.video_id not in hidden]
        dropped["videos of the test split"] = len(entries) - len(kept)
        entries = kept
    folder = root / split
    pictures = frames_root(folder)
    table = _mask_table(folder)
    samples: list[Sample] = []
    for entry in entries:
        video = Video(entry.video_id, pictures / entry.video_id, tuple(sorted(entry.frame_names)))
        for item in sorted(entry.expressions, key=lambda e: e.expression_id):
            masks = _masks(folder, table, len(samples), entry, item)
            samples.append(
                Sample(
                    name,
                    split,
                    video,
                    item.expression_id,
                    item.text,
                    item.object_ids,
                    item.kind,
                    masks,
                )
            )
    return samples, dropped


def _mask_table(folder: Path) -> RleTable | None:
    if (folder / "Annotations").is_dir():
        return None
    path = folder / "mask_dict.json"
    # With only the pickle there, the table refuses when the first mask is asked for.
    return RleTable(path) if path.exists() or path.with_suffix(".pkl").exists() else None


def _masks(
    folder: Path, table: RleTable | None, position: int, entry: VideoEntry, item: Expression
) -> MaskSource | None:
    if table is not None:
        return RleMasks(table, (str(position),))
    annotations = folder / "Annotations" / entry.video_id
    if not item.object_ids or not annotations.parent.is_dir():
        return None
    return LabelMaps(annotations, tuple(sorted(entry.frame_names)), item.object_ids)
