"""MeViS (henghuiding/MeViS): expressions about motion, often of several objects.

    mevis/{train,valid_u,valid,test}/JPEGImages/<video>/00000.jpg ..   (or without JPEGImages)
    mevis/<split>/meta_expressions.json  mask_dict.json

`valid` and `test` are published without masks; their scores come from the contest's server.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from omni_sdk.datasets.expressions import read_expressions
from omni_sdk.datasets.masks import RleMasks, RleTable
from omni_sdk.datasets.records import Dataset, Sample, Video, frames_root, open_split

NAME = "mevis"
SPLITS = ("train", "valid_u", "valid", "test")


def open_mevis(root: str | os.PathLike[str], split: str = "valid_u") -> Dataset:
    """Open a split; annotations are read when the first sample is asked for.

    Args:
        root: the folder `mevis`.
        split: "train", "valid_u", "valid" or "test".

    Raises:
        ValueError: the split is unknown.
        DatasetError: the root is not a folder.
    """
    folder = Path(root)
    return open_split(NAME, folder, split, splits=SPLITS, load=partial(_load, folder, split))


def _load(root: Path, split: str) -> tuple[list[Sample], dict[str, int]]:
    folder = root / split
    table = RleTable(folder / "mask_dict.json")
    pictures = frames_root(folder)
    samples = []
    for entry in read_expressions(folder / "meta_expressions.json"):
        video = Video(entry.video_id, pictures / entry.video_id, entry.frame_names)
        for item in entry.expressions:
            masks = RleMasks(table, item.annotation_ids) if item.annotation_ids else None
            samples.append(
                Sample(
                    NAME,
                    split,
                    video,
                    item.expression_id,
                    item.text,
                    item.object_ids,
                    item.kind,
                    masks,
                )
            )
    return samples, {}
