"""Configurations: what they refuse, what they say of TRL's defaults, and what they plan."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from omni_training import cli
from omni_training.data.mixed_samples import mixed_samples, mixed_scorer
from omni_training.data.video_samples import video_samples
from omni_training.grpo.config import (
    TRL_DIFFERS,
    ConfigError,
    GrpoSettings,
    RunConfig,
    grpo_config,
    load_config,
    media_tokens,
)
from omni_training.grpo.memory_plan import plan_run
from omni_training.grpo.tiny import SPECIAL, VOCABULARY, tiny_config, tiny_tokenizer

from omni_sdk.bundle.bundle import embedded
from omni_sdk.errors import DatasetError, MemoryBudgetError

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
REVOS = {"dataset": "revos", "root": "nowhere", "split": "train"}
REFAVS = {"dataset": "refavs", "root": "nowhere"}
RUNS = sorted(
    p for p in CONFIGS.glob("*.yaml") if not p.name.startswith(("accelerate_", "nano_experiment"))
)


def write(folder: Path, value: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value), encoding="utf-8")
    return path


def base(**sections: Any) -> dict[str, Any]:
    return {"model": {"path": "x", "architecture": "qwen2.5-omni-3b"}} | sections


@pytest.mark.parametrize("name", sorted(TRL_DIFFERS))
def test_trl_defaults_differ_as_stated(name: str) -> None:
    from trl import GRPOConfig

    default, ours, why = TRL_DIFFERS[name]
    (declared,) = [f for f in dataclasses.fields(GRPOConfig) if f.name == name]
    assert declared.default == default
    field = "max_completion_tokens" if name == "max_completion_length" else name
    assert getattr(GrpoSettings(), field) == ours
    assert why


def test_no_other_default_of_trl_changes_the_algorithm(tmp_path: Path) -> None:
    """Every setting that decides what is learned: ours equals TRL's, or `TRL_DIFFERS` names it."""
    from trl import GRPOConfig

    defaults = {f.name: f.default for f in dataclasses.fields(GRPOConfig)}
    ours = grpo_config(load_config(write(tmp_path, base())), [1], use_cpu=True)
    decisive = (
        "loss_type beta max_grad_norm top_p top_k min_p temperature repetition_penalty weight_decay "
        "lr_scheduler_type learning_rate epsilon epsilon_high delta scale_rewards num_iterations "
        "importance_sampling_level num_generations mask_truncated_completions disable_dropout "
        "max_completion_length multi_objective_aggregation top_entropy_quantile use_bias_correction_kl "
        "entropy_coef use_adaptive_entropy sync_ref_model off_policy_mask_threshold cast_lm_head_to_fp32 "
        "shuffle_dataset warmup_steps adam_beta1 adam_beta2 adam_epsilon lr_scheduler_kwargs"
    )
    for name in decisive.split():
        # epsilon_high's default stands for epsilon; TRL fills it in.
        if name != "epsilon_high" and getattr(ours, name) != defaults[name]:
            assert name in TRL_DIFFERS, name


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (base(grpo={"betta": 0.1}), "grpo.betta: nothing reads this key; did you mean 'beta'"),
        (base(extra=1), "extra: nothing reads this key"),
        (base(rewards={"change": {"alpha_x": 1.0}}), "rewards.change.alpha_x: nothing reads"),
        (base(rewards={"preset": "best"}), "unknown 'best'"),
        (base(rewards={"change": {"target_keyframes": 0}}), "target_keyframes"),
        (base(rewards={"change": {"length_bonus": 1}}), "rewards.change.length_bonus: nothing"),
        ({"grpo": {}}, "model: missing"),
        (base(grpo={"beta": "high"}), "grpo.beta: expected float"),
        (base(grpo={"seed": True}), "grpo.seed: expected int"),
        (base(grpo={"num_generations": 2.5}), "grpo.num_generations: expected int"),
        ("model: {path: x}\ngrpo: {learning_rate: 1e-6}\n", "write 1.0e-6"),
        (base(workers={"backend": "threads"}), "workers.backend"),
        (base(resources={"strategy": "magic"}), "resources.strategy"),
        (base(resources={"devices": 0}), "resources.devices"),
        ([], "expected a mapping"),
        ("a: [", "cannot be read"),
        ("!!python/object/apply:os.system ['true']", "cannot be read"),
    ],
)
def test_wrong_configurations_are_refused(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, value))
    assert message in str(error.value)


def test_media_tokens_are_all_special_tokens_but_the_end() -> None:
    tokens = media_tokens(tiny_tokenizer(), tiny_config())
    assert tokens == sorted(VOCABULARY[t] for t in SPECIAL if t != "<|im_end|>")


def plan_of(tmp_path: Path, **sections: Any) -> Any:
    return plan_run(load_config(write(tmp_path, base(**sections))))


def test_plans_follow_what_is_trained(tmp_path: Path) -> None:
    whole = plan_of(tmp_path)
    assert whole.sizes.language_model == pytest.approx(3.40e9, rel=0.01)
    # 16 bytes per trained parameter, 2 per frozen one and per one of the reference
    state = 16 * whole.sizes.language_model + 2 * whole.sizes.towers + 2 * whole.sizes.total
    names = ("frozen weights", "trained weights", "gradients, master, moments", "reference")
    assert sum(whole.parts_gb[n] for n in names) == pytest.approx(state / 1e9)
    adapters = {"path": "x", "architecture": "qwen2.5-omni-3b", "lora_rank": 64}
    lora = plan_of(tmp_path, model=adapters)
    # rank x (inputs + outputs) of the seven projections of 36 layers
    per_layer = 2048 + 2048 + 2 * (2048 + 256) + 2048 + 2048 + 3 * (2048 + 11008)
    assert lora.sizes.lora == 36 * 64 * per_layer
    assert "reference" not in lora.parts_gb
    assert lora.peak_gb < whole.peak_gb
    eight = {"devices": 8, "strategy": "zero3"}
    sharded = plan_of(tmp_path, resources=eight)
    for name in names:
        assert sharded.parts_gb[name] == pytest.approx(whole.parts_gb[name] / 8)
    offloaded = plan_of(tmp_path, resources=eight | {"offload_optimizer": True})
    assert offloaded.peak_gb < sharded.peak_gb


def test_plan_counts_steps_and_tokens(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        grpo={"gradient_accumulation_steps": 2, "max_completion_tokens": 100},
        data={"num_samples": 800, "frames": 10, "tokens_per_frame_pair": 100, "audio_seconds": 4},
        resources={"devices": 4, "strategy": "zero3"},
    )
    assert (plan.prompts_per_step, plan.rollouts_per_step, plan.steps) == (8, 64, 100)
    assert plan.prompt_tokens == 400 + 500 + 100
    assert plan.tokens_per_step == 64 * 1100


def test_a_plan_that_does_not_fit_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, base(resources={"memory_gb": 24}))
    with pytest.raises(MemoryBudgetError, match="has 24"):
        plan_run(load_config(path)).check()
    assert cli.main(["grpo", "--config", str(path), "--dry-run"]) == 1
    out, err = capsys.readouterr()
    assert "DOES NOT FIT" in out
    assert err.startswith("omni-train: the plan needs")
    assert len(err.splitlines()) == 1


def test_an_unknown_size_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.architecture"):
        plan_of(tmp_path, model={"path": "nowhere/omni-7b"})


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.stem)
def test_shipped_configurations_fit_their_machines(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["grpo", "--config", str(path), "--dry-run"]) == 0
    assert "fits:" in capsys.readouterr().out
    launcher = load_config(path).resources.launcher
    if launcher:
        value = yaml.safe_load((CONFIGS / launcher).read_text(encoding="utf-8"))
        assert value["num_processes"] == load_config(path).resources.devices


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.stem)
def test_shipped_configurations_make_a_step(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["grpo", "--config", str(path), "--smoke"]) == 0
    out = capsys.readouterr().out
    assert "loss" in out
    assert "nan" not in out


def test_wrong_usage_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(["grpo"])
    assert error.value.code == 2


def test_a_run_without_data_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, base())
    assert cli.main(["grpo", "--config", str(path)]) == 1
    assert "data.factory: empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"options": {"model": "x", "cuont": 3}}},
         "data.options: omni_training.grpo.tiny:tiny_samples"),
        ({"data": {"factory": "omni_training.grpo.tiny:samples"}}, "data.factory: cannot import"),
        ({"workers": {"factory": "omni_training.data.world:world_scorer", "options": {"sides": 3}}},
         "omni_training.data.world:world_scorer: got an unexpected keyword argument 'sides'"),
        ({"resources": {"devices": 8, "strategy": "zero3", "launcher": "zero3.yaml"}},
         "accelerate launch --config_file zero3.yaml"),
    ],
)  # fmt: skip
def test_a_run_is_refused_before_it_loads(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    sections: dict[str, Any],
    message: str,
) -> None:
    """Options of a factory are keys too; and one process is not a run for eight GPUs."""
    value = base(
        data={"factory": "omni_training.grpo.tiny:tiny_samples", "options": {"model": "x"}}
    )
    for name, section in sections.items():
        value[name] = value.get(name, {}) | section
    path = str(write(tmp_path, value))
    assert cli.main(["grpo", "--config", path]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    if "resources" not in sections:  # a plan for eight GPUs may be made on one
        if "data" in sections and "options" not in sections["data"]:
            return
        assert cli.main(["grpo", "--config", path, "--dry-run"]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: video_samples([REVOS | {"count": 5}], model="nano"), "got {'dataset'"),
        (lambda: video_samples([{"dataset": "revos", "root": "x"}], model="nano"), "dataset, root and split"),
        (lambda: video_samples([REVOS], model="nano", max_frame=3), r"nothing reads .*'max_frame'"),
        (lambda: mixed_samples([REFAVS | {"cuont": 5}], model="nano"), r"nothing reads \['cuont'\]"),
        (lambda: mixed_samples([{"root": "x"}], model="nano"), "name its dataset"),
        (lambda: mixed_samples([REFAVS], model="nano", visits=2, other=1), r"nothing reads .*'other'"),
        (lambda: mixed_scorer([REVOS], bundle="nano", min_frame=2), r"nothing reads .*'min_frame'"),
    ],
)  # fmt: skip
def test_keys_of_sources_that_nothing_reads_are_refused(call: Any, message: str) -> None:
    if embedded("nano") is None:
        pytest.skip("no embedded nano bundle here")
    with pytest.raises(DatasetError, match=message):
        call()


def test_the_final_model_is_whole_or_the_old_one(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omni_training.grpo.trainer import OmniGRPOTrainer

    value = tiny_run(tiny_checkpoint, tmp_path)
    assert cli.main(["grpo", "--config", str(write(tmp_path, value))]) == 0
    weights = tmp_path / "run" / "final" / "model.safetensors"
    first = weights.read_bytes()

    def torn(trainer: Any, folder: str, **_: Any) -> None:
        Path(folder).mkdir(parents=True)
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(OmniGRPOTrainer, "save_model", torn)
    value["grpo"] |= {"max_steps": 3, "save_steps": 100}
    assert cli.main(["grpo", "--config", str(write(tmp_path, value)), "--resume"]) == 1
    assert weights.read_bytes() == first


def test_skipped_samples_are_told(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = tiny_run(tiny_checkpoint, tmp_path)
    value["grpo"]["max_prompt_tokens"] = 20
    value["data"]["max_failed_share"] = 1.0
    assert cli.main(["grpo", "--config", str(write(tmp_path, value))]) == 0
    out = capsys.readouterr().out
    assert "skipped samples: " in out
    assert "more than max_prompt_tokens=20" in out
    value["data"]["max_failed_share"] = 0.05
    value["output_dir"] = str(tmp_path / "other")
    assert cli.main(["grpo", "--config", str(write(tmp_path, value))]) == 1
    assert "more than the allowed share 0.05" in capsys.readouterr().err


def tiny_run(checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Return a configuration that runs on the CPU in seconds."""
    return {
        "model": {"path": str(checkpoint), "dtype": "float32"},
        "grpo": {
            "num_generations": 2,
            "max_steps": 2,
            "save_steps": 1,
            "max_completion_tokens": 6,
            "gradient_checkpointing": False,
            "log_completions": False,
        },
        "rewards": {"change": {"alpha_a": 0.0, "alpha_g": 0.0}},
        "data": {
            "factory": "omni_training.grpo.tiny:tiny_samples",
            "options": {"model": str(checkpoint)},
        },
        "output_dir": str(folder / "run"),
    }


def test_a_run_from_a_configuration_ends_and_resumes(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = tiny_run(tiny_checkpoint, tmp_path)
    path = write(tmp_path, value)
    assert cli.main(["grpo", "--config", str(path)]) == 0
    names = sorted(p.name for p in (tmp_path / "run").iterdir() if p.is_dir())
    assert names == ["checkpoint-1", "checkpoint-2", "final"]
    value["grpo"]["max_steps"] = 3
    assert cli.main(["grpo", "--config", str(write(tmp_path, value)), "--resume"]) == 0
    assert (tmp_path / "run" / "checkpoint-3" / "trainer_state.json").is_file()
    assert "train_loss" in capsys.readouterr().out


def test_defaults_are_the_published_run() -> None:
    config: RunConfig = load_config(CONFIGS / "omni_r1_7b_8gpu.yaml")
    plan = plan_run(config)
    assert plan.steps == 775  # (2,600 videos + 1,600 + 2,000) / 8, omni-r1.md section 1.6
    assert config.model.freeze_towers
    assert config.rewards.build().column_weights == (1.0, 1.0, 1.0, 2.0)


def test_rollouts_are_by_transformers_or_vllm(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, base(grpo={"rollouts": "vllm"})))
    values = grpo_config(config, [1], use_cpu=True)
    assert (values.use_vllm, values.vllm_mode) == (True, "colocate")
    assert not grpo_config(load_config(write(tmp_path, base())), [1], use_cpu=True).use_vllm
    with pytest.raises(ConfigError, match=r"grpo\.rollouts"):
        load_config(write(tmp_path, base(grpo={"rollouts": "vlm"})))
