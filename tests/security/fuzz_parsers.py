"""Atheris (coverage-guided) over everything that parses what a stranger wrote. Linux, `pip install atheris`.

    python tests/security/fuzz_parsers.py TARGET [-max_total_time=60 and other options of libFuzzer]

Targets: answer, description, boxes, rle, graph, manifest, moov. An escape, a hang (-timeout) or too much
memory (-rss_limit_mb) ends the run and saves the input.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

# Editable installs come with an import finder of their own, whose modules atheris cannot instrument.
sys.meta_path[:] = [f for f in sys.meta_path if "ScikitBuild" not in type(f).__name__]
sys.path.insert(0, str(Path(__file__).parents[2]))
with atheris.instrument_imports(include=["omni_sdk"]):
    from omni_sdk.bundle.manifest import Manifest
    from omni_sdk.dus.masks_numpy import rle_decode
    from omni_sdk.engines.graph_check import check_graph
    from omni_sdk.errors import OmniError
    from omni_sdk.grs.parser import parse_answer, parse_boxes, parse_description
    from omni_sdk.utils import schema

    sys.path.insert(0, str(Path(__file__).parent))
    import fuzz_moov


def answer(data: bytes) -> None:
    """Parse a reasoner's text; every moment lies in the clip."""
    for segment in parse_answer(data.decode("utf-8", "replace"), 8.0).segments:
        assert 0 <= segment.start_seconds <= segment.end_seconds <= 8.0


def description(data: bytes) -> None:
    """Parse a reasoner's free text."""
    parse_description(data.decode("utf-8", "replace"), 8.0)


def boxes(data: bytes) -> None:
    """Parse a grounder's text; every box lies in the image and has area."""
    for box, _ in parse_boxes(data.decode("utf-8", "replace"), width=60, height=40):
        assert 0 <= box[0] < box[2] <= 60
        assert 0 <= box[1] < box[3] <= 40


def rle(data: bytes) -> None:
    """Decode a mask; it has the size that was asked for."""
    assert rle_decode(data, (9, 7)).shape == (9, 7)


def graph(data: bytes) -> None:
    """Check an ONNX file."""
    check_graph(data, "g", "grs/a.onnx", {"grs/a.data": 100})


def manifest(data: bytes) -> None:
    """Read a manifest."""
    try:
        schema.from_dict(Manifest, json.loads(data))
    except (schema.SchemaError, ValueError, RecursionError):
        return


def moov(data: bytes) -> None:
    """Index an MP4 file from its header; a table must be one that decoding can rely on."""
    fuzz_moov.judge(data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    f.__name__: f for f in (answer, description, boxes, rle, graph, manifest, moov)
}


_MOMENT = '{"start_time": "00:01.5", "end_time": 3, "description": "a \\"red\\" disk {1}"}'
_BOX = '{"bbox_2d": [1, 2, 30.5, 4e1], "label": "a disk"}'
SEEDS = {
    "answer": [
        f"<think>x</think><answer>[{_MOMENT},{_MOMENT}]</answer>",
        f"```json\n{_MOMENT},```",
    ],
    "description": ["<think>x</think><answer>a red disk</answer>", "a red disk"],
    "boxes": [f"```json\n[{_BOX}, {_BOX}]\n```", "{'bbox_2d': (1, 2, NaN, 1e999),}"],
    "rle": ["0?", "1R2O0", "o1"],
    "graph": [],
    "manifest": ['{"schema_version": 1, "name": "x", "files": {"a": {"size": 1, "sha256": ""}}}'],
}


def main() -> None:
    """Run the command line."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(__doc__)
    target = TARGETS[sys.argv.pop(1)]

    def once(data: bytes) -> None:
        try:
            target(data)
        except OmniError:
            return

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS.get(target.__name__, [])):
            (Path(corpus) / str(number)).write_text(seed)
        if target is moov:
            fuzz_moov.make_corpus(Path(corpus))
        length = 20_000 if target is moov else 2000
        options = ["-timeout=10", "-rss_limit_mb=2048", f"-max_len={length}", *sys.argv[1:], corpus]
        atheris.Setup([sys.argv[0], *options], once)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
