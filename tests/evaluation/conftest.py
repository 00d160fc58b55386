"""Data sets in exactly the published layouts, made of scenes of the demo's world."""

from __future__ import annotations

import csv
import json
import shutil
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni_sdk.config import ModelOptions
from omni_sdk.datasets.predictions import prediction_path, write_prediction
from omni_sdk.demo.render import object_map, render
from omni_sdk.demo.scene import Scene, make_scene
from omni_sdk.demo.sound import waveform
from omni_sdk.demo.world import held_out_seed
from omni_sdk.dus.masks import rle_encode
from omni_sdk.evaluation.html import encode_jpeg
from omni_sdk.evaluation.plan import Models, Options, Plan
from omni_sdk.evaluation.report import Results, collect
from omni_sdk.evaluation.runner import Evaluation
from omni_sdk.output.png import encode_png

SIZE = (96, 96)
NUM_FRAMES, FPS = 16, 2.0  # of ReVOS and MeViS here
REFAVS_SIZE = (256, 256)  # the size that the official evaluator works at


@dataclass(frozen=True)
class Question:
    """What is asked about a scene, and the objects (0-based) that answer it."""

    text: str
    objects: tuple[int, ...]
    type_id: int


def _scenes() -> dict[str, tuple[Scene, list[Question]]]:
    direct = make_scene(held_out_seed("direct", 0), "direct")
    null = make_scene(held_out_seed("null", 0), "null")
    assert direct.target is not None
    other = (direct.target + 1) % len(direct.objects)
    named = f"the {direct.objects[other].color} shape"
    return {
        "video-a": (
            direct,
            [Question(direct.query, (direct.target,), 0), Question(named, (other,), 1)],
        ),
        "video b": (
            null,
            [
                Question(null.query, (), 2),
                Question(f"the {null.objects[0].shape}", (0,), 1),
            ],
        ),
    }


def _write_jpeg(path: Path, picture: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_jpeg(picture, quality=2))


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _rles(maps: list[Any], number: int) -> list[Any]:
    """One RLE, or null where the object is not seen, per frame."""
    masks = [m == number + 1 for m in maps]
    return [
        {"size": list(SIZE), "counts": rle_encode(m).decode("ascii")} if m.any() else None
        for m in masks
    ]


def _write_expressions(
    frames_folder: Path,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Write the frames; return meta_expressions, mask_dict and mask_dict_foreground."""
    names = [f"{k:05d}" for k in range(NUM_FRAMES)]
    videos: dict[str, Any] = {}
    masks: dict[str, Any] = {}
    foreground: dict[str, Any] = {}
    for number, (video, (scene, questions)) in enumerate(_scenes().items()):
        times = [k / FPS for k in range(NUM_FRAMES)]
        for name, seconds in zip(names, times, strict=True):
            _write_jpeg(frames_folder / video / f"{name}.jpg", render(scene, seconds, SIZE))
        maps = [object_map(scene, seconds, SIZE) for seconds in times]
        for k in range(len(scene.objects)):
            masks[str(100 * number + k)] = _rles(maps, k)
        per_object = [_rles(maps, k) for k in range(len(scene.objects))]
        foreground[video] = {"masks_rle": [list(frame) for frame in zip(*per_object, strict=True)]}
        videos[video] = {
            "vid_id": number,
            "frames": names,
            "expressions": {
                str(k): {
                    "exp": question.text,
                    "obj_id": list(question.objects),
                    "anno_id": [100 * number + o for o in question.objects],
                    "type_id": question.type_id,
                }
                for k, question in enumerate(questions)
            },
        }
    return {"videos": videos}, masks, foreground


@pytest.fixture(scope="session")
def revos_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "ReVOS"
    meta, masks, foreground = _write_expressions(root / "JPEGImages")
    _write_json(root / "meta_expressions_valid_.json", meta)
    _write_json(root / "mask_dict.json", masks)
    _write_json(root / "mask_dict_foreground.json", foreground)
    return root


@pytest.fixture(scope="session")
def mevis_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "mevis"
    meta, masks, _ = _write_expressions(root / "valid_u" / "JPEGImages")
    for video in meta["videos"].values():
        for expression in video["expressions"].values():
            del expression["type_id"]
        # MeViS has no expression without an object.
        video["expressions"] = {k: e for k, e in video["expressions"].items() if e["obj_id"]}
    _write_json(root / "valid_u" / "meta_expressions.json", meta)
    hidden = {
        video: {
            "frames": value["frames"],
            "expressions": {k: {"exp": e["exp"]} for k, e in value["expressions"].items()},
        }
        for video, value in meta["videos"].items()
    }
    _write_json(root / "valid" / "meta_expressions.json", {"videos": hidden})
    shutil.copytree(root / "valid_u" / "JPEGImages", root / "valid" / "JPEGImages")
    _write_json(root / "valid_u" / "mask_dict.json", masks)
    return root


@pytest.fixture(scope="session")
def sound_scene() -> Scene:
    return make_scene(held_out_seed("sound", 0), "sound")


@pytest.fixture(scope="session")
def refavs_root(tmp_path_factory: pytest.TempPathFactory, sound_scene: Scene) -> Path:
    """One clip of ten frames over eight seconds, its sound, an object asked for twice, and none."""
    root = tmp_path_factory.mktemp("data") / "REFAVS"
    folder, scene = "clip_0_8000", sound_scene
    assert scene.target is not None
    rows = [
        (folder, f"{folder}_shape_1", "test_s", scene.target, scene.query),
        (folder, f"{folder}_shape_1", "test_s", scene.target, "the object making the sound"),
        (folder, f"null_{folder}_null_1", "test_n", 0, "the black ring"),
    ]
    root.mkdir()
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("vid", "uid", "split", "fid", "exp"), *rows])
    for place, answer in ((folder, scene.target), (f"null_{folder}", None)):
        media = root / "media" / place
        fid = 0 if answer is None else answer
        masks = root / "gt_mask" / place / f"fid_{fid}"
        masks.mkdir(parents=True)
        for k in range(10):
            _write_jpeg(media / "frames" / f"{k}.jpg", render(scene, 0.8 * k, REFAVS_SIZE))
            mask = np.zeros(REFAVS_SIZE, np.uint8)
            if answer is not None:
                mask[object_map(scene, 0.8 * k, REFAVS_SIZE) == answer + 1] = 255
            (masks / f"{k:05d}.png").write_bytes(encode_png(mask))
        with wave.open(str(media / "audio.wav"), "wb") as sound:
            sound.setparams((1, 2, 16000, 0, "NONE", ""))
            samples = np.rint(waveform(scene) * 32767).astype("<i2")
            sound.writeframes(samples.tobytes())
    return root


@pytest.fixture(scope="session")
def write_truth() -> Callable[[Any, Path], None]:
    """Write perfect predictions of a sample."""

    def write(sample: Any, root: Path) -> None:
        for frame in range(len(sample.video)):
            path = prediction_path(root, sample, frame)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_prediction(path, sample.mask_at(frame), 255)

    return write


@dataclass(frozen=True)
class Whole:
    """One uninterrupted run over ReVOS, by the shipped models."""

    plan: Plan
    evaluation: Evaluation
    results: Results


@pytest.fixture(scope="session")
def plan_for(revos_root: Path) -> Callable[[Path], Plan]:
    """The same evaluation of ReVOS into another folder."""

    def make(out: Path) -> Plan:
        models = Models(options=ModelOptions(device="cpu", threads=1))
        return Plan("revos", str(revos_root), "valid", str(out), models, Options(fps=FPS))

    return make


@pytest.fixture(scope="session")
def whole(plan_for: Callable[[Path], Plan], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    plan = plan_for(tmp_path_factory.mktemp("whole"))
    evaluation = Evaluation(plan)
    assert len(list(evaluation.run())) == len(evaluation.samples) == 4
    results = collect(evaluation)
    assert results is not None
    return Whole(plan, evaluation, results)


@pytest.fixture(scope="session")
def tree_of() -> Callable[[Path], dict[str, bytes]]:
    """Every file under a folder, by relative name."""

    def read(root: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }

    return read
