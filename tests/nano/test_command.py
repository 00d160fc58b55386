"""`omni-train nano` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from omni_training.cli import main
from safetensors.torch import load_file

from omni_sdk import Pipeline
from omni_sdk.bundle.bundle import Bundle


def test_one_stage_then_nothing_left_to_do_then_another_seed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["nano", "--out", str(tmp_path), "--minutes-scale", "1e-9", "--stage", "dense"]
    for _ in range(2):
        assert main(call) == 0
        assert capsys.readouterr().out == "stopped after stage dense\n"
    (entry,) = [json.loads(line) for line in (tmp_path / "thinker.jsonl").read_text().splitlines()]
    assert (entry["stage"], entry["step"]) == ("dense", 1)
    assert (tmp_path / "thinker-state.safetensors").is_file()
    assert main([*call, "--seed", "2"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("omni-train: ")
    assert "other settings" in error


def test_one_command_makes_the_bundle_from_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A step of every stage: the models know nothing, the bundle is whole."""
    assert main(["nano", "--out", str(tmp_path), "--minutes-scale", "1e-9", "--seed", "5"]) == 0
    assert capfd.readouterr().out.splitlines()[-1] == str(tmp_path / "bundle")
    sources = Bundle.open(tmp_path / "bundle").manifest.sources
    assert {half: source.checkpoint for half, source in sources.items()} == {
        "grs": "thinker",
        "dus": "tracker",
    }
    for source in sources.values():
        assert source.license == "Apache-2.0"
        assert source.training is not None
        assert source.training.seed == 5
        assert source.training.command == "omni-train nano --out DIR --seed 5 --minutes-scale 1e-09"
        weights = load_file(tmp_path / source.checkpoint / "model.safetensors")
        assert source.training.parameters == sum(w.numel() for w in weights.values())
    result = Pipeline.from_pretrained(tmp_path / "bundle", device="cpu", backend="onnx")
    assert result.tracker is not None


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from omni_training.cli import main\n"
        "try: main(['nano', '--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--minutes-scale" in done.stdout
