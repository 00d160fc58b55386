"""What `omni-sdk bench` measures, writes, reads back and compares."""

import dataclasses
import json
import os
import time

import numpy as np
import pytest

from omni_sdk.bench.compare import compare, verdict
from omni_sdk.bench.environment import environment
from omni_sdk.bench.measure import Case, measure
from omni_sdk.bench.memory import DeviceSampler, host_memory_mb, parse_tegrastats, reset_host_peak
from omni_sdk.bench.report import (
    NOT_SUMMED,
    STAGES,
    SettingsReport,
    quantiles,
    read_report,
    write_report,
)
from omni_sdk.bench.tables import comparison_text, report_text
from omni_sdk.cli import main
from omni_sdk.errors import DatasetError, MediaError, PromptError
from omni_sdk.utils.devices import free_device_bytes, nvidia_device, tool_output


def test_stages_add_up(report, pipeline):
    (video,) = report.videos
    assert (video.width, video.height, video.has_audio) == (96, 96, True)
    assert len(video.runs) == 2
    for run in video.runs:
        assert set(run.stages_ms) == set(STAGES)
        ms = run.stages_ms
        parts = sum(v for k, v in ms.items() if k not in NOT_SUMMED)
        assert parts == pytest.approx(ms["total"])
        assert min(ms.values()) >= 0
        # the first token needs everything up to and with the prefill, and nothing after it
        assert ms["index"] + ms["audio"] + ms["prefill"] <= ms["first_token"]
        assert ms["first_token"] <= ms["total"] - ms["generate"] - ms["propagate"]
        assert run.prompt_tokens > 0
        assert run.generated_tokens > 0
        assert run.tokens_per_second == pytest.approx(1e3 * run.generated_tokens / ms["generate"])
    assert report.memory.host_peak_mb >= report.memory.host_loaded_mb * 0.9
    assert report.memory.device_peak_mb is None
    assert report.model.tracker_image_size == pipeline.tracker.image_size
    assert report.environment.versions["omni-sdk"]


def test_round_trip_and_text(report, tmp_path):
    path = tmp_path / "r.json"
    write_report(report, path)
    assert read_report(path) == report
    text = report_text(report)
    for word in (*STAGES, "tokens/s", "MiB", "p99"):
        assert word in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 9}, "schema_version 9"),
        ({"videos": 3}, "videos"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_files_that_are_no_reports(report, tmp_path, change, message):
    path = tmp_path / "r.json"
    write_report(report, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DatasetError, match=message):
        read_report(path)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 10_000])
def test_text_that_is_no_report(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DatasetError):
        read_report(tmp_path / "r.json")
    with pytest.raises(DatasetError):
        read_report(tmp_path / "nowhere.json")


def test_a_report_without_a_stage(report, tmp_path):
    path = tmp_path / "r.json"
    write_report(report, path)
    value = json.loads(path.read_text())
    del value["videos"][0]["runs"][0]["stages_ms"]["mask"]
    path.write_text(json.dumps(value))
    with pytest.raises(DatasetError, match="stages"):
        read_report(path)


def test_quantiles_are_numpys():
    values = list(np.random.default_rng(0).exponential(size=37))
    q = quantiles(values)
    expected = np.quantile(values, [0.5, 0.9, 0.99])
    np.testing.assert_allclose([q.median, q.p90, q.p99], expected)
    assert quantiles([3.0]) == quantiles([3.0, 3.0])
    with pytest.raises(ValueError, match="no values"):
        quantiles([])


def _scaled(report, factor, runs):
    video = report.videos[0]
    base = video.runs[0]
    rows = tuple(
        dataclasses.replace(
            base,
            stages_ms={k: (v + 10) * factor * (1 + 0.01 * i) for k, v in base.stages_ms.items()},
        )
        for i in range(runs)
    )
    return dataclasses.replace(report, videos=(dataclasses.replace(video, runs=rows),))


def test_compare(report):
    a, b = _scaled(report, 1.0, 5), _scaled(report, 0.5, 5)
    rows = {row.stage: row for row in compare(a, b).rows}
    assert set(rows) == set(STAGES)
    assert {row.verdict for row in rows.values()} == {"faster"}
    assert rows["total"].ratio == pytest.approx(0.5)
    assert {row.verdict for row in compare(b, a).rows} == {"slower"}
    same = compare(a, a)
    assert {row.verdict for row in same.rows} == {"the same within noise"}
    assert same.differences == ()
    assert same.unmatched == ()
    few = compare(_scaled(report, 1.0, 2), b)
    assert {row.verdict for row in few.rows} == {"not decided (fewer than 3 runs)"}
    other = dataclasses.replace(
        b,
        model=dataclasses.replace(b.model, device="cuda:0"),
        videos=(dataclasses.replace(b.videos[0], query="another"),),
    )
    different = compare(a, other)
    assert different.rows == ()
    assert len(different.unmatched) == 2
    assert any("cuda:0" in line for line in different.differences)
    assert "differs: model" in comparison_text(different)


def test_verdict_needs_agreement():
    assert verdict([10, 11, 12], [5, 6, 20]) == "the same within noise"
    assert verdict([10, 11, 12], [9, 9, 9]) == "faster"


def test_host_peak_follows_an_allocation():
    reset = reset_host_peak()
    before = host_memory_mb("VmHWM")
    block = np.ones(64 << 20, np.uint8)
    del block
    peak = host_memory_mb("VmHWM")
    if reset and before is not None:
        assert peak >= before + 32
    assert host_memory_mb() > 1


def _fake_tool(tmp_path, monkeypatch, script):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


def test_device_sampler_reads_what_the_tool_prints(tmp_path, monkeypatch):
    script = "echo '100, 50.0'; echo '300, [N/A]'; echo 'error'; echo '200, 70.0'; exec sleep 30"
    _fake_tool(tmp_path, monkeypatch, script)
    started = time.monotonic()
    with DeviceSampler("cuda:1") as sampler:
        deadline = time.monotonic() + 10
        while len(sampler.watts) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (sampler.peak_mb, sampler.mean_watts) == (300.0, 60.0)
    assert time.monotonic() - started < 20
    with DeviceSampler("cpu") as nothing:
        pass
    assert (nothing.peak_mb, nothing.mean_watts) == (None, None)


def test_tegrastats(tmp_path, monkeypatch):
    orin_nx = (
        "11-22-2026 10:00:00 RAM 3012/7620MB (lfb 4x4MB) SWAP 0/3810MB (cached 0MB) CPU [2%@729,off] "
        "GR3D_FREQ 0% cpu@48.5C VDD_IN 4912mW/4990mW VDD_CPU_GPU_CV 600mW/610mW VDD_SOC 1400mW/1400mW"
    )
    agx = "RAM 9000/62780MB (lfb 1x4MB) VDD_GPU_SOC 3000mW/1mW VDD_CPU_CV 400mW/1mW VIN_SYS_5V0 3600mW/1mW"
    assert parse_tegrastats(orin_nx) == (3012.0, 4.912)
    assert parse_tegrastats(agx) == (9000.0, 7.0)
    assert parse_tegrastats("no such line") == (None, None)
    tool = tmp_path / "tegrastats"
    tool.write_text(f"#!/bin/sh\necho '{orin_nx}'\nexec sleep 30\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with DeviceSampler("cuda:0") as sampler:
        deadline = time.monotonic() + 10
        while not sampler.watts and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (sampler.peak_mb, sampler.mean_watts) == (3012.0, 4.912)


def test_device_description(tmp_path, monkeypatch):
    _fake_tool(
        tmp_path, monkeypatch, "echo 'GPU X, 1.2, 9.0, 8 MiB, 5 MiB, 7 W, 1 MHz, 2 MHz, 3 MHz'"
    )
    assert nvidia_device("cuda:0")["compute_cap"] == "9.0"
    assert free_device_bytes("cuda:0") == 5 << 20
    assert nvidia_device("cpu") == {}
    assert free_device_bytes("cpu") is None
    assert environment("cuda:0").device["name"] == "GPU X"
    _fake_tool(tmp_path, monkeypatch, "exit 9")
    assert nvidia_device("cuda:0") == {}
    assert tool_output(["no-such-tool-anywhere"]) == ""


def test_bad_requests(pipeline, tmp_path):
    settings = SettingsReport(0, 1, True, None)
    with pytest.raises(PromptError, match="at least one video"):
        measure(pipeline, [], settings)
    with pytest.raises(ValueError, match="runs"):
        measure(pipeline, [Case("x", "y")], dataclasses.replace(settings, runs=0))
    with pytest.raises(PromptError, match="both halves"):
        measure(dataclasses.replace(pipeline, tracker=None), [Case("x", "y")], settings)
    with pytest.raises(MediaError):
        measure(pipeline, [Case(str(tmp_path / "none.mp4"), "y")], settings)


def test_command_line(clip, tmp_path, capsys):
    path, query = clip
    out = tmp_path / "a.json"
    arguments = ["bench", "nano", str(path), "--query", query, "--runs", "1", "--warm-up", "0"]
    assert main([*arguments, "--device", "cpu", "--json", str(out)]) == 0
    assert "tokens/s" in capsys.readouterr().out
    assert read_report(out).model.precision["grs/decoder"] == "float32"
    assert main(["bench", "compare", str(out), str(out)]) == 0
    assert "not decided" in capsys.readouterr().out
    for wrong in (["bench", "compare", "a"], ["bench", "nano"], ["bench", "nano", str(path)]):
        assert main(wrong) == 1
    options = ["--no-overlap", "--memory", "2GB", "--frames", "8", "--no-audio", "--encode-ahead"]
    assert main([*arguments, *options, "--json", str(out)]) == 0
    said = capsys.readouterr()
    assert "memory plan" in said.err
    assert "frames decoded in turn" in said.out
    report = read_report(out)
    assert report.settings == SettingsReport(0, 1, False, 8, False, True, "2GB")
    assert report.videos[0].runs[0].stages_ms["overlapped"] == 0.0
    assert main([*arguments, "--memory", "1KB"]) == 1
    assert main([*arguments, "--memory", "much"]) == 1
    assert main([*arguments, "--frames", "0"]) == 1
    assert "num_frames must be at least 1" in capsys.readouterr().err
    assert main([*arguments, "--variant", "none"]) == 1
    assert "has no variant 'none'" in capsys.readouterr().err
