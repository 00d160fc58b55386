"""The public names: lazy at run time, typed for checkers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import omni_sdk


def test_every_name_is_written_alike() -> None:
    """In `__all__`, among the lazy names, and in the imports that type checkers see."""
    assert len(set(omni_sdk.__all__)) == len(omni_sdk.__all__)
    assert {*omni_sdk._LAZY, "__version__"} == set(omni_sdk.__all__)
    tree = ast.parse(Path(omni_sdk.__file__).read_text(encoding="utf-8"))
    (block,) = (n for n in tree.body if isinstance(n, ast.If))
    seen = {a.name: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert seen == omni_sdk._LAZY


def test_a_program_that_uses_all_names_passes_a_strict_checker(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    names = [name for name in omni_sdk.__all__ if name != "__version__"]
    program.write_text(
        f"from omni_sdk import {', '.join(names)}\n\n"
        "def ask(source: Source, on_event: list[Event]) -> Result:\n"
        "    pipe = Pipeline.from_pretrained('nano', limits=MediaLimits(max_frames=9))\n"
        "    config = PipelineConfig(sampling=SamplingConfig(8, pixels='fast'))\n"
        "    for event in pipe.stream(source, 'who?', config=config):\n"
        "        if isinstance(event, Frame):\n"
        "            print(event.frame_index + 1)\n"
        "    return pipe(source, 'who?', config=config, on_event=on_event.append)\n\n"
        f"print({', '.join(n for n in names if n not in ('Event', 'Source'))})\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
