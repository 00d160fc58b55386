"""`omni-train nano` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from omni_training.cli import main
from omni_training.nano.train import LOG, STATE


def test_one_stage_then_nothing_left_to_do_then_another_seed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["nano", "--out", str(tmp_path), "--minutes-scale", "1e-9", "--stage", "dense"]
    for _ in range(2):
        assert main(call) == 0
        assert capsys.readouterr().out == "stopped after stage dense\n"
    (entry,) = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert (entry["stage"], entry["step"]) == ("dense", 1)
    assert (tmp_path / STATE).is_file()
    assert main([*call, "--seed", "2"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("omni-train: ")
    assert "other settings" in error


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
