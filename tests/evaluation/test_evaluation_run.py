from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni_sdk.config import ModelOptions, PipelineConfig, SamplingConfig, TrackingConfig
from omni_sdk.datasets.images import read_labels
from omni_sdk.datasets.predictions import prediction_path
from omni_sdk.demo.scene import Scene
from omni_sdk.errors import DatasetError, ModelOutputError
from omni_sdk.evaluation.html import encode_jpeg, write_html
from omni_sdk.evaluation.plan import Models, Options, Plan
from omni_sdk.evaluation.predictor import Predictor
from omni_sdk.evaluation.report import collect
from omni_sdk.evaluation.runner import Evaluation

PlanFor = Callable[[Path], Plan]
TreeOf = Callable[[Path], dict[str, bytes]]


def _same_outcome(plan: Plan, whole: Any, tree_of: TreeOf) -> None:
    """All files, answers and scores are those of the uninterrupted run."""
    evaluation = Evaluation(plan)
    results = collect(evaluation)
    assert results is not None
    assert results.rows == whole.results.rows
    assert results.summary == whole.results.summary
    assert tree_of(plan.predictions) == tree_of(whole.plan.predictions)
    for mine, theirs in zip(evaluation.records(), whole.evaluation.records(), strict=True):
        assert mine is not None
        assert dataclasses.replace(mine, timings_ms={}) == dataclasses.replace(
            theirs, timings_ms={}
        )


def test_the_models_answer(whole: Any) -> None:
    """The shipped models find the green cross, and say of the magenta shape that it is not there."""
    _, _, absent, found = whole.evaluation.records()
    assert (absent.status, absent.scored.kind, absent.scored.score.jf) == (
        "absent",
        "no_target",
        1.0,
    )
    assert found.status == "found"
    assert found.scored.score.jf > 0.7
    assert "green" in found.keyframes[0].description
    assert whole.results.summary.overall.jf == pytest.approx(
        (whole.results.summary.referring.jf + whole.results.summary.reasoning.jf) / 2
    )
    assert whole.results.failures == ()


def test_predictions_are_official(whole: Any) -> None:
    """<video>/<expression>/<frame>.png, one per frame, 0 and 1 as the script of ReVOS computes on."""
    values = set()
    for sample in whole.evaluation.samples:
        folder = whole.plan.predictions / sample.video.video_id / sample.expression_id
        assert sorted(p.name for p in folder.iterdir()) == [f"{k:05d}.png" for k in range(16)]
        for path in folder.iterdir():
            labels = read_labels(path)
            assert labels.shape == sample.video.size()
            values |= set(np.unique(labels).tolist())
    assert values == {0, 1}


def test_shards_make_the_whole(
    whole: Any, plan_for: PlanFor, tmp_path: Path, tree_of: TreeOf
) -> None:
    """Also when they were made in two places and copied together."""
    plans = [plan_for(tmp_path / "first"), plan_for(tmp_path / "second")]
    counts = []
    for k, plan in enumerate(plans):
        shard = Evaluation(plan, shard=(k, 2))
        counts.append(len(list(shard.run())))
        assert collect(shard) is None
    assert counts == [2, 2]
    shutil.copytree(plans[1].out, plans[0].out, dirs_exist_ok=True)
    _same_outcome(plans[0], whole, tree_of)


def test_kill_and_resume(whole: Any, plan_for: PlanFor, tmp_path: Path, tree_of: TreeOf) -> None:
    plan = plan_for(tmp_path)
    code = "import sys; from omni_sdk.cli import main; sys.exit(main())"
    options = ["--out", plan.out, "--fps", "2", "--threads", "1", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, "eval", "revos", plan.root, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    log = tmp_path / "records" / "0-of-1.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
    done = log.read_bytes().count(b"\n")
    assert 1 <= done < 4
    # What a kill may leave at worst: half a line, and some frames of an expression without a record.
    with log.open("ab") as file:
        file.write(b'{"scored": {"video_id": "vid')
    sample = whole.evaluation.samples[3]
    path = prediction_path(plan.predictions, sample, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG half")
    resumed = Evaluation(plan)
    assert len(list(resumed.run())) == 4 - done
    _same_outcome(plan, whole, tree_of)
    assert Evaluation(plan).todo == []


def test_lost_files_are_made_again(
    whole: Any, plan_for: PlanFor, tmp_path: Path, tree_of: TreeOf
) -> None:
    plan = plan_for(tmp_path / "copy")
    shutil.copytree(whole.plan.out, plan.out)
    prediction_path(plan.predictions, whole.evaluation.samples[2], 7).unlink()
    evaluation = Evaluation(plan)
    assert evaluation.todo == [2]
    list(evaluation.run())
    _same_outcome(plan, whole, tree_of)


def test_what_tells_runs_apart() -> None:
    """Runs from before there were more options go on; an option that changes no answer is not asked about."""
    names = {"fps", "frames", "audio", "keyframes", "temperature", "seed", "allow_unparsed"}
    assert Options().identity().keys() == {*names, "object_value"}
    same = PipelineConfig(overlap=False, tracking=TrackingConfig(encode_ahead=True))
    assert Options(pipeline=same).identity() == Options().identity()
    other = Options(pipeline=PipelineConfig(tracking=TrackingConfig(stride="auto")))
    assert other.identity() == Options().identity() | {"tracking.stride": "auto"}
    assert "variant" not in Models().identity()
    assert Models(options=ModelOptions(variant=("int8",))).identity()["variant"] == ["int8"]


def test_another_run_is_refused(whole: Any) -> None:
    other = dataclasses.replace(
        whole.plan, options=Options(2.0, PipelineConfig(tracking=TrackingConfig(max_keyframes=1)))
    )
    with pytest.raises(DatasetError, match=r"options\.keyframes is 4, now 1"):
        Evaluation(other)
    with pytest.raises(ValueError, match="shard"):
        Evaluation(whole.plan, shard=(2, 2))


def test_failures_count_and_can_be_tried_again(
    mevis_root: Path, tmp_path: Path, tree_of: TreeOf
) -> None:
    root = tmp_path / "mevis"
    shutil.copytree(mevis_root, root)
    broken = root / "valid_u" / "JPEGImages" / "video-a" / "00009.jpg"
    whole_picture = broken.read_bytes()
    broken.write_bytes(whole_picture[:200])
    models = Models(options=ModelOptions(device="cpu", threads=1))
    plan = Plan("mevis", str(root), "valid_u", str(tmp_path / "out"), models, Options(fps=2.0))
    list(Evaluation(plan).run())
    results = collect(Evaluation(plan))
    assert results is not None
    assert [row.video_id for row in results.failures] == ["video-a", "video-a"]
    assert all("00009.jpg" in row.error for row in results.failures)
    good = results.rows[2].score
    assert good is not None
    assert good.j > 0.5
    assert results.summary is not None
    assert results.summary.j == pytest.approx(good.j / 3)  # type: ignore[union-attr]
    assert results.summary.num_incomplete == 2  # type: ignore[union-attr]
    assert not (plan.predictions / "video-a" / "0").exists()
    # 255 for MeViS, as its contest's server wants.
    assert set(np.unique(read_labels(plan.predictions / "video b" / "1" / "00003.png"))) == {0, 255}

    broken.write_bytes(whole_picture)
    assert Evaluation(plan).todo == []
    list(Evaluation(plan, retry_failed=True).run())
    results = collect(Evaluation(plan))
    assert results is not None
    assert results.failures == ()


def test_sound_reaches_the_reasoner(refavs_root: Path, sound_scene: Scene, tmp_path: Path) -> None:
    """The tone is heard only with sound; a uid given to two rows has two answers."""
    told = {}
    for audio in (True, False):
        out = tmp_path / str(audio)
        options = Options(1.25, PipelineConfig(sampling=SamplingConfig(audio=audio)))
        models = Models(options=ModelOptions(device="cpu", threads=1))
        plan = Plan("refavs", str(refavs_root), "test_s", str(out), models, options)
        evaluation = Evaluation(plan, limit=2 if audio else 1)
        records = list(evaluation.run())
        told[audio] = records[0].thinking
        assert (records[0].timings_ms["audio"] > 0) == audio
        if audio:
            ids = [record.key[1] for record in records]
            assert ids == ["clip_0_8000_shape_1", "clip_0_8000_shape_1.2"]
            assert len(list(plan.predictions.glob("*/*/*.png"))) == 20
    assert sound_scene.tone is not None
    heard = f"sound {sound_scene.tone_shape(sound_scene.tone)}"
    assert heard in told[True]
    assert heard not in told[False]


def test_a_file_of_frames_in_another_size_is_a_failure(mevis_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "mevis"
    shutil.copytree(mevis_root, root)
    odd = root / "valid_u" / "JPEGImages" / "video-a" / "00004.jpg"
    odd.write_bytes(encode_jpeg(np.zeros((48, 48, 3), np.uint8)))
    models = Models(options=ModelOptions(device="cpu", threads=1))
    plan = Plan("mevis", str(root), "valid_u", str(tmp_path / "out"), models, Options(fps=2.0))
    (record,) = Evaluation(plan, limit=1).run()
    assert record.status == "failed"
    assert "expected 96x96" in record.scored.error


def test_a_split_without_masks_is_answered(mevis_root: Path, tmp_path: Path) -> None:
    """For the contest's server: predictions and answers, no scores."""
    models = Models(options=ModelOptions(device="cpu", threads=1))
    plan = Plan("mevis", str(mevis_root), "valid", str(tmp_path), models, Options(fps=2.0))
    evaluation = Evaluation(plan, limit=1)
    (record,) = evaluation.run()
    assert record.status != "failed"
    assert record.scored.score is None
    assert len(list(plan.predictions.glob("video-a/0/*.png"))) == 16
    results = collect(evaluation)
    assert results is not None
    assert (results.summary, results.failures) == (None, ())
    write_html(
        results, tmp_path / "r.html", samples=evaluation.samples, predictions=plan.predictions
    )
    assert "no masks" in (tmp_path / "r.html").read_text()


class _Mumbling:
    """A reasoner whose text nobody can read; all else is the shipped one's."""

    def __init__(self, reasoner: Any) -> None:
        self._reasoner = reasoner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reasoner, name)

    def reason(self, *_: Any) -> Any:
        raise ModelOutputError("expected a list", text="mumble")


@pytest.mark.parametrize("allowed", [False, True])
def test_unreadable_answers(plan_for: PlanFor, tmp_path: Path, allowed: bool) -> None:
    """A failure that keeps the text, unless an empty mask is asked for."""
    plan = plan_for(tmp_path)
    plan = dataclasses.replace(
        plan, options=Options(2.0, PipelineConfig(on_parse_error="empty" if allowed else "raise"))
    )
    predictor = Predictor(plan)
    pipeline = plan.models.load()
    mumbling: Any = _Mumbling(pipeline.reasoner)
    predictor._loaded = dataclasses.replace(pipeline, reasoner=mumbling), plan.samples()
    record = predictor(0)
    assert record.answer == "mumble"
    score: Any = record.scored.score
    if allowed:
        assert (record.status, record.scored.error, score.num_missing) == ("unparsed", "", 0)
        assert len(list(plan.predictions.glob("*/*/*.png"))) == 16
    else:
        assert record.status == "failed"
        assert record.scored.error == "ModelOutputError: expected a list"
        assert (score.jf, score.num_missing) == (0, 16)
        assert not plan.predictions.exists()
