"""Limits from the command line, and that SECURITY.md's table is the code's."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from omni_sdk.cli import main
from omni_sdk.media.limits import ENVIRONMENT_PREFIX, MediaLimits

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", ["inspect", "run", "ask"])
@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("max_pixels=100", "more than max_pixels=100"),
        ("max_duration_seconds=0.5", "max_duration_seconds=0.5"),
        ("max_file_bytes=10", "max_file_bytes=10"),
        ("formats=avi", "cannot be read"),
        ("protocols=https", "lacks 'file'"),
        ("max_pixels=-1", "must be positive"),
        ("max_pixels=many", "--limit 'max_pixels=many'"),
        ("max_pixels", "expected NAME=VALUE with one of"),
        ("no_such=1", "expected NAME=VALUE with one of"),
    ],
)
def test_limits_on_the_command_line(corpus, save, capsys, command, limit, message) -> None:
    path = save("clip.mp4", corpus["h264.mp4"])
    question = [] if command == "inspect" else ["the disk"]
    assert main([command, str(path), *question, "--limit", limit]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().splitlines()[-1].startswith("omni-sdk: ")


def test_limits_that_are_kept(corpus, save, capsys, monkeypatch) -> None:
    path = str(save("clip.mp4", corpus["h264.mp4"]))
    monkeypatch.setenv("OMNI_SDK_MAX_PIXELS", "100")
    assert main(["inspect", path]) == 1
    assert main(["inspect", path, "--limit", "max_pixels=4000", "--limit", "max_frames=24"]) == 0
    assert "64x48, 24 frames" in capsys.readouterr().out


def test_the_documented_table_is_the_codes() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text, re.MULTILINE))
    fields = {f.name: f.default for f in dataclasses.fields(MediaLimits)}
    documented = {name: value for name, value in rows.items() if name in fields}
    assert documented.keys() == fields.keys()
    for name, default in fields.items():
        if isinstance(default, int | float):
            assert float(documented[name].replace(",", "")) == default, name
            assert ENVIRONMENT_PREFIX + name.upper() in text, name


def test_the_tests_named_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 15
    for file, test in named:
        assert (ROOT / file).is_file(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text(), (file, test)
