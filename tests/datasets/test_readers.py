from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni_sdk.datasets import SPLITS, Dataset, open_dataset
from omni_sdk.datasets.davis import open_davis
from omni_sdk.datasets.masks import RleTable
from omni_sdk.datasets.mevis import open_mevis
from omni_sdk.datasets.refvos import open_ref_davis17, open_ref_youtube_vos
from omni_sdk.datasets.revos import open_revos
from omni_sdk.errors import DatasetError

SIZE = (24, 32)


def test_revos(revos_root: Path, mask_of: Callable[..., Any]) -> None:
    data = open_revos(revos_root)
    assert len(data) == 4
    cat, why, cow, dog = data
    assert (cat.expression, cat.kind, cat.object_ids) == ("the cat", "referring", (1,))
    assert (why.kind, cow.kind) == ("reasoning", "no_target")
    assert [sample.expression_id for sample in data] == ["0", "1", "2", "0"]
    assert (why.mask_at(0) == (mask_of(0, 0) | mask_of(4, 0))).all()
    assert why.instances_at(0).max() == 2
    assert not cat.mask_at(2).any()
    assert cat.mask_at(2).shape == SIZE
    # Nothing annotated at all: the size is that of the frames.
    assert cow.mask_at(1).shape == SIZE
    assert (dog.mask_at(2) == mask_of(1, 2)).all()
    assert (cat.foreground_at(0) == mask_of(0, 0) * 1 + mask_of(4, 0)).all()
    assert (cat.foreground_at(2) == mask_of(9, 2)).all()
    assert len(dog.video.frame_paths) == 3
    assert all(path.is_file() for path in dog.video.frame_paths)
    assert [frame.shape for frame in dog.video.frames()] == [(*SIZE, 3)] * 3
    assert abs(int(dog.video.read_frame(2)[0, 0, 0]) - 80) <= 2
    assert dog.video.size() == SIZE


def test_mevis(mevis_root: Path, mask_of: Callable[..., Any]) -> None:
    (sample,) = open_mevis(mevis_root, "valid_u")
    assert sample.object_ids == (0, 3)
    assert (sample.mask_at(1) == (mask_of(2, 1) | mask_of(5, 1))).all()
    assert sample.video.read_frame(0).shape == (*SIZE, 3)
    (hidden,) = open_mevis(mevis_root, "valid")
    assert hidden.masks is None
    with pytest.raises(DatasetError, match="has no masks"):
        hidden.mask_at(0)
    with pytest.raises(DatasetError, match="no foreground masks"):
        sample.foreground_at(0)


def test_ref_youtube_vos(refvos_root: Path, mask_of: Callable[..., Any]) -> None:
    data = open_ref_youtube_vos(refvos_root, "train")
    names = [(s.video.video_id, s.expression_id, s.expression) for s in data]
    assert names == [
        ("a", "0", "first"),
        ("a", "1", "second"),
        ("b", "0", "first"),
        ("b", "1", "second"),
    ]
    first, second = data[:2]
    assert (second.mask_at(1) == mask_of(9, 1)).all()
    assert (first.mask_at(0) == (mask_of(0, 0) & ~mask_of(9, 0))).all()
    assert first.video.read_frame(1).shape == (*SIZE, 3)
    valid = open_ref_youtube_vos(refvos_root, "valid")
    assert {s.video.video_id for s in valid} == {"v"}
    assert valid.dropped == {"videos of the test split": 1}
    assert valid[0].masks is None


def test_mask_dict_counts_sorted_expressions(
    refvos_root: Path,
    mask_of: Callable[..., Any],
    rle_of: Callable[..., Any],
    write_json: Callable[..., Path],
) -> None:
    (refvos_root / "train" / "Annotations").rename(refvos_root / "unused")
    table = {str(k): [rle_of(mask_of(k, 0)), None] for k in range(4)}
    write_json(refvos_root / "train" / "mask_dict.json", table)
    data = open_ref_davis17(refvos_root, "train")
    for k, sample in enumerate(data):
        assert (sample.mask_at(0) == mask_of(k, 0)).all()
        assert not sample.mask_at(1).any()


def test_a_pickle_is_refused(refvos_root: Path) -> None:
    (refvos_root / "train" / "Annotations").rename(refvos_root / "unused")
    (refvos_root / "train" / "mask_dict.pkl").write_bytes(pickle.dumps({"0": []}))
    data = open_ref_davis17(refvos_root, "train")
    assert len(data) == 4
    with pytest.raises(DatasetError, match=r"can run code .* convert_mask_dict"):
        data[0].mask_at(0)


def test_davis(davis_root: Path) -> None:
    sequences = open_davis(davis_root, "val")
    assert [s.video.video_id for s in sequences] == ["bear", "bike-packing"]
    bear = sequences[0]
    labels = list(bear.labels())
    assert len(labels) == len(bear.video) == 4
    assert set(np.unique(labels[0])) == {0, 1, 2, 255}
    assert (bear.labels_at(2) == labels[2]).all()
    assert bear.num_objects() == 2
    with pytest.raises(DatasetError, match=r"test-dev\.txt"):
        open_davis(davis_root, "test-dev")
    with pytest.raises(ValueError, match="split"):
        open_davis(davis_root, "valid")


def test_davis_without_annotations(davis_root: Path) -> None:
    (davis_root / "Annotations").rename(davis_root / "unused")
    bear = open_davis(davis_root)[0]
    for ask in (bear.num_objects, lambda: bear.labels_at(0)):
        with pytest.raises(DatasetError, match="none"):
            ask()


@pytest.mark.parametrize("name", SPLITS)
def test_unknown_split_and_root(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected split one of"):
        open_dataset(name, tmp_path, "validation")
    with pytest.raises(DatasetError, match="expected the folder"):
        open_dataset(name, tmp_path / "nowhere", SPLITS[name][0])
    # Opening reads nothing; the first sample does.
    data = open_dataset(name, tmp_path, SPLITS[name][0])
    with pytest.raises(DatasetError, match="cannot be read"):
        len(data)


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a data set of revos"):
        open_dataset("coco", tmp_path, "val")


def test_masks_are_read_when_asked_for(revos_root: Path) -> None:
    (revos_root / "mask_dict.json").write_text("[]")
    data = open_revos(revos_root)
    assert data[0].video.size() == SIZE
    with pytest.raises(DatasetError, match=r"mask_dict\.json: expected dict"):
        data[0].mask_at(0)


def test_datasets_travel_to_workers_without_their_contents(revos_root: Path) -> None:
    data = open_revos(revos_root)
    expected = data[1].mask_at(0)
    message = pickle.dumps(data)
    assert len(message) < 2000
    copy: Dataset = pickle.loads(message)
    assert (copy[1].mask_at(0) == expected).all()
    sample = pickle.loads(pickle.dumps(data[1]))
    assert (sample.mask_at(0) == expected).all()


def test_table_is_shared(revos_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omni_sdk.datasets import _files

    reads: list[str] = []
    original = _files.read_json

    def count(path: Path, **kwargs: Any) -> Any:
        reads.append(path.name)
        return original(path, **kwargs)

    monkeypatch.setattr(_files, "read_json", count)
    for sample in open_revos(revos_root):
        sample.mask_at(0)
        sample.mask_at(1)
    assert sorted(reads) == ["mask_dict.json", "meta_expressions_valid_.json"]


def _edit(root: Path, change: Callable[[Any], None], name: str) -> None:
    import json

    path = root / name
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def _cat(value: Any) -> Any:
    return value["videos"]["cat with spaces"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda v: v.pop("videos"), r"meta_expressions_valid_\.json: expected a key 'videos'"),
        (lambda v: v["videos"].update(x=[]), r"\['x'\]: expected dict, got list"),
        (lambda v: _cat(v).pop("frames"), r"\['cat with spaces'\]: expected a key 'frames'"),
        (lambda v: _cat(v).update(frames="00000"), "expected list, got str"),
        (
            lambda v: _cat(v).update(frames=["../../etc/passwd"]),
            r"\['frames'\]\[0\].*plain file name",
        ),
        (lambda v: _cat(v).update(frames=[3]), r"\['frames'\]\[0\]: expected str, got int"),
        (lambda v: v["videos"].update({"..": _cat(v)}), "plain file name, got '..'"),
        (lambda v: v["videos"].update({"a/b": _cat(v)}), "plain file name"),
        (lambda v: _cat(v)["expressions"]["0"].pop("exp"), r"\['0'\]: expected a key 'exp'"),
        (lambda v: _cat(v)["expressions"]["0"].update(exp=5), r"\['exp'\]: expected str"),
        (
            lambda v: _cat(v)["expressions"]["0"].update(anno_id=[1.5]),
            r"\['anno_id'\]: expected int",
        ),
        (
            lambda v: _cat(v)["expressions"]["0"].update(anno_id=[True]),
            r"\['anno_id'\]: expected int",
        ),
        (lambda v: _cat(v)["expressions"]["0"].update(obj_id={}), r"\['obj_id'\]: expected int"),
        (
            lambda v: _cat(v)["expressions"]["0"].update(type_id=3),
            r"\['type_id'\]: expected 0 to 2",
        ),
    ],
)
def test_malformed_expressions(revos_root: Path, change: Callable[[Any], None], match: str) -> None:
    _edit(revos_root, change, "meta_expressions_valid_.json")
    with pytest.raises(DatasetError, match=match):
        len(open_revos(revos_root))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda v: v.pop("7"), r"mask_dict\.json: expected a list of masks under '7'"),
        (lambda v: v.update({"7": "x"}), "expected a list of masks under '7'"),
        (lambda v: v["7"].clear(), "expected a mask of frame 0 under '7', it has 0"),
        (lambda v: v["7"][0].pop("size"), r"\['7'\]\[0\]: expected a key 'size'"),
        (lambda v: v["7"][0].update(size=[24]), r"expected \[height, width\]"),
        (lambda v: v["7"][0].update(size=[24, -1]), r"\['size'\]: expected"),
        (lambda v: v["7"][0].update(size=[1 << 20, 1 << 20]), r"\['size'\]: expected"),
        (lambda v: v["7"][0].update(size=[24, "32"]), r"\['size'\]: expected int, got str"),
        (lambda v: v["7"][0].update(size=[24, 33]), r"\['7'\]\[0\]\['counts'\]"),
        (lambda v: v["7"][0].update(counts="~~~~"), r"\['7'\]\[0\]\['counts'\]"),
        (lambda v: v["7"][0].update(counts="\u00e9"), r"\['7'\]\[0\]\['counts'\]"),
        (lambda v: v["7"][0].update(counts=[1, 2]), r"\['counts'\]: expected str, got list"),
        (lambda v: v.update({"7": [5]}), r"\['7'\]\[0\]: expected dict, got int"),
    ],
)
def test_malformed_masks(revos_root: Path, change: Callable[[Any], None], match: str) -> None:
    _edit(revos_root, change, "mask_dict.json")
    sample = open_revos(revos_root)[0]
    with pytest.raises(DatasetError, match=match):
        sample.mask_at(0)


def test_masks_of_two_sizes(revos_root: Path, rle_of: Callable[..., Any]) -> None:
    _edit(
        revos_root,
        lambda v: v["8"].__setitem__(0, rle_of(np.ones((5, 5), bool))),
        "mask_dict.json",
    )
    with pytest.raises(DatasetError, match="of one size"):
        open_revos(revos_root)[1].mask_at(0)


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"[" * 200_000, b"[]", b"", b'{"a": NaN'])
def test_not_json(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "mask_dict.json"
    path.write_bytes(text)
    with pytest.raises(DatasetError, match=r"mask_dict\.json: (not valid JSON|expected dict)"):
        RleTable(path).table()


def test_frame_out_of_range(revos_root: Path) -> None:
    for frame in (-1, 3):
        with pytest.raises(DatasetError, match="below 3"):
            open_revos(revos_root)[0].mask_at(frame)
