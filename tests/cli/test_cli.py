"""The command line: what it prints, and its exit codes."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from omni_sdk.cli import COMMANDS, build_parser, main
from omni_sdk.cli.options import read_pipeline
from omni_sdk.config import GenerationConfig, PipelineConfig, SamplingConfig, TrackingConfig
from omni_sdk.demo.clip import SceneTruth

Clips = dict[str, tuple[Path, SceneTruth]]


def test_run(clips: Clips, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, truth = clips["sound"]
    assert main(["run", str(path), truth.query, "--device", "cpu", "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "status:   found" in out
    assert re.search(
        rf"keyframe: [\d.]+-[\d.]+ s, frame \d+ \([\d.]+ s\): {truth.description}", out
    )
    assert "does not understand natural video" in err
    assert "omni-export onnx --grs" in err
    value = json.loads((tmp_path / "result.json").read_text())
    assert value["status"] == "found"
    assert (tmp_path / "overlay.mp4").is_file()


def test_run_prints_json(clips: Clips, capsys: pytest.CaptureFixture[str]) -> None:
    path, truth = clips["null"]
    assert main(["run", str(path), truth.query, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "absent"


def test_real_clips(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Natural video, which the shipped models do not understand, ends in a result all the same."""
    for name in ("refavs_demo.mp4", "02_cups.mp4"):
        folder = tmp_path / name
        arguments = ["run", str(shared / "media" / name), "the red shape", "--out", str(folder)]
        assert main(arguments) == 0
        value = json.loads((folder / "result.json").read_text())
        assert value["status"] in ("found", "absent", "unparsed")
        counts = {len(t["frames"]) for t in value["tracks"]}
        assert counts <= {value["video"]["num_frames"]}
        assert "does not understand natural video" in capsys.readouterr().err


def test_strict(clips: Clips, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    image = tmp_path / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 300, 3), np.uint8)
    with av.open(str(image), "w", format="image2") as out:
        stream = out.add_stream("png", rate=1)
        stream.height, stream.width, stream.pix_fmt = 64, 300, "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))
    code = main(["run", str(image), "What does the man hold?", "--json"])
    assert code == 0
    captured = capsys.readouterr()
    status = json.loads(captured.out)["status"]
    strict = main(["run", str(image), "What does the man hold?", "--strict"])
    assert strict == (1 if status == "unparsed" else 0)
    assert (status == "unparsed") == ("no readable answer" in captured.err)


def test_ask(clips: Clips, capsys: pytest.CaptureFixture[str]) -> None:
    path, truth = clips["direct"]
    assert main(["ask", str(path), truth.query]) == 0
    assert capsys.readouterr().out.strip()


def test_inspect(clips: Clips, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(clips["direct"][0])]) == 0
    assert "192x192, 64 frames, 8.000 fps, 8.000 s" in capsys.readouterr().out
    assert main(["inspect", "nano"]) == 0
    out = capsys.readouterr().out
    assert "all verified" in out
    assert "dus/memory_attention" in out
    assert "tracked clip" in out


def test_doctor_runs_a_real_graph(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "CPUExecutionProvider" in out
    assert "native kernels: in use" in out


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = tmp_path / "scores.json"
    out = tmp_path / "out"
    assert main(["demo", "--clips", "1", "--out", str(out), "--json", str(scores)]) == 0
    printed = capsys.readouterr().out
    for word in ("query:", "thinking:", "answer:", "J&F", "propagate", "tracker alone"):
        assert word in printed
    (row,) = json.loads(scores.read_text())
    assert (row["clip"], row["score"]["family"]) == ("direct_5000000", "direct")
    assert row["score"]["right_description"] == 1.0
    assert (out / "direct_5000000.mp4").is_file()
    assert (out / "direct_5000000" / "overlay.mp4").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.mp4", "the circle"], "no such file"),
        (["run", "nowhere.mp4", "the circle", "--frames", "0"], "num_frames must be at least 1"),
        (["run", "x.mp4", "q", "--bundle", "no/such"], "could not be downloaded"),
        (["run", "x.mp4", "q", "--bundle", "x"], "not a directory"),
        (["run", "x.mp4", "q", "--bundle", __file__], "not a directory"),
        (["run", "x.mp4", "q", "--device", "gpu"], "device must be"),
        (["run", "x.mp4", "q", "--device", "cuda:x"], "device must be"),
        (["run", "x.mp4", "q", "--tracker", "x"], "tracker= is for backend='torch'"),
        (["run", "x.mp4", "q", "--backend", "torch"], "with --tracker"),
        (["run", "x.mp4", "q", "--backend", "torch", "--tracker", "x"], "not a directory"),
        (["run", "x.mp4", "q", "--temperature", "nan"], "temperature must be finite"),
        (["run", "x.mp4", "q", "--memory", "much"], "expected a size"),
        (["run", "x.mp4", "q", "--stride", "99"], "stride must be in [1, 32]"),
        (["run", "x.mp4", "q", "--pixels", "fast", "--parity", "hf"], "contradict"),
        (["run", ".", "q"], "is a directory"),
        (["ask", "nowhere.mp4", "q"], "no such file"),
        (["inspect", "nowhere.mp4"], "no such file"),
        (["demo", "--clips", "0"], "at least 1"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("OMNI_SDK_OFFLINE", "1")
    monkeypatch.setenv("OMNI_SDK_CACHE", str(tmp_path))
    assert main(arguments) == 1
    err = capsys.readouterr().err
    last = err.strip().splitlines()[-1]
    assert last.startswith("omni-sdk: ")
    assert message in last


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["run", "x.mp4"],
        ["run", "a", "b", "--fast"],
        ["run", "a", "b", "--out", __file__],
        ["run", "a", "b", "--out", f"{__file__}/inside"],
        ["run", "a", "b", "--out", "x" * 5000],
        ["run", "a", "b", "--stride", "often"],
        ["run", "a", "b", "--pixels", "nice"],
        ["demo", "--json", "no/such/folder/scores.json"],
        ["demo", "--json", "."],
        ["demo", "--out", __file__],
        ["bench", "nano", "x.mp4", "--query", "q", "--json", "no/such/file.json"],
        ["eval", "check", "revos", ".", "--json", "no/such/file.json"],
        ["eval", "revos", ".", "--out", __file__],
        ["eval", "revos", ".", "--out", "o", "--limit", "some"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("omni-sdk")


def test_a_command_loads_its_own_module_alone() -> None:
    code = (
        "import sys\nfrom omni_sdk.cli import build_parser\n"
        "build_parser().parse_args(['run', 'a', 'b'])\n"
        "print(*sorted(m for m in sys.modules if m.startswith('omni_sdk.cli.')))\n"
        "print(*{'numpy', 'av', 'torch', 'onnxruntime', 'tokenizers'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, heavy = out.stdout.split("\n")[:2]
    assert loaded.split() == [
        f"omni_sdk.cli.{name}" for name in ("common", "logs", "options", "run")
    ]
    assert heavy == ""


def test_progress_and_logs_are_on_stderr(clips: Clips, capsys: pytest.CaptureFixture[str]) -> None:
    path, truth = clips["direct"]
    assert main(["-v", "run", str(path), truth.query, "--json", "--memory", "2GB"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == "found"
    assert "reasoning: found, 1 keyframe, " in err
    assert "grounding: 1 box, " in err
    assert "tracking: 64/64 frames, " in err
    assert err.count("memory plan: ") == 1
    assert "INFO omni_sdk.loading: memory plan" in err


def test_all_options_of_a_run_reach_it() -> None:
    """Every field but the models' providers, on the commands that run the pipeline."""
    words = "--frames 3 --no-audio --parity fast --keyframes 2 --stride auto --no-overlap --stop a --stop b"
    given = build_parser().parse_args(["run", "a", "b", *words.split(), "--second-looks", "0"])
    assert read_pipeline(given) == PipelineConfig(
        sampling=SamplingConfig(3, audio=False, pixels="fast"),
        generation=GenerationConfig(stop=("a", "b")),
        tracking=TrackingConfig(2, second_looks=0, stride="auto"),
        overlap=False,
        on_parse_error="empty",
    )
    plain = build_parser().parse_args(["eval", "revos", "a", "--out", "o"])
    assert read_pipeline(plain) == PipelineConfig()
    for parser in (["run", "a", "b"], ["eval", "run", "revos", "a", "--out", "o"]):
        for part in (SamplingConfig, GenerationConfig, TrackingConfig, PipelineConfig):
            for field in dataclasses.fields(part):
                if isinstance(field.default, bool):
                    flag = f"--no-{field.name.replace('_', '-')}"
                    assert not getattr(build_parser().parse_args([*parser, flag]), field.name)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert command in capsys.readouterr().out


def test_help_is_light() -> None:
    """`omni-sdk --help` loads no numpy, no PyAV, no engine."""
    code = (
        "import sys\nfrom omni_sdk.cli import build_parser\nbuild_parser().format_help()\n"
        "print(sorted({'numpy', 'av', 'torch', 'onnxruntime', 'tokenizers'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("missing", ["torch", "transformers"])
@pytest.mark.parametrize("command", [["run", "x", "q", "--tracker", "nano"], ["ask", "x", "q"]])
def test_torch_that_is_not_installed(command: list[str], missing: str) -> None:
    code = (
        f"import sys\nsys.modules[{missing!r}] = None\nfrom omni_sdk.cli import main\n"
        f"sys.exit(main({[*command, '--backend', 'torch', '--bundle', 'nano']!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert line.startswith("omni-sdk: backend 'torch' needs torch and transformers")
    assert line.endswith("pip install 'omni-sdk[torch]'")


def test_the_runtime_needs_no_torch(clips: Clips, tmp_path: Path) -> None:
    """A whole run with torch, transformers and onnx made impossible to import."""
    path, truth = clips["last"]
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'onnx', 'scipy', 'cv2', 'PIL'): sys.modules[name] = None\n"
        "from omni_sdk.cli import main\n"
        f"sys.exit(main(['run', {str(path)!r}, {truth.query!r}, '--out', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "status:   found" in done.stdout
