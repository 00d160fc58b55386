from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from omni_sdk.cli import main
from omni_sdk.demo.render import object_map, render
from omni_sdk.demo.scene import make_scene
from omni_sdk.evaluation.html import encode_jpeg
from omni_sdk.metrics.davis_tracks import score_semisupervised, summarise
from omni_sdk.output.writers import write_indexed_png

SIZE = (64, 80)


@pytest.fixture(scope="module")
def davis_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sequences of five frames in which all objects are seen from the first frame on."""
    root = tmp_path_factory.mktemp("data") / "DAVIS"
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("one\ntwo\n")
    for seed, name in ((3, "one"), (4, "two")):
        scene = make_scene(seed)
        for k in range(5):
            seconds = 5 + 0.3 * k
            labels = object_map(scene, seconds, SIZE)
            frame = root / "JPEGImages" / "480p" / name / f"{k:05d}.jpg"
            frame.parent.mkdir(parents=True, exist_ok=True)
            frame.write_bytes(encode_jpeg(render(scene, seconds, SIZE)))
            for kind in ("Annotations", "Annotations_unsupervised"):
                write_indexed_png(root / kind / "480p" / name / f"{k:05d}.png", labels)
    return root


def _predict(root: Path, out: Path, shift: int) -> dict[str, tuple[list, list]]:
    """Write the truth moved to the right as a prediction; return (prediction, truth) by sequence."""
    pairs: dict[str, tuple[list, list]] = {}
    from omni_sdk.datasets.images import read_labels

    for path in sorted((root / "Annotations" / "480p").glob("*/*.png")):
        truth = read_labels(path)
        found = np.roll(truth, shift, axis=1)
        write_indexed_png(out / path.parent.name / path.name, found)
        both = pairs.setdefault(path.parent.name, ([], []))
        both[0].append(found)
        both[1].append(truth)
    return pairs


@pytest.mark.parametrize("track", [[], ["--unsupervised"]])
def test_perfect_label_maps(
    davis_root: Path, tmp_path: Path, track: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _predict(davis_root, tmp_path, 0)
    arguments = ["eval", "score", "davis2017", str(davis_root), str(tmp_path), "--jobs", "1"]
    assert main([*arguments, *track]) == 0
    assert "100.00" in capsys.readouterr().out


def test_scores_are_those_of_the_metric(davis_root: Path, tmp_path: Path) -> None:
    pairs = _predict(davis_root, tmp_path / "p", 3)
    report = tmp_path / "r.json"
    arguments = ["eval", "score", "davis2017", str(davis_root), str(tmp_path / "p")]
    assert main([*arguments, "--jobs", "2", "--json", str(report)]) == 0
    expected = summarise({n: score_semisupervised(a, b) for n, (a, b) in pairs.items()})
    found = json.loads(report.read_text())
    assert 0.3 < expected.jf_mean < 0.95
    assert found["jf_mean"] == expected.jf_mean
    assert found["num_objects"] == expected.num_objects


def test_a_missing_map_ends_it(
    davis_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _predict(davis_root, tmp_path, 0)
    (tmp_path / "two" / "00000.png").unlink()  # given to everybody in this track
    arguments = ["eval", "score", "davis2017", str(davis_root), str(tmp_path), "--jobs", "1"]
    assert main(arguments) == 0
    (tmp_path / "two" / "00002.png").unlink()
    assert main(arguments) == 1
    assert "two/00002.png" in capsys.readouterr().err
