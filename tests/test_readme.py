"""README.md is true: its Python runs, its commands parse or run, its options and paths exist.

Whatever looks like code and is understood by nothing here fails, so that nothing is skipped in silence.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import omni_export.cli
import omni_training.cli
import pytest

import omni_sdk
import omni_sdk.cli
from omni_sdk import Keyframe, Pipeline
from omni_sdk.demo.clip import SceneTruth

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "omni-sdk": omni_sdk.cli.build_parser,
    "omni-export": omni_export.cli.build_parser,
    "omni-train": omni_training.cli.build_parser,
}
RUN = {
    "omni-sdk demo": "omni-sdk demo --clips 1",
    "omni-sdk run VIDEO QUERY": "omni-sdk run concert.mp4 QUERY",
    "omni-sdk ask VIDEO QUESTION": "omni-sdk ask concert.mp4 QUERY",
    "omni-sdk inspect BUNDLE": "omni-sdk inspect nano",
    "omni-sdk inspect VIDEO": "omni-sdk inspect concert.mp4",
    "omni-sdk verify BUNDLE": "omni-sdk verify nano",
    "omni-sdk doctor": "omni-sdk doctor",
}
"""Commands of the README that also run, offline and in seconds, and how."""

PLACEHOLDERS = {"DATASET": "revos"}
"""What parsers want in the place of a word in capitals."""


@dataclass(frozen=True)
class Code:
    """A piece of code and the line it begins on."""

    line: int
    text: str


def fenced_blocks(text: str) -> list[Code]:
    """Return the Python blocks; a fenced block of any other language is not understood."""
    found = []
    for match in re.finditer(r"^```(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE):
        line = text.count("\n", 0, match.start()) + 1
        assert match[1] == "python", f"line {line}: nothing tests a block of {match[1]!r}"
        found.append(Code(line + 1, match[2]))
    assert 2 * len(found) == len(re.findall("^ *```", text, re.MULTILINE)), "a fence is not closed"
    return found


def without_fenced(text: str) -> str:
    """Return the text with its fenced blocks blanked, so that lines keep their numbers."""
    return re.sub(
        r"^```.*\n(?:.*\n)*?```$", lambda m: "\n" * m[0].count("\n"), text, flags=re.MULTILINE
    )


def indented_lines(text: str) -> list[Code]:
    """Return the lines of indented blocks."""
    lines = enumerate(without_fenced(text).split("\n"), 1)
    return [Code(at, line.strip()) for at, line in lines if re.match("    |\t", line)]


def spans(text: str) -> Iterator[Code]:
    """Yield what stands in single backticks; `A|B` is two spans, and a span may go on in the next line."""
    rest = re.sub(
        "^(?:    |\t).*$", "", without_fenced(text), flags=re.MULTILINE
    )  # those are indented blocks
    for match in re.finditer(r"`([^`]+)`", rest):
        line, words = rest.count("\n", 0, match.start()) + 1, " ".join(match[1].split())
        head, _, last = words.replace(r"\|", "|").rpartition(" ")
        yield from (Code(line, f"{head} {each}".strip()) for each in last.split("|"))


def commands(text: str) -> list[Code]:
    """Return every command line of our programs, and of a table's row also those that drop the name."""
    found = []
    for code in indented_lines(text):
        for part in code.text.split(" && "):
            if part.split()[0] in PROGRAMS:
                found.append(Code(code.line, part))
            else:
                check_other(Code(code.line, part))
    program = {
        at: match[1]
        for at, row in enumerate(text.split("\n"), 1)
        if row.startswith("|") and (match := re.search("`(omni-[a-z]+) ", row))
    }
    for code in spans(text):
        first = code.text.split()[0]
        if first == code.text and first in PROGRAMS:
            continue
        if first.startswith("omni-"):
            assert first in PROGRAMS, f"line {code.line}: no program for {code.text!r}"
            found.append(code)
        elif code.line in program and not first.startswith("-"):
            found.append(Code(code.line, f"{program[code.line]} {code.text}"))
    return found


def check_other(code: Code) -> None:
    """Check what else stands in an indented block: an installation, a script, or the picture of the parts."""
    where = f"line {code.line}: {code.text!r}"
    if match := re.fullmatch(r'pip install "\.\[(\w+)\]"', code.text):
        extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert re.search(rf"^{match[1]} = \[", extras, re.MULTILINE), f"{where}: no such extra"
    elif code.text.startswith("./"):
        assert os.access(ROOT / code.text, os.X_OK), f"{where}: no such script"
    elif "──>" in code.text:
        for part in code.text.split("──>"):
            path = ROOT / "omni_sdk" / part.split()[0]
            assert path.is_dir() or path.with_suffix(".py").is_file(), f"{where}: {part!r}"
    else:
        pytest.fail(f"{where}: nothing tests this")


def parse(code: Code, capsys: pytest.CaptureFixture[str]) -> None:
    """Parse a command with its real parser; one that is only named must have a help of its own."""
    name, *words = (PLACEHOLDERS.get(word, word) for word in shlex.split(code.text))
    try:
        PROGRAMS[name]().parse_args(words)
    except SystemExit:
        error = capsys.readouterr().err.strip().split("\n")[-1]
        with pytest.raises(SystemExit):
            PROGRAMS[name]().parse_args([*words, "--help"])
        is_name = capsys.readouterr().out.startswith(f"usage: {' '.join([name, *words])} ")
        lacks = "are required" in error
        assert (is_name, lacks) == (True, True), f"line {code.line}: {code.text!r}: {error}"


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Return the options of a parser and of its commands."""
    if isinstance(parser, omni_sdk.cli.Parser):
        parser.declare()
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found = found.union(*map(options_of, action.choices.values()))
    return found


def check_options(text: str) -> int:
    """Check that every option named on its own exists; return how many there are."""
    known = set[str]().union(*(options_of(build()) for build in PROGRAMS.values()))
    named = [code for code in spans(text) if re.match("--?[a-z]", code.text)]
    for code in named:
        assert code.text.split()[0] in known, f"line {code.line}: no option {code.text!r}"
    return len(named)


def run_python(text: str, substitutions: dict[str, str], namespace: dict[str, Any]) -> None:
    """Run the Python blocks in order; what one imports is gone in the next, which must import it itself."""
    for old in substitutions:
        assert old in text, f"README.md has no {old} any more"
    for code in fenced_blocks(text):
        source = code.text
        for old, new in substitutions.items():
            source = source.replace(old, new)
        exec(compile(source, f"README.md, the block of line {code.line}", "exec"), namespace)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    namespace.pop(alias.asname or alias.name)


def test_the_python_runs(
    pipe: Pipeline, clips: dict[str, tuple[Path, SceneTruth]], tmp_path: Path
) -> None:
    """On a clip with sound that the shipped models understand, in the place of the concert."""
    path, truth = clips["sound"]
    substitutions = {
        '"concert.mp4"': repr(str(path)),
        '"Who starts singing first?"': repr(truth.query),
        '"out/"': repr(str(tmp_path / "out")),
    }
    boxes = np.array([[40.0, 40.0, 90.0, 90.0]], np.float32)
    keyframes: tuple[Keyframe, ...] = pipe.reason(path, truth.query).keyframes
    assert keyframes
    left_to_the_reader: dict[str, Any] = {
        "source": path,
        "query": truth.query,
        "keyframes": keyframes,
        "boxes": boxes,
    }
    namespace = dict(left_to_the_reader)
    run_python(README, substitutions, namespace)
    assert namespace["result"].status == "found"
    assert namespace["mask"].shape == (192, 192)
    assert isinstance(namespace["event"], omni_sdk.Finished)
    saved = {p.name for p in (tmp_path / "out").iterdir()}
    assert saved == {"result.json", "masks", "overlay.mp4"}


@pytest.mark.parametrize(
    "code", {c.text: c for c in commands(README)}.values(), ids=lambda code: code.text
)
def test_a_command(
    code: Code,
    clips: dict[str, tuple[Path, SceneTruth]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parse(code, capsys)
    if code.text not in RUN:
        return
    path, truth = clips["sound"]
    stand_ins = {"concert.mp4": str(path), "QUERY": truth.query}
    monkeypatch.chdir(tmp_path)
    _, *words = shlex.split(RUN[code.text])
    assert omni_sdk.cli.main([stand_ins.get(word, word) for word in words]) == 0
    assert capsys.readouterr().out.strip()


def test_all_that_can_run_is_named() -> None:
    found = {code.text for code in commands(README)}
    assert set(RUN) <= found
    assert {code.split()[0] for code in found} == set(PROGRAMS)


def test_the_options_exist() -> None:
    assert check_options(README) >= 5


def test_the_paths_exist() -> None:
    """Folders, and files of Python and text."""
    named = [c.text for c in spans(README) if re.fullmatch(r"\w+(/\w+)*(/|\.py|\.md|\.sh)", c.text)]
    assert len(named) >= 8
    assert [name for name in named if not (ROOT / name).exists()] == []


WRONG_COMMANDS = """
Run `omni-sdk fly`, or

    omni-sdk run a b --no-such-option

| command | |
|---|---|
| `omni-export onnx`, `melt`, `--force` | |
| `omni-sdk bench` | also `bench a b` |
| `omni-sdk eval score revos` | |
"""


def test_wrong_commands_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    found = commands(WRONG_COMMANDS)
    assert [(code.line, code.text) for code in found] == [
        (4, "omni-sdk run a b --no-such-option"),
        (2, "omni-sdk fly"),
        (8, "omni-export onnx"),
        (8, "omni-export melt"),
        (9, "omni-sdk bench"),
        (9, "omni-sdk bench a b"),
        (10, "omni-sdk eval score revos"),
    ]
    for code, message in zip(
        found,
        ("unrecognized", "invalid choice", None, "invalid choice", None, None, "are required"),
        strict=True,
    ):
        if message is None:
            parse(code, capsys)
        else:
            with pytest.raises(AssertionError, match=message):
                parse(code, capsys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n    make it so\n", "line 2: 'make it so': nothing tests this"),
        ('\n    pip install ".[everything]"\n', "no such extra"),
        ("\n    ./no_such_script.sh\n", "no such script"),
        ("\n    media ──> magic ──> results\n", "magic"),
        ("Use `omni-flow run`.\n", "omni-flow run"),
    ],
)
def test_what_is_not_understood_fails(text: str, message: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception), match=message):
        commands(text)


def test_blocks_that_fail_are_found() -> None:
    good = "```python\nfrom math import pi\nx = pi\n```\n"
    namespace: dict[str, Any] = {}
    run_python(good, {}, namespace)
    assert "x" in namespace
    with pytest.raises(NameError, match="pi"):
        run_python(f"{good}\n```python\nprint(x, pi)\n```\n", {}, {})
    with pytest.raises(AssertionError, match="no 'b' any more"):
        run_python(good, {"'b'": "'c'"}, {})
    with pytest.raises(AssertionError, match="line 1: nothing tests a block of 'rust'"):
        fenced_blocks("```rust\nfn main() {}\n```\n")
    with pytest.raises(AssertionError, match="not closed"):
        fenced_blocks("```python\nx = 1\n")
    with pytest.raises(AssertionError, match="no option '--no-such 3'"):
        check_options("Say `--pixels fast`, `-v` or `--no-such 3`.")
