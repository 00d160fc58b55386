"""Frame sampling against its peers: wall and CPU time, peak memory, exactness.

    python benchmarks/sampling.py [--quick] [--json PATH] [--clips DIR] [--rounds N] [--only TEXT]

Every implementation is a process of its own and every measurement a fork of it (`sampling_peers.py`);
within a round all run once, in an order that turns round. Ratios are medians over rounds of the ratio
within a round. Exactness: a full decode with PyAV and torch's resize is the truth. An implementation that
took more than four times the fastest one's time decides nothing: it runs two rounds of each case.

Three rows are no peers. "one container": `MediaLimits(max_containers=1)`. "no frame skipped": our plan
with every frame decoded, so that what is left of the distance to torchcodec is FFmpeg's version and the
rest of the plan. "bare decode": only the packets of our plan, from an index at hand: the limit. The rows
"frames and sound" compare one pass over the container for both with two.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import sampling_clips as clips
from harness import OURS, Benchmark, make_parser, percentile, shared_directory
from sampling_peers import IMPLEMENTATIONS, SOUND_APART, SOUND_TOGETHER, Size, pyav

from omni_sdk.media.select import linspace_indices

SMALL = (252, 448)
BARE = "bare decode"
NO_SKIP, LEAN = "omni-sdk, no frame skipped", "omni-sdk, one container"
SAMPLE_KEYS = ("wall", "cpu", "rss_mb")
SLOW = 4.0  # times the fastest one's wall time
SLOW_ROUNDS = 2
Runs = dict[str, dict[int, dict[str, float]]]  # by implementation, by round


@dataclass(frozen=True)
class Case:
    """One job: which frames of which clip, how large; `kind` chooses the bars."""

    name: str
    path: Path
    indices: list[int]
    size: Size
    kind: str  # "sparse", "short", "other" or "sound"


class Peer:
    """A process that answers sampling jobs."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("sampling_peers.py")), name]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.missing: str | None = self._answer().get("missing")

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"missing": "it ended", "failed": "it ended"}

    def run(self, case: Case, warm_up: Path, save: Path | None) -> dict[str, Any]:
        """Run a case once; {"failed": why} where it does not work."""
        assert self._process.stdin is not None
        job = {
            "path": str(case.path),
            "warm_up": str(warm_up),
            "indices": case.indices,
            "size": case.size,
            "save": str(save) if save else None,
        }
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def count_frames(path: Path) -> int:
    """Count the frames of a clip by its packets."""
    with av.open(str(path)) as container:
        return sum(p.size > 0 for p in container.demux(video=0))


def uniform(
    name: str, path: Path, count: int = 32, kind: str = "sparse", size: Size = SMALL
) -> Case:
    """Return the case of `count` frames, evenly spread."""
    total = count_frames(path)
    indices = np.unique(linspace_indices(total, min(count, total))).tolist()
    return Case(name, path, indices, size, kind)


def keyframes(name: str, path: Path) -> Case:
    """Return the case of four frames at full resolution."""
    total = count_frames(path)
    indices = [int(total * share) for share in (0.11, 0.37, 0.62, 0.93)]
    return Case(name, path, indices, None, "sparse")


def all_cases(folder: Path, *, quick: bool) -> list[Case]:
    """Make the clips and list the cases."""
    shared = shared_directory() / "media"
    short = [p for p in (shared / "refavs_demo.mp4", shared / "02_cups.mp4") if p.exists()]
    if quick:
        plan = clips.make(clips.H264_10S, folder)
        cases = [uniform("8 of 10 s, GOP 30", plan, 8), keyframes("4 full size, GOP 30", plan)]
    else:
        g30 = clips.make(clips.H264_60S, folder)
        cases = [
            uniform("32 of 60 s, GOP 30", g30),
            uniform("32 of 60 s, GOP 250", clips.make(clips.H264_LONG_GROUPS, folder)),
            uniform("32 of 5 min, GOP 30", clips.make(clips.H264_5MIN, folder)),
            uniform("32 of 60 s, HEVC", clips.make(clips.HEVC, folder)),
            uniform("32 of 60 s, VP9", clips.make(clips.VP9, folder)),
            uniform("2 fps over 60 s", g30, 120, "other"),
            keyframes("4 full size, GOP 30", g30),
        ]
    cases += [uniform(path.stem, path, kind="short") for path in short]
    for path in short[-1:]:
        other = clips.remux(path, folder, "mkv")
        cases += [uniform(f"{p.name}, frames and sound", p, kind="sound") for p in (path, other)]
    return cases


def exactness(truth: np.ndarray, frames: np.ndarray | None) -> str:
    """Say how many frames are equal to the last byte, and how far off the others are."""
    if frames is None:
        return "-"
    if frames.shape != truth.shape:
        return f"shape {frames.shape} instead of {truth.shape}"
    equal = sum(np.array_equal(a, b) for a, b in zip(frames, truth, strict=True))
    if equal == len(truth):
        return f"{equal}/{len(truth)} byte-equal"
    errors = [
        float(np.mean((a.astype(np.float32) - b) ** 2)) for a, b in zip(frames, truth, strict=True)
    ]
    worst = 10 * np.log10(255**2 / max(errors))
    return f"{equal}/{len(truth)} byte-equal, worst {worst:.1f} dB"


def measure(bench: Benchmark, peers: dict[str, Peer], case: Case, warm_up: Path) -> None:
    """Run all rounds of a case and add its rows and bars."""
    case.path.read_bytes()  # all find it in the page cache
    truth = pyav()(str(case.path), case.indices, case.size)
    runs: Runs = {n: {} for n, p in peers.items() if not p.missing}
    notes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(bench.rounds):
            for name in list(runs) if turn % 2 == 0 else list(runs)[::-1]:
                if name in notes and notes[name].startswith("failed"):
                    continue
                if turn >= SLOW_ROUNDS and is_slow(runs, name):
                    continue
                saved = Path(folder) / "frames.npy" if turn == 0 else None
                answer = peers[name].run(case, warm_up, saved)
                if "failed" in answer:
                    notes[name] = f"failed: {answer['failed']}"
                    continue
                runs[name][turn] = answer
                if saved is not None:
                    notes[name] = exactness(truth, np.load(saved) if saved.exists() else None)
                    saved.unlink(missing_ok=True)
    for name, peer in peers.items():
        row = make_row(case, name, peer, runs, notes.get(name))
        bench.rows.append(row)
        print(format_row(row), flush=True)
    add_bars(bench, case, {n: r for n, r in runs.items() if r})


def is_slow(runs: Runs, name: str) -> bool:
    """Tell whether an implementation's first round was far behind the fastest one's."""
    return runs[name][0]["wall"] > SLOW * min(r[0]["wall"] for r in runs.values() if 0 in r)


def make_row(
    case: Case,
    name: str,
    peer: Peer,
    runs: Runs,
    note: str | None,
) -> dict[str, Any]:
    """Summarise one implementation's rounds."""
    row: dict[str, Any] = {"case": case.name, "implementation": name}
    if peer.missing or not runs.get(name):
        return row | {"missing": peer.missing or note or "no run"}
    wall, cpu, rss = ([r[key] for r in runs[name].values()] for key in SAMPLE_KEYS)
    row |= {
        "wall_s": statistics.median(wall),
        "wall_p90_s": percentile(wall, 0.9),
        "cpu_s": statistics.median(cpu),
        "cpu_p90_s": percentile(cpu, 0.9),
        "rounds": len(wall),
        "peak_rss_mb": statistics.median(rss),
        "quality": note,
    }
    if name != OURS and runs.get(OURS):
        row["ratio_wall"] = ratio(runs, name, OURS, "wall")
        row["ratio"] = ratio(runs, name, OURS, "cpu")
    return row


def ratio(runs: Runs, over: str, under: str, key: str) -> float:
    """Return the median over their common rounds of one implementation's figure by another's."""
    both = sorted(runs[over].keys() & runs[under].keys())
    return statistics.median(runs[over][n][key] / runs[under][n][key] for n in both)


def add_bars(bench: Benchmark, case: Case, runs: Runs) -> None:
    """Judge a case: against the fastest and the leanest peer, and against the limit.

    The leanest peer's memory becomes a row, for the table.
    """
    others = [name for name in runs if name not in (OURS, LEAN, NO_SKIP, BARE)]
    if OURS not in runs or case.kind == "sound":
        return
    if others and case.kind in ("sparse", "short"):
        least = 1.5 if case.kind == "sparse" else 0.95
        value = min(ratio(runs, name, OURS, "wall") for name in others)
        bench.bar_value(f"wall, {case.name}", value, at_least=least)
    if others:
        memory = {
            n: statistics.median(r["rss_mb"] for r in runs[n].values()) for n in [*others, OURS]
        }
        leanest = min(memory[n] for n in others)
        bench.rows.append(
            {"case": case.name, "implementation": "leanest peer", "peak_rss_mb": leanest}
        )
        bench.bar_value(f"memory, {case.name}", leanest / memory[OURS], at_least=1 / 1.1)
        if LEAN in runs:
            lean = statistics.median(r["rss_mb"] for r in runs[LEAN].values())
            name = f"memory, {case.name}, one container"
            bench.bar_value(name, leanest / lean, at_least=1 / 1.1)
    if BARE in runs:
        bench.bar_value(f"limit, {case.name}", ratio(runs, BARE, OURS, "cpu"), at_least=1 / 1.15)


def format_row(row: dict[str, Any]) -> str:
    """Return a row as a line of the table."""
    head = f"{row['case']:<22} {row['implementation']:<27}"
    if "missing" in row:
        return f"{head} missing: {row['missing']}"
    ratios = ""
    if "ratio" in row:
        ratios = f"{row['ratio_wall']:5.2f}x wall {row['ratio']:5.2f}x cpu"
    return (
        f"{head} {row['wall_s']:7.3f} s wall {row['cpu_s']:7.3f} s cpu "
        f"{row['peak_rss_mb']:6.0f} MB  {ratios:<24} {row['quality'] or ''}"
    )


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    kept = Path(tempfile.gettempdir()) / "omni-benchmark-clips"
    parser.add_argument("--clips", type=Path, default=kept, help="where generated clips are kept")
    parser.add_argument("--rounds", type=int, help="instead of 5, or of 2 with --quick")
    parser.add_argument("--only", default="", help="only cases whose name holds this")
    arguments = parser.parse_args()
    packages = ("av", "torch", "torchcodec", "decord", "opencv-python-headless")
    rounds = arguments.rounds or (2 if arguments.quick else 5)
    bench = Benchmark("sampling", rounds=rounds, packages=packages)
    bench.environment["ffmpeg of PyAV"] = av.ffmpeg_version_info
    print(json.dumps(bench.environment))
    warm_up = clips.make(clips.TINY, arguments.clips)
    cases = all_cases(arguments.clips, quick=arguments.quick)
    peers = {name: Peer(name) for name in IMPLEMENTATIONS}
    sound = {OURS: Peer(SOUND_TOGETHER), SOUND_APART: Peer(SOUND_APART)}
    try:
        for case in cases:
            if arguments.only in case.name:
                measure(bench, sound if case.kind == "sound" else peers, case, warm_up)
    finally:
        for peer in [*peers.values(), *sound.values()]:
            if not peer.missing:
                peer.close()
    return bench.finish(arguments.json)


if __name__ == "__main__":
    sys.exit(main())
