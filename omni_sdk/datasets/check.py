"""`check(root, dataset)`: what of a data set is there, what is missing, what looks odd; nothing is changed.

For `omni-sdk eval check` and `omni-train check-data`. Folders are listed once and compared with the
annotations, so a check of a full data set takes about as long as listing it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omni_sdk.datasets import davis, mevis, refavs, refcocog, refvos, revos
from omni_sdk.datasets._tally import Problem, Tally
from omni_sdk.datasets.masks import BinaryMaps, LabelMaps, MaskSource, RleMasks, rle_size
from omni_sdk.datasets.records import Dataset, Sample, Video
from omni_sdk.errors import DatasetError, OmniError


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    Attributes:
        dataset: its name.
        root: as given.
        counts: "valid: videos" -> 50 and the like, in order.
        problems: most serious first.
    """

    dataset: str
    root: str
    counts: dict[str, int]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing that is needed is missing or broken; odd things may remain."""
        return not any(problem.severity == "missing" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "dataset": self.dataset,
            "root": self.root,
            "ok": self.ok,
            "counts": dict(self.counts),
            "problems": [problem.to_dict() for problem in self.problems],
        }

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        head = [f"{self.dataset} at {self.root}: {'ok' if self.ok else 'incomplete'}"]
        head += [f"  {name}: {count}" for name, count in self.counts.items()]
        return head + [f"  {problem}" for problem in self.problems]


def check(root: str | os.PathLike[str], dataset: str) -> Report:
    """Compare a data set's folders with its annotations.

    Every split that is present is checked; at least one must be.

    Args:
        root: the data set's folder (for refcocog_2k_840 its .jsonl or .parquet file).
        dataset: one of `DATASETS`.

    Returns:
        Counts of what is there and of each kind of problem, with examples.

    Raises:
        ValueError: the data set is unknown.
    """
    if dataset not in _CHECKS:
        raise ValueError(f"expected a data set of {', '.join(_CHECKS)}, got {dataset!r}")
    folder = Path(root)
    tally = Tally()
    if not folder.exists():
        tally.missing("root folder", str(folder))
    else:
        _CHECKS[dataset](folder, tally)
    return Report(dataset, str(folder), tally.counts(), tally.problems())


def _check_expressions(
    tally: Tally, split: str, samples: Dataset, *, masks_expected: bool = True
) -> None:
    """Check the samples of one split; what cannot be read at all ends this split only."""
    try:
        rows = list(samples)
    except OmniError as e:
        tally.missing(f"{split}: annotations unreadable", str(e))
        return
    for reason, count in samples.dropped.items():
        tally.count(f"{split}: dropped {reason}", count)
    tally.count(f"{split}: expressions", len(rows))
    videos = {sample.video.video_id: sample.video for sample in rows}
    tally.count(f"{split}: videos", len(videos))
    for video in videos.values():
        _check_video(tally, split, video)
    seen_broken: set[str] = set()
    for sample in rows:
        _check_sample(tally, split, sample, masks_expected, seen_broken)


def _check_video(tally: Tally, split: str, video: Video) -> None:
    tally.count(f"{split}: frames", len(video))
    if not video.frame_names:
        tally.missing(f"{split}: videos without a frame in the annotations", video.video_id)
    if list(video.frame_names) != sorted(video.frame_names, key=_natural):
        tally.odd(f"{split}: videos whose frames are not in order", video.video_id)
    if not video.folder.is_dir():
        tally.missing(f"{split}: frame folders", str(video.folder))
        return
    present = {path.name for path in video.folder.iterdir()}
    for name in video.frame_names:
        if f"{name}{video.suffix}" not in present:
            tally.missing(f"{split}: frames", str(video.folder / f"{name}{video.suffix}"))
    if video.audio_path is not None and not video.audio_path.is_file():
        tally.missing(f"{split}: sound files", str(video.audio_path))


def _check_sample(
    tally: Tally, split: str, sample: Sample, masks_expected: bool, seen: set[str]
) -> None:
    name = f"{sample.video.video_id}/{sample.expression_id}"
    if not sample.expression.strip():
        tally.odd(f"{split}: empty expressions", name)
    if sample.masks is None:
        if masks_expected:
            tally.missing(f"{split}: expressions without masks", name)
        return
    for what, source in (("masks", sample.masks), ("foreground masks", sample.foreground)):
        if source is not None:
            _check_masks(tally, f"{split}: {what}", sample, source, seen)


def _check_masks(
    tally: Tally, what: str, sample: Sample, source: MaskSource, seen: set[str]
) -> None:
    if isinstance(source, RleMasks):
        if str(source.table.path) in seen:
            return
        try:
            source.table.table()
        except DatasetError as e:
            # One line for the file, not one per expression.
            seen.add(str(source.table.path))
            tally.missing(f"{what} file", str(e))
            return
        for key in source.keys:
            _check_annotation(tally, what, sample.video, source, key, seen)
    elif isinstance(source, (LabelMaps, BinaryMaps)):
        _check_files(tally, what, source, seen)


def _check_annotation(
    tally: Tally, what: str, video: Video, source: RleMasks, key: str, seen: set[str]
) -> None:
    """Check one annotation's length and sizes; several expressions may share it."""
    mark = f"{source.table.path}|{key}"
    if mark in seen:
        return
    seen.add(mark)
    tally.count(f"{what} annotations")
    try:
        frames = source.table.frames(key)
    except DatasetError as e:
        tally.missing(f"{what} annotations absent", str(e))
        return
    if len(frames) != len(video):
        tally.odd(
            f"{what} with another number of frames than the video",
            f"{video.video_id} {key}: {len(frames)} masks, {len(video)} frames",
        )
    sizes = set()
    for position, value in enumerate(frames):
        for rle in value if isinstance(value, list) else [value]:
            if not rle:
                continue
            try:
                sizes.add(rle_size(rle, f"{source.table.path}[{key!r}][{position}]"))
            except DatasetError as e:
                tally.missing(f"{what} malformed", str(e))
    if not sizes:
        tally.odd(f"{what} empty in every frame", f"{video.video_id} {key}")
    if len(sizes) > 1:
        tally.missing(f"{what} of several sizes", f"{video.video_id} {key}: {sorted(sizes)}")


def _check_files(tally: Tally, what: str, source: LabelMaps | BinaryMaps, seen: set[str]) -> None:
    """Check one folder of PNGs; several expressions may share it."""
    folder = source.folder
    if str(folder) in seen:
        return
    seen.add(str(folder))
    tally.count(f"{what} files", len(source.frame_names))
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    for name in source.frame_names:
        if f"{name}.png" not in present:
            tally.missing(f"{what} files", f"{folder}/{name}.png")


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isascii() and name.isdigit() else (-1, name)


def _present(tally: Tally, files: dict[str, Path]) -> list[str]:
    """Return the splits whose annotations exist; none at all is a problem."""
    found = [split for split, path in files.items() if path.exists()]
    if not found:
        expected = ", ".join(str(path) for path in files.values())
        tally.missing("annotations of any split", f"expected one of {expected}")
    return found


def _check_revos(root: Path, tally: Tally) -> None:
    files = {split: revos.expressions_path(root, split) for split in revos.SPLITS}
    for split in _present(tally, files):
        _check_expressions(tally, split, revos.open_revos(root, split))
    if not (root / "mask_dict_foreground.json").exists():
        tally.odd("foreground file absent: no R score", str(root / "mask_dict_foreground.json"))


def _check_mevis(root: Path, tally: Tally) -> None:
    files = {split: root / split / "meta_expressions.json" for split in mevis.SPLITS}
    for split in _present(tally, files):
        public = split in ("train", "valid_u")
        _check_expressions(tally, split, mevis.open_mevis(root, split), masks_expected=public)


def _check_refvos(root: Path, tally: Tally, name: str) -> None:
    open_split = refvos.open_ref_youtube_vos if name == refvos.YOUTUBE else refvos.open_ref_davis17
    files = {split: refvos.expressions_path(root, split) for split in refvos.SPLITS}
    for split in _present(tally, files):
        public = name == refvos.DAVIS17 or split == "train"
        _check_expressions(tally, split, open_split(root, split), masks_expected=public)
    test = refvos.expressions_path(root, "test")
    if name == refvos.YOUTUBE and files["valid"].exists() and not test.exists():
        tally.odd("test list absent: valid keeps the videos of the test split", str(test))


def _check_davis(root: Path, tally: Tally) -> None:
    files = {split: root / "ImageSets" / "2017" / f"{split}.txt" for split in davis.SPLITS}
    for split in _present(tally, files):
        try:
            sequences = davis.open_davis(root, split)
        except DatasetError as e:
            tally.missing(f"{split}: sequences", str(e))
            continue
        tally.count(f"{split}: sequences", len(sequences))
        for sequence in sequences:
            _check_video(tally, split, sequence.video)
            names = {path.stem for path in sequence.annotation_paths}
            tally.count(f"{split}: label maps", len(names))
            if split in ("train", "val"):
                for name in sequence.video.frame_names:
                    if name not in names:
                        tally.missing(
                            f"{split}: label maps", f"{sequence.video.video_id}/{name}.png"
                        )


def _check_refavs(root: Path, tally: Tally) -> None:
    path = root / "metadata.csv"
    try:
        rows = refavs.read_metadata(path)
    except DatasetError as e:
        tally.missing("metadata", str(e))
        return
    tally.count("rows", len(rows))
    tally.count("rows dropped (split TODO)", sum(r.split == refavs.UNFINISHED for r in rows))
    tally.count("rows without a target", sum(row.category == "null" for row in rows))
    tally.count("rows whose folder is not vid", sum(row.folder != row.video_id for row in rows))
    seen: set[str] = set()
    for row in rows:
        if row.uid in seen:
            tally.odd("uids given to several rows", row.uid)
        seen.add(row.uid)
    for split in refavs.SPLITS:
        load = partial(_refavs_samples, root, rows, split)
        _check_expressions(tally, split, Dataset(refavs.NAME, split, root, load=load))


def _refavs_samples(
    root: Path, rows: list[refavs.MetadataRow], split: str
) -> tuple[list[Sample], dict[str, int]]:
    """Return the samples of a split; what belongs to none is counted once, not per split."""
    return refavs.samples_of(root, rows, split)[0], {}


def _check_refcocog(root: Path, tally: Tally) -> None:
    if root.is_dir():
        tally.missing("rows", f"{root}: expected a .jsonl or .parquet file, got a folder")
        return
    try:
        for number, row in enumerate(refcocog.read_rows(root)):
            tally.count("rows")
            try:
                record = refcocog.parse_row(row, f"row {number}")
            except DatasetError as e:
                tally.missing("rows malformed", str(e))
                continue
            x1, y1, x2, y2 = record.box_xyxy
            if any(not (x1 <= x <= x2 and y1 <= y <= y2) for x, y in record.points_xy):
                tally.odd("points outside their box", f"row {number} id {record.row_id}")
            if record.image is None:
                tally.odd("rows without an image", f"row {number} id {record.row_id}")
    except OmniError as e:
        tally.missing("rows unreadable", str(e))


_CHECKS: dict[str, Callable[[Path, Tally], None]] = {
    revos.NAME: _check_revos,
    mevis.NAME: _check_mevis,
    refvos.YOUTUBE: lambda root, tally: _check_refvos(root, tally, refvos.YOUTUBE),
    refvos.DAVIS17: lambda root, tally: _check_refvos(root, tally, refvos.DAVIS17),
    davis.NAME: _check_davis,
    refavs.NAME: _check_refavs,
    refcocog.NAME: _check_refcocog,
}
DATASETS = tuple(_CHECKS)
