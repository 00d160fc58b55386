from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni_sdk.cli import main
from omni_sdk.datasets.predictions import prediction_path
from omni_sdk.errors import DatasetError
from omni_sdk.evaluation.plan import read_samples
from omni_sdk.evaluation.scoring import (
    quality,
    score_predictions,
    score_sample,
    summarise,
    unknown_predictions,
)
from omni_sdk.metrics import davis
from omni_sdk.output.png import encode_png

Write = Callable[[Any, Path], None]


@pytest.mark.parametrize(
    ("name", "split"),
    [("revos", "valid"), ("mevis", "valid_u"), ("refavs", "test_s"), ("refavs", "test_n")],
)
def test_perfect_predictions(
    request: pytest.FixtureRequest, name: str, split: str, tmp_path: Path, write_truth: Write
) -> None:
    root = str(request.getfixturevalue(f"{name}_root"))
    for sample in read_samples(name, root, split=split):
        write_truth(sample, tmp_path)
    rows = list(score_predictions(name, root, split=split, predictions=str(tmp_path), jobs=1))
    assert [quality(row) for row in rows] == [1.0] * len(rows)
    assert not any(row.error for row in rows)
    summary: Any = summarise(name, rows)
    if name == "revos":
        assert (summary.overall.jf, summary.overall.sets.r, summary.num_no_target) == (1, 1, 1)
    elif split == "test_n":
        assert (summary.s, summary.davis_jf) == (0, 1)
    else:
        assert summary.jf == 1
    # Anything wrong costs: the same files against the other half of their frames.
    sample = read_samples(name, root, split=split)[-1]
    path = prediction_path(tmp_path, sample, 0)
    path.write_bytes(encode_png(np.full(sample.video.size(), 255, np.uint8)))
    assert quality(score_sample(sample, tmp_path)) < 1


def test_scores_of_a_run_are_those_of_its_files(
    whole: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By `eval score` in two processes, and computed here from the DAVIS measures."""
    report = tmp_path / "scores.json"
    predictions = str(whole.plan.predictions)
    arguments = ["eval", "score", "revos", whole.plan.root, predictions]
    assert main([*arguments, "--jobs", "2", "--json", str(report)]) == 0
    found, own = json.loads(report.read_text()), whole.results.to_dict()
    assert found["expressions"] == own["expressions"]
    assert found["summary"] == own["summary"]
    assert "overall" in capsys.readouterr().out
    sample, row = whole.evaluation.samples[3], whole.results.rows[3]
    masks = [score_mask(prediction_path(predictions, sample, k)) for k in range(16)]
    truth = [sample.mask_at(k) for k in range(16)]
    j = np.mean([davis.region_similarity(a, b) for a, b in zip(masks, truth, strict=True)])
    assert row.score.j == pytest.approx(j, abs=1e-12)


def score_mask(path: Path) -> Any:
    from omni_sdk.datasets.images import read_mask

    return read_mask(path)


@pytest.mark.parametrize("damage", ["folder", "frame", "cut", "size"])
@pytest.mark.parametrize("name", ["mevis", "refavs", "revos"])
def test_what_is_missing_or_broken_is_zero(
    request: pytest.FixtureRequest, name: str, damage: str, tmp_path: Path, write_truth: Write
) -> None:
    root = str(request.getfixturevalue(f"{name}_root"))
    split = {"mevis": "valid_u", "refavs": "test_s", "revos": "valid"}[name]
    sample = read_samples(name, root, split=split)[0]
    write_truth(sample, tmp_path)
    path = prediction_path(tmp_path, sample, 2)
    if damage == "folder":
        shutil.rmtree(path.parent)
        wanted = "no prediction"
    elif damage == "frame":
        path.unlink()
        wanted = f"no prediction of frame {path.stem}"
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-15])
        wanted = path.name
    else:
        path.write_bytes(encode_png(np.ones((5, 5), np.uint8)))
        wanted = "got 5x5"
    row = score_sample(sample, tmp_path)
    assert wanted in row.error
    assert quality(row) == 0
    if name == "refavs":
        assert row.score.s == 1  # type: ignore[union-attr]


def test_broken_truth_is_an_error(mevis_root: Path, tmp_path: Path, write_truth: Write) -> None:
    """A data set that cannot be read must not lower anyone's score."""
    root = tmp_path / "mevis"
    shutil.copytree(mevis_root, root)
    sample = read_samples("mevis", str(root), split="valid_u")[0]
    write_truth(sample, tmp_path / "predictions")
    path = root / "valid_u" / "mask_dict.json"
    masks = json.loads(path.read_text())
    frames = masks[sample.masks.keys[0]]  # type: ignore[union-attr]
    frames[-1]["counts"] = "~"
    path.write_text(json.dumps(masks))
    fresh = read_samples("mevis", str(root), split="valid_u")[0]
    with pytest.raises(DatasetError, match=r"mask_dict\.json"):
        score_sample(fresh, tmp_path / "predictions")


def test_predictions_of_nobody(mevis_root: Path, tmp_path: Path, write_truth: Write) -> None:
    samples = read_samples("mevis", str(mevis_root), split="valid_u")
    for sample in samples:
        write_truth(sample, tmp_path)
    (tmp_path / "video-a" / "77").mkdir()
    (tmp_path / "elsewhere").mkdir()
    assert unknown_predictions(samples, str(tmp_path)) == ["elsewhere", "video-a/77"]


def test_every_row_of_the_real_refavs_has_its_own_folder(tmp_path: Path, shared: Path) -> None:
    """Eleven uids are given to two rows each; all 20,434 finished rows count."""
    shutil.copy(shared / "data" / "refavs_metadata.csv", tmp_path / "metadata.csv")
    total, suffixed = 0, 0
    for split in ("train", "val", "test_s", "test_u", "test_n"):
        samples = read_samples("refavs", str(tmp_path), split=split)
        assert len({prediction_path("p", sample, 0) for sample in samples}) == len(samples)
        total += len(samples)
        suffixed += sum(sample.expression_id.endswith(".2") for sample in samples)
    assert (total, suffixed) == (20_434, 11)
