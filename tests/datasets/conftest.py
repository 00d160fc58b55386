"""Small folders in exactly the published layouts."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SIZE = (24, 32)


def _mask(seed: int, frame: int) -> Any:
    grid = np.zeros(SIZE, bool)
    grid[2 + seed : 10 + seed, 3 + frame : 12 + frame] = True
    return grid


def _write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def _rle(mask: Any) -> dict[str, Any]:
    coco = pytest.importorskip("pycocotools.mask")
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def _write_frames(folder: Path, names: list[str], size: tuple[int, int] = SIZE) -> None:
    image = pytest.importorskip("PIL.Image")
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        image.fromarray(np.full((*size, 3), 40 + 20 * k, np.uint8)).save(folder / f"{name}.jpg")


def _write_labels(path: Path, labels: Any) -> None:
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = image.fromarray(np.asarray(labels, np.uint8), "P")
    palette = [(k * 7 % 256, k * 29 % 256, k * 53 % 256) for k in range(256)]
    picture.putpalette([v for colour in palette for v in colour])
    picture.save(path)


@pytest.fixture(scope="session")
def mask_of() -> Callable[[int, int], Any]:
    """Mask (H, W) of object `seed` on a frame."""
    return _mask


@pytest.fixture(scope="session")
def write_json() -> Callable[[Path, Any], Path]:
    return _write_json


@pytest.fixture(scope="session")
def write_labels() -> Callable[[Path, Any], None]:
    return _write_labels


@pytest.fixture(scope="session")
def rle_of() -> Callable[[Any], dict[str, Any]]:
    return _rle


@pytest.fixture(params=[True, False], ids=["JPEGImages", "bare"])
def inner(request: pytest.FixtureRequest) -> str:
    """Both known places of the frames."""
    return "JPEGImages" if request.param else "."


@pytest.fixture
def revos_root(tmp_path: Path, inner: str) -> Path:
    root = tmp_path / "ReVOS"
    names = ["00000", "00001", "00002"]
    for video in ("cat/with spaces".replace("/", " "), "dog"):
        _write_frames(root / inner / video, names)
    meta = {
        "videos": {
            "cat with spaces": {
                "vid_id": 0,
                "frames": names,
                "expressions": {
                    "0": {"exp": "the cat", "obj_id": [1], "anno_id": [7], "type_id": 0},
                    "1": {"exp": "who ran?", "obj_id": [1, 2], "anno_id": [7, 8], "type_id": 1},
                    "2": {"exp": "the cow", "obj_id": [], "anno_id": [], "type_id": 2},
                },
            },
            "dog": {
                "vid_id": 1,
                "frames": names,
                "expressions": {
                    "0": {"exp": "the dog", "obj_id": [4], "anno_id": [9], "type_id": 0}
                },
            },
        }
    }
    masks = {
        "7": [_rle(_mask(0, 0)), _rle(_mask(0, 1)), None],
        "8": [_rle(_mask(4, 0)), None, None],
        "9": [None, _rle(_mask(1, 1)), _rle(_mask(1, 2))],
    }
    foreground = {
        "cat with spaces": {
            "masks_rle": [
                [_rle(_mask(0, 0)), _rle(_mask(4, 0))],
                _rle(_mask(0, 1)),
                _rle(_mask(9, 2)),
            ]
        },
        "dog": {"masks_rle": [_rle(_mask(1, k)) for k in range(3)]},
    }
    _write_json(root / "meta_expressions_valid_.json", meta)
    _write_json(root / "mask_dict.json", masks)
    _write_json(root / "mask_dict_foreground.json", foreground)
    return root


@pytest.fixture
def mevis_root(tmp_path: Path, inner: str) -> Path:
    root = tmp_path / "mevis"
    names = ["00000", "00001"]
    entry = {"exp": "moving left", "obj_id": [0, 3], "anno_id": [2, 5]}
    for split in ("valid_u", "valid"):
        _write_frames(root / split / inner / "v1", names)
        expressions = {"0": entry if split == "valid_u" else {"exp": "moving left"}}
        videos = {"v1": {"frames": names, "expressions": expressions}}
        _write_json(root / split / "meta_expressions.json", {"videos": videos})
    masks = {key: [_rle(_mask(int(key), k)) for k in range(2)] for key in ("2", "5")}
    _write_json(root / "valid_u" / "mask_dict.json", masks)
    return root


@pytest.fixture
def refvos_root(tmp_path: Path, inner: str) -> Path:
    """Ref-YouTube-VOS with Annotations in train, none in valid, and a test list."""
    root = tmp_path / "Ref-Youtube-VOS"
    names = ["00000", "00005"]

    def meta(videos: list[str], hidden: bool) -> dict[str, Any]:
        expressions = {
            "1": {"exp": "second", **({} if hidden else {"obj_id": "2"})},
            "0": {"exp": "first", **({} if hidden else {"obj_id": "1"})},
        }
        return {"videos": {v: {"frames": names, "expressions": expressions} for v in videos}}

    lists = {"train": ["b", "a"], "valid": ["t", "v"], "test": ["t"]}
    for split, videos in lists.items():
        path = root / "meta_expressions" / split / "meta_expressions.json"
        _write_json(path, meta(videos, hidden=split != "train"))
        if split == "test":
            continue
        for video in videos:
            _write_frames(root / split / inner / video, names)
    for video in lists["train"]:
        for k, name in enumerate(names):
            labels = _mask(0, k) * 1 + _mask(9, k) * 2
            _write_labels(root / "train" / "Annotations" / video / f"{name}.png", labels)
    return root


@pytest.fixture
def davis_root(tmp_path: Path) -> Path:
    root = tmp_path / "DAVIS"
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("bear\nbike-packing\n")
    for name in ("bear", "bike-packing"):
        frames = [f"{k:05d}" for k in range(4)]
        _write_frames(root / "JPEGImages" / "480p" / name, frames)
        for k, frame in enumerate(frames):
            labels = _mask(0, k) * 1 + _mask(9, k) * 2
            labels[-1] = 255
            _write_labels(root / "Annotations" / "480p" / name / f"{frame}.png", labels)
    return root


@pytest.fixture
def refavs_root(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    root = tmp_path / "REFAVS"
    rows = [
        ("a_0_10000", "a_0_10000_cat_1", "test_s", 0, "The meowing, grey object"),
        ("a_0_10000", "a_0_10000_man_1", "test_s", 1, "The silent one"),
        ("a_0_10000", "null_c-a_0_10000_null_1", "test_n", 0, "The barking object"),
        ("b_0_10000", "b_0_10000_dog_1", "TODO", 0, "unfinished"),
    ]
    root.mkdir()
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("vid", "uid", "split", "fid", "exp"), *rows])
    for folder in ("a_0_10000", "null_c-a_0_10000"):
        _write_frames(root / "media" / folder / "frames", [str(k) for k in range(10)])
        (root / "media" / folder / "audio.wav").write_bytes(b"RIFF")
        objects = (0, 1) if folder[0] == "a" else (0,)
        for fid in objects:
            target = root / "gt_mask" / folder / f"fid_{fid}"
            target.mkdir(parents=True)
            for k in range(10):
                mask = _mask(4 * fid, k) if folder[0] == "a" else np.zeros(SIZE, bool)
                image.fromarray(mask.astype(np.uint8) * 255).save(target / f"{k:05d}.png")
    return root


@pytest.fixture(scope="session")
def refavs_metadata(shared: Path) -> Path:
    """The real metadata.csv, where it is present."""
    return shared / "data" / "refavs_metadata.csv"
