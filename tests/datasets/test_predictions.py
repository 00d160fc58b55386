from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni_sdk.datasets.predictions import prediction_path, read_predictions
from omni_sdk.datasets.revos import open_revos
from omni_sdk.errors import DatasetError
from omni_sdk.metrics import mevis, revos

image = pytest.importorskip("PIL.Image")


def _write(root: Path, sample: Any, value: int) -> None:
    for frame in range(len(sample.video)):
        path = prediction_path(root, sample, frame)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(sample.mask_at(frame).astype(np.uint8) * np.uint8(value)).save(path)


@pytest.mark.parametrize("value", [1, 255])
def test_perfect_predictions_score_one(revos_root: Path, tmp_path: Path, value: int) -> None:
    samples = open_revos(revos_root)
    scores = []
    for sample in samples:
        _write(tmp_path / "pred", sample, value)
        frames = range(len(sample.video))
        scores.append(
            revos.score_expression(
                read_predictions(tmp_path / "pred", sample),
                (sample.instances_at(k) for k in frames),
                type_id=revos.KINDS.index(sample.kind),
                foreground=(sample.foreground_at(k) for k in frames),
            )
        )
    assert all((s.j, s.f, s.sets.a, s.sets.r) == (1.0, 1.0, 1.0, 1.0) for s in scores)
    summary = revos.summarise(scores)
    assert summary.overall is not None
    assert summary.overall.jf == 1.0
    assert summary.num_no_target == 1


def test_missing_and_damaged_files(revos_root: Path, tmp_path: Path) -> None:
    sample = open_revos(revos_root)[0]
    assert list(read_predictions(tmp_path, sample)) == [None] * 3
    _write(tmp_path, sample, 255)
    path = prediction_path(tmp_path, sample, 1)
    assert path == tmp_path / "cat with spaces" / "0" / "00001.png"
    data = path.read_bytes()
    path.unlink()
    truth = [sample.mask_at(k) for k in range(3)]
    score = mevis.score_expression(read_predictions(tmp_path, sample), truth)
    assert (score.j, score.num_missing) == (0.0, 1)
    path.write_bytes(data[:-20])
    with pytest.raises(DatasetError, match=r"00001\.png"):
        mevis.score_expression(read_predictions(tmp_path, sample), truth)
