"""A native module that is there and does not load is told once, with the reason; a missing one is not."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from omni_sdk import native

PROGRAM = """
import importlib.util, json, logging, sys
from pathlib import Path

kind, file = sys.argv[1:]

class Finder:
    # Finds the module where the test says, or nowhere; all else as before.

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name != "omni_sdk._core":
            return self.finder.find_spec(name, path, target)
        return importlib.util.spec_from_file_location(name, file) if kind == "broken" else None

if kind != "as it is":
    sys.meta_path[:] = [Finder(finder) for finder in sys.meta_path]

records = []
class Handler(logging.Handler):
    def emit(self, record):
        records.append([record.levelname, record.getMessage()])
logging.getLogger().addHandler(Handler())

import numpy as np
from omni_sdk import native
from omni_sdk.dus.masks import rle_encode

rles = [rle_encode(np.eye(4, dtype=bool)) for _ in range(2)]
print(json.dumps({"records": records, "available": native.available(), "state": native.state(),
                  "rle": str(rles)}))
"""


def _run(kind: str, file: Path | str = "", **environment: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, str(file)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def _module() -> Path:
    spec = importlib.util.find_spec("omni_sdk._core")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


@pytest.fixture(scope="module")
def usual() -> dict[str, object]:
    return _run("as it is")


@pytest.mark.usefixtures("built")
def test_in_use(usual: dict[str, object]) -> None:
    assert (usual["state"], usual["available"], usual["records"]) == ("in use", True, [])


@pytest.mark.usefixtures("built")
def test_a_cut_file_is_one_warning_with_the_reason(
    usual: dict[str, object], tmp_path: Path
) -> None:
    broken = tmp_path / _module().name
    shutil.copyfile(_module(), broken)
    os.truncate(broken, 40)
    found = _run("broken", broken)
    ((level, message),) = found["records"]  # type: ignore[misc]
    assert level == "WARNING"
    assert "omni_sdk._core does not load" in message
    assert str(broken) in message  # the dynamic linker's own words
    assert found["available"] is False
    assert str(found["state"]).startswith("failed: ImportError: ")
    assert found["rle"] == usual["rle"]  # numpy goes on


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import a_library_that_is_missing", "ModuleNotFoundError: No module named 'a_library"),
        ("raise ImportError('numpy.core.multiarray failed to import')", "numpy.core.multiarray"),
        ("raise RuntimeError('module compiled against ABI 9')", "RuntimeError: module compiled"),
    ],
)
def test_what_raises_when_it_is_loaded(tmp_path: Path, code: str, reason: str) -> None:
    file = tmp_path / "_core.py"
    file.write_text(code)
    found = _run("broken", file)
    ((level, message),) = found["records"]  # type: ignore[misc]
    assert (level, reason in message) == ("WARNING", True)
    assert reason in str(found["state"])


def test_a_module_that_was_not_built_is_silent(usual: dict[str, object]) -> None:
    found = _run("absent")
    assert (found["state"], found["available"], found["records"]) == ("absent", False, [])
    assert found["rle"] == usual["rle"]


def test_switched_off() -> None:
    found = _run("as it is", OMNI_SDK_NO_NATIVE="1")
    assert found["state"] == "switched off by OMNI_SDK_NO_NATIVE"
    assert (found["available"], found["records"]) == (False, [])


def test_a_bench_report_says_what_is_in_use() -> None:
    from omni_sdk.bench.environment import environment

    assert environment("cpu").native == native.state()
