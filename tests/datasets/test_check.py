from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omni_sdk.datasets import DATASETS, Report, check

ROW = {
    "id": 1,
    "problem": "mug",
    "solution": "<box>(1,2),(30,40)</box><points>(5,6),(7,8)</points>",
    "img_height": 840,
    "img_width": 840,
    "image": "a.png",
}


def _problems(report: Report) -> dict[str, int]:
    return {f"{p.severity}: {p.what}": p.count for p in report.problems}


def test_revos_complete(revos_root: Path) -> None:
    report = check(revos_root, "revos")
    assert report.ok
    assert report.problems == ()
    assert report.counts == {
        "valid: expressions": 4,
        "valid: videos": 2,
        "valid: frames": 6,
        "valid: masks annotations": 3,
        "valid: foreground masks annotations": 2,
    }
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True
    assert report.lines()[0].endswith(": ok")


def test_revos_incomplete(revos_root: Path, inner: str, rle_of: Callable[..., Any]) -> None:
    frames = revos_root / inner
    (frames / "dog" / "00001.jpg").unlink()
    shutil.rmtree(frames / "cat with spaces")
    masks = json.loads((revos_root / "mask_dict.json").read_text())
    del masks["9"]
    masks["7"].pop()
    masks["8"] = [None, {"size": [1]}, None]
    (revos_root / "mask_dict.json").write_text(json.dumps(masks))
    (revos_root / "mask_dict_foreground.json").unlink()
    report = check(revos_root, "revos")
    assert not report.ok
    assert _problems(report) == {
        "missing: valid: frame folders": 1,
        "missing: valid: frames": 1,
        "missing: valid: masks annotations absent": 1,
        "missing: valid: masks malformed": 1,
        "odd: valid: masks with another number of frames than the video": 1,
        "odd: valid: masks empty in every frame": 1,
        "odd: foreground file absent: no R score": 1,
    }
    text = "\n".join(report.lines())
    assert "incomplete" in text
    assert "00001.jpg" in text


def test_mevis(mevis_root: Path) -> None:
    report = check(mevis_root, "mevis")
    assert report.ok
    assert report.counts["valid: expressions"] == 1
    assert report.counts["valid_u: masks annotations"] == 2
    (mevis_root / "valid_u" / "mask_dict.json").write_text("{")
    assert _problems(check(mevis_root, "mevis")) == {"missing: valid_u: masks file": 1}


def test_ref_youtube_vos(refvos_root: Path) -> None:
    report = check(refvos_root, "ref-youtube-vos")
    assert report.ok, report.lines()
    assert report.counts["valid: dropped videos of the test split"] == 1
    assert report.counts["train: masks files"] == 4
    (refvos_root / "train" / "Annotations" / "a" / "00005.png").unlink()
    shutil.rmtree(refvos_root / "meta_expressions" / "test")
    report = check(refvos_root, "ref-youtube-vos")
    problems = _problems(report)
    assert problems["missing: train: masks files"] == 1
    assert problems["odd: test list absent: valid keeps the videos of the test split"] == 1


def test_ref_davis17_with_a_pickle_only(refvos_root: Path) -> None:
    shutil.rmtree(refvos_root / "train" / "Annotations")
    (refvos_root / "train" / "mask_dict.pkl").write_bytes(pickle.dumps({}))
    report = check(refvos_root, "ref-davis17")
    (problem,) = (p for p in report.problems if p.what == "train: masks file")
    assert problem.count == 1
    assert "convert_mask_dict" in problem.examples[0]
    assert _problems(report)["missing: valid: expressions without masks"] == 4


def test_davis(davis_root: Path) -> None:
    assert check(davis_root, "davis2017").problems == ()
    (davis_root / "Annotations" / "480p" / "bear" / "00002.png").unlink()
    report = check(davis_root, "davis2017")
    assert _problems(report) == {"missing: val: label maps": 1}
    assert report.problems[0].examples == ("bear/00002.png",)
    shutil.rmtree(davis_root / "JPEGImages" / "480p" / "bear")
    assert _problems(check(davis_root, "davis2017")) == {"missing: val: sequences": 1}


def test_refavs(refavs_root: Path) -> None:
    report = check(refavs_root, "refavs")
    assert report.ok, report.lines()
    assert report.counts["rows"] == 4
    assert not any("dropped unfinished" in name for name in report.counts)
    assert report.counts["rows dropped (split TODO)"] == 1
    assert report.counts["rows whose folder is not vid"] == 1
    assert report.counts["test_s: masks files"] == 20
    media = refavs_root / "media" / "a_0_10000"
    (media / "audio.wav").unlink()
    for k in range(7):
        (media / "frames" / f"{k}.jpg").unlink()
    shutil.rmtree(refavs_root / "gt_mask" / "a_0_10000" / "fid_1")
    with (refavs_root / "metadata.csv").open("a") as file:
        file.write("a_0_10000,a_0_10000_cat_1,test_s,0,again\r\n")
    report = check(refavs_root, "refavs")
    assert _problems(report) == {
        "missing: test_s: sound files": 1,
        "missing: test_s: frames": 7,
        "missing: test_s: masks files": 10,
        "odd: uids given to several rows": 1,
    }
    assert all(len(problem.examples) <= 5 for problem in report.problems)


def test_real_metadata_without_media(refavs_metadata: Path, tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_bytes(refavs_metadata.read_bytes())
    report = check(tmp_path, "refavs")
    assert report.counts["rows"] == 20459
    assert report.counts["test_n: videos"] == 257
    problems = _problems(report)
    assert problems["missing: test_n: frame folders"] == 257
    assert problems["odd: uids given to several rows"] == 11


def test_refcocog(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [ROW, {**ROW, "solution": "?"}, {**ROW, "image": None}]
    rows.append({**ROW, "solution": ROW["solution"].replace("(5,6)", "(500,6)")})
    path.write_text("\n".join(json.dumps(row) for row in rows))
    report = check(path, "refcocog_2k_840")
    assert report.counts == {"rows": 4}
    assert _problems(report) == {
        "missing: rows malformed": 1,
        "odd: rows without an image": 1,
        "odd: points outside their box": 1,
    }
    assert "missing: rows" in _problems(check(tmp_path, "refcocog_2k_840"))


@pytest.mark.parametrize("name", DATASETS)
def test_nothing_there(name: str, tmp_path: Path) -> None:
    assert not check(tmp_path, name).ok
    report = check(tmp_path / "none", name)
    assert _problems(report) == {"missing: root folder": 1}


def test_unknown_data_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a data set of revos"):
        check(tmp_path, "imagenet")


def test_broken_annotations_end_one_split_only(mevis_root: Path) -> None:
    (mevis_root / "valid" / "meta_expressions.json").write_text('{"videos": 3}')
    report = check(mevis_root, "mevis")
    assert _problems(report) == {"missing: valid: annotations unreadable": 1}
    assert report.counts["valid_u: expressions"] == 1
