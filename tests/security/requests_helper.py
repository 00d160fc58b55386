"""Requests on the shipped pipeline, repeated: answers, file handles and memory. Also a command:

python tests/security/requests_helper.py --runs 1000
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from pathlib import Path

from omni_sdk.demo.clip import write_clip
from omni_sdk.demo.scene import make_scene
from omni_sdk.pipeline import Pipeline
from omni_sdk.results import Result

SEEDS = (90_001, 90_002)


def write_clips(folder: Path, size: int, fps: float) -> list[tuple[Path, str]]:
    """Write two clips of the demo's world; return their paths and questions."""
    requests = []
    for number, seed in enumerate(SEEDS):
        path = folder / f"clip{number}.mp4"
        truth = write_clip(make_scene(seed), path, size=(size, size), fps=fps)
        requests.append((path, truth.query))
    return requests


def answer(result: Result) -> str:
    """Return result.json without what may differ: the timings."""
    value = result.to_dict()
    del value["timings_ms"]
    return json.dumps(value, sort_keys=True)


def open_files() -> int:
    """Return the number of open file handles of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_mib() -> float:
    """Return this process's resident memory now."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096 / (1 << 20)


def abandon(pipeline: Pipeline, path: Path, query: str, events: int) -> None:
    """Start a request and walk away after some events."""
    stream = pipeline.stream(path, query)
    for _ in range(events):
        if next(stream, None) is None:
            break
    stream.close()


def repeat(
    pipeline: Pipeline, requests: list[tuple[Path, str]], runs: int, *, show: bool = False
) -> list[tuple[int, int, float]]:
    """Ask the same again and again, and abandon every fifth request midway.

    Returns:
        (run, open files, resident MiB) ten times over the runs.

    Raises:
        AssertionError: an answer differs from the first.
    """
    first = [answer(pipeline(*request)) for request in requests]
    for request in requests:  # let allocators and pools settle
        abandon(pipeline, *request, 4)
        pipeline(*request)
    rows = []
    for run in range(runs):
        which = run % len(requests)
        if run % 5 == 4:
            abandon(pipeline, *requests[which], 1 + run % 7)
        else:
            assert answer(pipeline(*requests[which])) == first[which], f"run {run} differs"
        if run % max(runs // 10, 1) == 0 or run == runs - 1:
            gc.collect()
            rows.append((run, open_files(), resident_mib()))
            if show:
                print("{:>6}{:>12}{:>14.1f}".format(*rows[-1]), flush=True)
    return rows


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--fps", type=float, default=1.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        requests = write_clips(Path(folder), arguments.size, arguments.fps)
        pipeline = Pipeline.from_pretrained("nano", device="cpu")
        started = time.monotonic()
        print("   run  open files  resident MiB")
        rows = repeat(pipeline, requests, arguments.runs, show=True)
    print(f"{arguments.runs} runs in {time.monotonic() - started:.0f} s")
    return 0 if rows[-1][1] <= rows[0][1] else 1


if __name__ == "__main__":
    sys.exit(main())
