"""The experiment from start to page on a random little thinker of the nano layout, with the real nano judge.

The numbers mean nothing; that each job leaves what the next one needs, goes on after a kill and refuses bad
input is what is tested. Real results are in training/results.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omni_training import cli
from omni_training.data.world import world_scene
from omni_training.experiment import jobs
from omni_training.experiment.arm import build_arm, cpu_seconds, last_checkpoint
from omni_training.experiment.cli import read_settings
from omni_training.experiment.files import Experiment, read_json
from omni_training.experiment.judge import ClipEvaluator, open_judge
from omni_training.experiment.page import write_report
from omni_training.experiment.settings import (
    ARMS,
    CONTROL,
    FULL,
    START,
    ExperimentError,
    ExperimentSettings,
    JudgeSettings,
    load_settings,
)
from omni_training.grpo.checkpoints import TrainingDivergedError
from omni_training.grpo.config import ConfigError
from tokenizers import Tokenizer

from omni_sdk.bundle.bundle import embedded
from omni_sdk.demo.texts import describe, grs_answer
from omni_sdk.utils.files import write_json

pytestmark = pytest.mark.skipif(embedded("nano") is None, reason="no embedded nano bundle here")
SMALL = {
    "seeds": (0,), "steps": 2, "prompts_per_step": 1, "num_generations": 2, "save_steps": 1,
    "max_completion_tokens": 12, "num_clips": 3, "eval_families": ("direct", "null", "sound"),
    "control_batch": 2, "rounds": 50,
}  # fmt: skip


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random thinker that reads the world: the nano bundle's tokenizer and pictures, width 32."""
    from transformers import Qwen2_5OmniThinkerConfig
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker

    bundle = embedded("nano")
    assert bundle is not None
    vocabulary = Tokenizer.from_file(str(bundle / "tokenizer.json")).get_vocab_size()
    config = Qwen2_5OmniThinkerConfig(
        audio_config={
            "num_mel_bins": 32, "encoder_layers": 1, "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32, "d_model": 32, "max_source_positions": 64, "n_window": 32,
            "output_dim": 32,
        },
        vision_config={
            "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2,
            "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 48,
            "out_hidden_size": 32, "fullatt_block_indexes": [0],
        },
        text_config={
            "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1024,
            "use_sliding_window": False, "pad_token_id": 0, "eos_token_id": 2,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 50.0, "mrope_section": [2, 3, 3],
            },
            "tie_word_embeddings": False,
        },
        audio_token_index=8, image_token_index=9, video_token_index=7, vision_start_token_id=3,
        vision_end_token_id=4, audio_start_token_id=5, audio_end_token_id=6, user_token_id=11,
        position_id_per_seconds=2, seconds_per_chunk=2, tie_word_embeddings=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("start")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Thinker(config)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 2, 0
    model.save_pretrained(folder)
    shutil.copyfile(bundle / "tokenizer.json", folder / "tokenizer.json")
    sizes = {"patch": 8, "merge": 2, "tpatch": 2, "mean": 0.5, "std": 0.5, "n_fft": 2048,
             "hop": 2000, "mels": 32, "sr": 16000, "image_size_lo": 48, "image_size_hi": 96,
             "fps": 2.0, "frames": 16}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(sizes))
    return folder


def small(start: Path, **changed: Any) -> ExperimentSettings:
    return ExperimentSettings(str(start), **(SMALL | changed))


@pytest.fixture(scope="module")
def finished(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Every job, in one process."""
    folder = tmp_path_factory.mktemp("experiment")
    experiment = Experiment.create(folder / "run", small(start))
    for name, job in jobs.all_jobs(experiment).items():
        assert not job.done
        assert all(jobs.all_jobs(experiment)[n].done for n in job.needs)
        jobs.run_job(experiment, name)
        assert job.done, name
    return experiment


def test_every_job_leaves_its_file_and_the_page_is_written(
    finished: Experiment, tmp_path: Path
) -> None:
    results = write_report(finished, tmp_path / "report")
    assert json.loads((tmp_path / "report" / "results.json").read_text()) == results
    assert str(finished.settings.start) not in (tmp_path / "report" / "results.json").read_text()
    arms = results["judges"]["training"]["arms"]
    assert set(arms) == {START, *ARMS, CONTROL}
    assert arms[FULL]["j_and_f"]["clips"] == 3
    assert arms[FULL]["absent_correct"]["clips"] == 1
    assert {"against_start", "against_control"} <= set(arms[FULL]["j_and_f"])
    assert results["cost"]["total_cpu_seconds"] > 0
    page = (tmp_path / "report" / "index.md").read_text()
    for file in ("j_and_f_training.svg", "r_k.svg", "r_a.svg", "r_g.svg"):
        assert file in page
        assert (tmp_path / "report" / file).read_text().startswith("<svg")
    assert "not told apart from 0" in page


def test_arms_pay_what_they_say_from_the_same_clips(finished: Experiment) -> None:
    settings = finished.settings
    weights = {arm: settings.run_config(arm, 0, "x").rewards.build().column_weights for arm in ARMS}
    assert weights == {
        "r_k": (1, 1, 0, 0), "r_k+r_a": (1, 1, 1, 0), "r_k+r_g": (1, 1, 0, 1), FULL: (1, 1, 1, 1),
    }  # fmt: skip
    first = [
        read_json(finished.record(f"{arm}/0"))["log"][0]["num_tokens"] for arm in ("r_k", "r_k+r_a")
    ]
    assert first[0] == first[1], "the same prompts and the same rollouts before any update"


def test_the_control_takes_the_full_arms_compute(finished: Experiment) -> None:
    full, control = (read_json(finished.record(f"{arm}/0")) for arm in (FULL, CONTROL))
    assert control["budget_cpu_seconds"] == full["cpu_seconds"]
    plan = read_json(finished.train(f"{CONTROL}/0") / "plan.json")
    assert (
        plan["steps"] == control["steps"] == max(1, round(full["cpu_seconds"] / plan["per_step"]))
    )


def test_trained_models_differ_and_load(finished: Experiment) -> None:
    from omni_sdk.hf.checkpoint import load_thinker

    weights = {
        name: load_thinker(finished.checkpoint(name)).model.lm_head.weight
        for name in (START, f"{FULL}/0", f"{CONTROL}/0")
    }
    assert not torch.equal(weights[START], weights[f"{CONTROL}/0"])
    assert set(read_json(finished.answers(f"{FULL}/0"))["answers"]) == set(
        finished.settings.clips()
    )


def test_a_killed_arm_goes_on(start: Path, tmp_path: Path) -> None:
    """Stopped after its first checkpoint: the same job ends with both steps and all CPU time."""
    experiment = Experiment.create(tmp_path, small(start))
    trainer, backend = build_arm(experiment, "r_k+r_a", 0)
    trainer.args.max_steps = 2

    class Stop(Exception):
        pass

    step = trainer.training_step

    def killed(*args: Any, **kwargs: Any) -> Any:
        if trainer.state.global_step == 1:
            raise Stop
        return step(*args, **kwargs)

    trainer.training_step = killed
    with pytest.raises(Stop):
        trainer.train()
    backend.close()
    folder = experiment.train("r_k+r_a/0")
    assert str(last_checkpoint(folder)).endswith("checkpoint-1")
    spent = cpu_seconds(trainer.state.log_history)
    jobs.run_job(experiment, "train/r_k+r_a/0")
    record = read_json(experiment.record("r_k+r_a/0"))
    assert [entry["step"] for entry in record["log"]] == [1, 2]
    assert record["log"][0]["cpu_seconds"] == pytest.approx(spent)
    assert record["cpu_seconds"] > spent


def test_half_written_outputs_do_not_count(start: Path, tmp_path: Path) -> None:
    """What a kill leaves (checkpoint, model or file in the making) is neither resumed nor done."""
    experiment = Experiment.create(tmp_path, small(start))
    job = jobs.all_jobs(experiment)["train/r_k/0"]
    folder = experiment.train("r_k/0")
    (folder / "checkpoints" / ".incomplete" / "checkpoint-7").mkdir(parents=True)
    (folder / "model.incomplete").mkdir()
    (folder / ".training.json.1.partial").write_text("{")
    assert last_checkpoint(folder) is None
    assert not job.done
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(experiment.record("r_k/0"), {"loss": float("nan")})
    assert not job.done


def test_nan_stops_the_control_with_the_batch_saved(start: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(start, broken)
    weights = load_file(broken / "model.safetensors")
    name = next(n for n in weights if "lm_head" in n)
    weights[name][0, 0] = float("nan")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    experiment = Experiment.create(tmp_path / "run", small(broken))
    write_json(experiment.record(f"{FULL}/0"), {"cpu_seconds": 1.0})
    with pytest.raises(TrainingDivergedError, match="batch is saved"):
        jobs.run_job(experiment, f"train/{CONTROL}/0")
    (saved,) = experiment.train(f"{CONTROL}/0").rglob("bad-batch-*")
    assert (saved / "batch.safetensors").is_file()
    assert not jobs.all_jobs(experiment)[f"train/{CONTROL}/0"].done


def test_unreadable_samples_stop_an_arm(start: Path, tmp_path: Path) -> None:
    from omni_sdk.errors import DatasetError

    experiment = Experiment.create(tmp_path, small(start, steps=30))
    trainer, backend = build_arm(experiment, "r_k", 0, save_strategy="no")
    assert backend is None, "R_K alone asks no detail system"

    def gone(sample_id: str) -> Any:
        raise DatasetError(f"{sample_id} is gone")

    trainer.samples._store.request = gone
    with pytest.raises(DatasetError, match="20 of 20 samples"):
        trainer.train()


def test_the_right_answer_is_judged_right() -> None:
    """Judge and scores are those of the pipeline: the truth scores high, another object low."""
    judge = open_judge(JudgeSettings())
    name = "direct:5000000"
    scene = world_scene(name)
    evaluator = ClipEvaluator(judge, name)
    text = grs_answer(scene)
    right = evaluator.score(text)
    assert right.right_object == 1
    assert right.span_iou == 1
    assert right.j_visible is not None
    assert right.j_visible > 0.6
    assert scene.target is not None
    other = scene.objects[1 - scene.target] if scene.target < 2 else scene.objects[0]
    true = describe(scene.objects[scene.target].name)
    wrong = evaluator.score(text.replace(f'"{true}"', f'"{describe(other.name)}"'))
    assert wrong.right_description == 0
    assert wrong.j < right.j
    assert evaluator.score("garbage").status == "unparsed"
    assert evaluator.score("<think></think><answer>[]</answer>").j == 0


def test_equal_questions_are_asked_once() -> None:
    inner = open_judge(JudgeSettings())

    class Counting:
        calls = 0

        def ground(self, images: Any, descriptions: Any) -> Any:
            Counting.calls += 1
            return inner.grounder.ground(images, descriptions)

    name = "last:5100000"
    evaluator = ClipEvaluator(replace(inner, grounder=Counting()), name)
    text = grs_answer(world_scene(name))
    first = evaluator.score(text)
    assert evaluator.score(text.replace("<think>", "<think> well")) == first
    assert (evaluator.asked, Counting.calls) == (1, 1)


def test_other_settings_need_another_folder(start: Path, tmp_path: Path) -> None:
    Experiment.create(tmp_path, small(start))
    assert Experiment.create(tmp_path, small(start)).settings == Experiment.open(tmp_path).settings
    with pytest.raises(ExperimentError, match="other settings"):
        Experiment.create(tmp_path, small(start, steps=3))
    with pytest.raises(ExperimentError, match="no experiment"):
        Experiment.open(tmp_path / "nowhere")
    with pytest.raises(ExperimentError, match="no job"):
        jobs.run_job(Experiment.open(tmp_path), "train/r_z/0")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"lerning_rate": 1e-3}, "did you mean 'learning_rate'"),
        ({"judge": {"pth": "nano"}}, "judge.pth"),
        ({"seeds": [0, "1"]}, r"seeds\[1\]"),
        ({"seeds": [0, 0]}, "distinct"),
        ({"seeds": []}, "distinct"),
        ({"steps": 0}, "at least 1"),
        ({"eval_families": ["later"]}, "eval_families"),
        ({"rewards": {"preset": "reference"}}, "paper"),
        ({"first_clip": 99_999}, "held-out range"),
        ({"num_generations": 1}, "at least 2"),
        ([1], "expected a mapping"),
        ("a: [", "cannot be read"),
    ],
)
def test_bad_configurations_are_told(tmp_path: Path, value: Any, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value))
    with pytest.raises(ConfigError, match=message):
        load_settings(path, start="x")
    assert cli.main(["experiment", "--out", str(tmp_path / "o"), "--config", str(path)]) == 1


def test_the_start_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="start: missing"):
        load_settings(None)


def test_the_published_configuration_is_read() -> None:
    path = Path(__file__).parents[2] / "training" / "configs" / "nano_experiment.yaml"
    settings = load_settings(path, start="x")
    assert len(settings.seeds) >= 3
    assert len(settings.clips()) >= 500
    assert len(set(settings.clips())) == len(settings.clips())
    assert set(settings.models()) >= {START, f"{FULL}/2", f"{CONTROL}/0"}


def test_the_command_lines_judges(start: Path, tmp_path: Path) -> None:
    arguments = cli.build_parser().parse_args(
        ["experiment", "--start", str(start), "--out", str(tmp_path), "--bundle", "b",
         "--second", "g", "--second-tracker", "t"]
    )  # fmt: skip
    assert read_settings(arguments).judges == {
        "training": JudgeSettings("b"), "swapped": JudgeSettings("g", "t"),
    }  # fmt: skip


def test_the_plan_measures_every_part(start: Path) -> None:
    from omni_training.experiment.estimate import estimate

    settings = small(start, num_clips=30, steps=100)
    found = estimate(settings)
    assert set(found.per_step) == {*ARMS, CONTROL}
    assert min(found.per_step.values()) > 0
    arms = sum(found.per_step[arm] for arm in ARMS) + found.per_step[FULL]
    assert found.training == pytest.approx(100 * arms)
    assert found.total > found.training + found.answering + found.judging
    assert "with --jobs 2" in found.lines(2)[-1]


def _stub(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let jobs be little programs that are given their output's path and their name."""
    import subprocess

    def begin(experiment: Experiment, name: str) -> Any:
        path = jobs.log_path(experiment, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        output = jobs.all_jobs(experiment)[name].output
        with path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", code, str(output), name], stdout=log, stderr=log
            )

    monkeypatch.setattr(jobs, "_start", begin)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)


WRITE = (
    "import pathlib,sys,time; p=pathlib.Path(sys.argv[1]); p.parent.mkdir(parents=True,exist_ok=True);"
    "p.write_text(str(time.time()))"
)


def test_the_runner_keeps_order_and_goes_on(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stub(monkeypatch, WRITE)
    experiment = Experiment.create(tmp_path, small(start))
    told: list[str] = []
    jobs.run_all(experiment, jobs=3, tell=told.append)
    table = jobs.all_jobs(experiment)
    written = {name: float(job.output.read_text()) for name, job in table.items()}
    for name, job in table.items():
        assert all(written[need] < written[name] for need in job.needs)
    jobs.run_all(experiment, jobs=1, tell=told.append)
    assert told[-1] == f"{len(table)} of {len(table)} jobs are done", "nothing is done twice"


def test_a_failed_job_stops_the_others(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys,time\nif 'r_a+r_g' in sys.argv[2]: sys.exit('no luck')\ntime.sleep(60)"
    _stub(monkeypatch, code)
    experiment = Experiment.create(tmp_path, small(start))
    started = time.monotonic()
    with pytest.raises(
        ExperimentError, match=r"job train/r_k\+r_a\+r_g/0 ended with code 1: no luck"
    ):
        jobs.run_all(experiment, jobs=2, tell=lambda _: None)
    assert time.monotonic() - started < 30, "the sleeping job was stopped"


def test_one_process_works_on_a_folder(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stub(monkeypatch, WRITE)
    experiment = Experiment.create(tmp_path, small(start))
    with (
        jobs._only_one(tmp_path),
        pytest.raises(ExperimentError, match="another process"),
    ):
        jobs.run_all(experiment, jobs=1, tell=lambda _: None)
    with pytest.raises(ExperimentError, match="at least 1"):
        jobs.run_all(experiment, jobs=0)


def test_settings_round_trip(start: Path, tmp_path: Path) -> None:
    settings = small(start, second_judge=JudgeSettings("a", "b"))
    again = Experiment.create(tmp_path, settings) and Experiment.open(tmp_path).settings
    assert dataclasses.asdict(again) == dataclasses.asdict(settings)
    assert np.all([isinstance(s, int) for s in again.seeds])
