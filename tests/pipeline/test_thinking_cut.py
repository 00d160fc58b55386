"""The thinking budget through the whole pipeline."""

import json

import pytest

from omni_sdk.cli import main
from omni_sdk.config import GenerationConfig, PipelineConfig


def _config(budget):
    return PipelineConfig(generation=GenerationConfig(thinking_budget=budget))


def test_ordinary_answers_do_not_change(pipe, clips):
    """The default budget and none at all give the same on every family."""
    for path, truth in clips.values():
        found = pipe.reason(path, truth.query)
        free = pipe.reason(path, truth.query, config=_config(10_000))
        assert found == free
        assert not found.thinking_cut


def test_a_cut_thought_still_answers_and_says_so(pipe, clips):
    path, truth = clips["direct"]
    whole = pipe(path, truth.query)
    assert whole.to_dict()["thinking_cut"] is False
    events = list(pipe.stream(path, truth.query, config=_config(3)))
    assert events[0].thinking_cut
    result = events[-1].result
    assert result.thinking_cut
    assert result.to_dict()["thinking_cut"] is True
    assert result.status in ("found", "absent")
    assert len(result.thinking) < len(whole.thinking)


@pytest.mark.parametrize("name", ["refavs_demo", "02_cups"])
def test_real_clip(pipe, shared, name):
    """Nano knows nothing of natural video; where its thought is cut, an answer comes all the same."""
    path = shared / "media" / f"{name}.mp4"
    found = pipe.reason(path, "the thing that makes a sound", config=_config(3))
    assert found.thinking_cut
    assert found.status in ("found", "absent")


def test_command_line(clips, capsys):
    path, truth = clips["direct"]
    assert main(["run", str(path), truth.query, "--thinking-budget", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["thinking_cut"] is True
    assert main(["run", str(path), truth.query, "--thinking-budget", "3"]) == 0
    assert "cut short" in capsys.readouterr().out
    assert main(["run", str(path), truth.query, "--thinking-budget", "-1"]) == 1
