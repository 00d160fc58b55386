"""Readers of the published data sets' layouts. numpy only; training and evaluation share them.

`open_dataset(name, root, split)` gives typed, lazy records; `check(root, name)` tells what is missing. Each
module also opens its own data set by name (`omni_sdk.datasets.revos.open_revos`, ...).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from omni_sdk.datasets import mevis, refavs, refvos, revos
from omni_sdk.datasets.check import DATASETS, Report, check
from omni_sdk.datasets.records import Dataset, Sample, Video

__all__ = ["DATASETS", "SPLITS", "Dataset", "Report", "Sample", "Video", "check", "open_dataset"]

_OPEN: dict[str, Callable[[str | os.PathLike[str], str], Dataset]] = {
    revos.NAME: revos.open_revos,
    mevis.NAME: mevis.open_mevis,
    refvos.YOUTUBE: refvos.open_ref_youtube_vos,
    refvos.DAVIS17: refvos.open_ref_davis17,
    refavs.NAME: refavs.open_refavs,
}
SPLITS: dict[str, tuple[str, ...]] = {
    revos.NAME: revos.SPLITS,
    mevis.NAME: mevis.SPLITS,
    refvos.YOUTUBE: refvos.SPLITS,
    refvos.DAVIS17: refvos.SPLITS,
    refavs.NAME: refavs.SPLITS,
}


def open_dataset(name: str, root: str | os.PathLike[str], split: str) -> Dataset:
    """Open a split of a data set of videos with expressions.

    Args:
        name: a key of `SPLITS`. DAVIS 2017 has no expressions and refCOCOg no videos: see
            `omni_sdk.datasets.davis.open_davis` and `omni_sdk.datasets.refcocog.open_refcocog`.
        root: its folder.
        split: as the data set names it.

    Raises:
        ValueError: the name or the split is unknown.
        DatasetError: the root is not a folder.
    """
    if name not in _OPEN:
        raise ValueError(f"expected a data set of {', '.join(_OPEN)}, got {name!r}")
    return _OPEN[name](root, split)
