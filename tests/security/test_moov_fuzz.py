"""The parser of movie headers under thousands of spoiled ones, the same ones every time."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

COUNT, SECONDS = 16_000, 15  # whichever is reached first; the full run is fuzz_moov.py itself


def test_spoiled_headers_are_declined_or_give_sound_tables() -> None:
    command = ["tests/security/fuzz_moov.py", "--count", str(COUNT), "--seconds", str(SECONDS)]
    out = subprocess.run(
        [sys.executable, *command],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, out.stdout[-3000:] + out.stderr[-3000:]
    assert int(re.findall(r"^all (\d+)$", out.stdout, re.MULTILINE)[0]) >= 500, out.stdout
    indexed = sum(int(n) for n in re.findall(r"'indexed': (\d+)", out.stdout))
    declined = sum(int(n) for n in re.findall(r"'declined': (\d+)", out.stdout))
    assert indexed > 50, "the mutations leave nothing to look at"
    assert declined > 50
