"""ReVOS (cilinyan/ReVOS-api): referring and reasoning questions about 1,042 videos.

    ReVOS/JPEGImages/<video>/<frame>.jpg   or, as Sa2VA and Omni-R1 keep it,   ReVOS/<video>/<frame>.jpg
    ReVOS/meta_expressions_{train,valid}_.json  mask_dict.json  mask_dict_foreground.json

`mask_dict.json` has one RLE or null per frame under each annotation id; the foreground file has every
known object of a video, for the robustness score.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from omni_sdk.datasets.expressions import read_expressions
from omni_sdk.datasets.masks import RleMasks, RleTable
from omni_sdk.datasets.records import Dataset, Sample, Video, frames_root, open_split

NAME = "revos"
SPLITS = ("train", "valid")


def open_revos(root: str | os.PathLike[str], split: str = "valid") -> Dataset:
    """Open a split; annotations are read when the first sample is asked for.

    Args:
        root: the folder `ReVOS`.
        split: "train" or "valid".

    Raises:
        ValueError: the split is unknown.
        DatasetError: the root is not a folder.
    """
    folder = Path(root)
    return open_split(NAME, folder, split, splits=SPLITS, load=partial(_load, folder, split))


def expressions_path(root: Path, split: str) -> Path:
    """Return the file of a split's expressions; the published names end in an underscore."""
    published = root / f"meta_expressions_{split}_.json"
    plain = root / f"meta_expressions_{split}.json"
    return plain if plain.exists() and not published.exists() else published


def _load(root: Path, split: str) -> tuple[list[Sample], dict[str, int]]:
    masks = RleTable(root / "mask_dict.json")
    foreground_path = root / "mask_dict_foreground.json"
    foreground = RleTable(foreground_path) if foreground_path.exists() else None
    pictures = frames_root(root)
    samples = []
    for entry in read_expressions(expressions_path(root, split)):
        video = Video(entry.video_id, pictures / entry.video_id, entry.frame_names)
        around = None if foreground is None else RleMasks(foreground, (entry.video_id,))
        samples += [
            Sample(
                NAME,
                split,
                video,
                item.expression_id,
                item.text,
                item.object_ids,
                item.kind,
                RleMasks(masks, item.annotation_ids),
                around,
            )
            for item in entry.expressions
        ]
    return samples, {}
