"""`omni-train check-data ROOT`: which data sets lie there, and what of them is missing or odd."""

from __future__ import annotations

from pathlib import Path

from omni_sdk.datasets import Report, check
from omni_sdk.errors import DatasetError


def recognise(root: Path) -> str | None:
    """Return the data set whose layout a folder or file has; None if it has none of training's."""
    if root.is_file():
        return "refcocog_2k_840" if root.suffix in (".jsonl", ".parquet") else None
    if (root / "metadata.csv").is_file():
        return "refavs"
    if (root / "meta_expressions_train_.json").is_file():
        return "revos"
    if (root / "train" / "meta_expressions.json").is_file():
        return "mevis"
    return None


def check_root(root: Path, dataset: str | None = None) -> list[Report]:
    """Check one data set, or every one that is recognised in a folder.

    Args:
        root: a data set's folder (refCOCOg's file), or a folder that holds several.
        dataset: its name, where the layout is not to be guessed.

    Raises:
        DatasetError: nothing is recognised.
    """
    if dataset is not None:
        return [check(root, dataset)]
    if (name := recognise(root)) is not None:
        return [check(root, name)]
    inside = sorted(root.iterdir()) if root.is_dir() else []
    found = [(path, name) for path in inside if (name := recognise(path)) is not None]
    if not found:
        raise DatasetError(
            f"{root}: no data set is recognised (revos, mevis, refavs, refcocog_2k_840); name it with "
            "--dataset"
        )
    return [check(path, name) for path, name in found]
