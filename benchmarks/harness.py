"""What all benchmarks share: alternated rounds, bars, the printed table and the JSON file.

    bench = Benchmark("masks", rounds=9)
    bench.compare("1080p encode", {"omni-sdk": ours, "pycocotools": theirs}, quality={...})
    bench.bar("encode 1080p", case="1080p encode", peer="pycocotools", at_least=5.0)
    bench.finish(json_path)

Within a round every implementation runs once (as often as it takes to last `MIN_SAMPLE_S`), in an
order that turns round from one round to the next, so that whatever else the machine does falls on all
of them. Times are of CPU, and of the wall beside it; a ratio is the median over rounds of the ratio
within a round. A peer that is not installed is a row that says so.

Bars are held against CPU time unless a benchmark asks for the wall: threads that spin while they wait
burn CPU time, so with several threads only the wall is fair, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

OURS = "omni-sdk"
MIN_SAMPLE_S = 0.004
"""A sample lasts at least this long, far above the clock's resolution."""

Work = Callable[[], object]


@dataclass(frozen=True)
class Missing:
    """Stands for an implementation that cannot run here."""

    reason: str


@dataclass
class Samples:
    """One implementation's seconds per call, one value per round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def make_parser(
    document: str | None, *, quick: str | None = "fewer rounds and cases"
) -> argparse.ArgumentParser:
    """Return a parser of the options that all benchmarks share.

    Args:
        document: of the benchmark's file; its first line describes it.
        quick: what --quick spares; None: there is no such option.
    """
    parser = argparse.ArgumentParser(description=(document or "").splitlines()[0])
    if quick is not None:
        parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser


def optional(name: str) -> ModuleType | Missing:
    """Import a peer, on one thread where it has threads, or say that it is not there."""
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return Missing(str(error))
    if name == "cv2":
        module.setNumThreads(1)
    elif name == "torch":
        module.set_num_threads(1)
    return module


def shared_directory() -> Path:
    """Return the directory of shared data: OMNI_SHARED, or ../shared beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared"
    return Path(os.environ.get("OMNI_SHARED", default))


def environment(packages: Sequence[str]) -> dict[str, Any]:
    """Describe the machine and the versions that the numbers belong to."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "cpu": model,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
        "versions": versions,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def percentile(values: Sequence[float], q: float) -> float:
    """Return the q-quantile (0..1) by linear interpolation."""
    ordered = sorted(values)
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def peak_rss_mb(work: Work) -> float | None:
    """Run `work` once in a forked child; return by how much the child's peak memory grew, in MiB."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            work()
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            os.write(write, str(after - before).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    return int(text) / 1024 if text else None


class Benchmark:
    """Collects cases and bars of one benchmark."""

    def __init__(
        self,
        name: str,
        *,
        rounds: int,
        packages: Sequence[str] = (),
        clock: Literal["cpu", "wall"] = "cpu",
    ) -> None:
        self.name = name
        self.rounds = rounds
        self.clock = clock
        self.environment = environment(["omni-sdk", "numpy", *packages])
        self.rows: list[dict[str, Any]] = []
        self.bars: list[dict[str, Any]] = []
        self._samples: dict[tuple[str, str], Samples] = {}

    def compare(
        self,
        case: str,
        implementations: Mapping[str, Work | Missing],
        quality: Mapping[str, object] | None = None,
        *,
        memory: bool = False,
    ) -> None:
        """Time implementations of one job against each other.

        Args:
            case: name of the job.
            implementations: each a function without arguments, or `Missing`.
            quality: what each one's result is worth, shown beside its time.
            memory: measure peak memory too, in a child process of its own.
        """
        present = {n: w for n, w in implementations.items() if not isinstance(w, Missing)}
        repeats = {name: self._repeats(work) for name, work in present.items()}
        samples = {name: Samples() for name in present}
        for index in range(self.rounds):
            for name in list(present) if index % 2 == 0 else list(present)[::-1]:
                wall, cpu = time.perf_counter(), time.process_time()
                for _ in range(repeats[name]):
                    present[name]()
                samples[name].cpu.append((time.process_time() - cpu) / repeats[name])
                samples[name].wall.append((time.perf_counter() - wall) / repeats[name])
        peaks = {n: peak_rss_mb(w) for n, w in present.items()} if memory else {}
        for name, work in implementations.items():
            if isinstance(work, Missing):
                row = {"case": case, "implementation": name, "missing": work.reason}
                self.rows.append(row)
                print(_format_row(row), flush=True)
        self.record(case, samples, quality, peaks)

    def record(
        self,
        case: str,
        samples: Mapping[str, Samples],
        quality: Mapping[str, object] | None = None,
        peaks: Mapping[str, float | None] | None = None,
    ) -> None:
        """Take samples that were measured elsewhere, in alternated rounds; ours comes first.

        Args:
            case: name of the job.
            samples: seconds per round of each implementation.
            quality: what each one's result is worth, shown beside its time.
            peaks: peak memory of each in MiB.
        """
        self._samples |= {(case, name): s for name, s in samples.items()}
        for name, s in samples.items():
            row: dict[str, Any] = {
                "case": case,
                "implementation": name,
                "wall_s": statistics.median(s.wall),
                "wall_p90_s": percentile(s.wall, 0.9),
                "cpu_s": statistics.median(s.cpu),
                "cpu_p90_s": percentile(s.cpu, 0.9),
                "rounds": len(s.wall),
                "peak_rss_mb": (peaks or {}).get(name),
                "quality": (quality or {}).get(name),
            }
            if name != OURS and OURS in samples:
                row["ratio"] = self.ratio(case, name)
            self.rows.append(row)
            print(_format_row(row), flush=True)

    def ratio(self, case: str, peer: str, ours: str = OURS) -> float:
        """Return how many times the time of `ours` the peer takes: the median over rounds."""
        mine, theirs = (getattr(self._samples[case, n], self.clock) for n in (ours, peer))
        return statistics.median(t / o for t, o in zip(theirs, mine, strict=True))

    def bar(self, name: str, *, case: str, peer: str, at_least: float) -> None:
        """Require that a peer takes at least this many times our CPU time."""
        if (case, peer) not in self._samples:
            self.bars.append({"name": name, "value": None, "bar": at_least, "holds": None})
            return
        self.bar_value(name, self.ratio(case, peer), at_least=at_least)

    def bar_value(self, name: str, value: float, *, at_least: float) -> None:
        """Require a value, measured elsewhere."""
        value = float(value)  # may be numpy's, which json does not know
        self.bars.append(
            {"name": name, "value": value, "bar": at_least, "holds": value >= at_least}
        )

    def finish(self, json_path: Path | None) -> int:
        """Print the bars, write the JSON file; return 0 where every measured bar holds, else 1."""
        print("\nbars")
        for bar in self.bars:
            state = {True: "holds", False: "MISSED", None: "not measured"}[bar["holds"]]
            value = "-" if bar["value"] is None else f"{bar['value']:.2f}"
            print(f"  {bar['name']:<44} {value:>8}  (bar {bar['bar']:g})  {state}")
        if json_path is not None:
            report = {
                "benchmark": self.name,
                "environment": self.environment,
                "clock": self.clock,
                "rows": self.rows,
                "bars": self.bars,
            }
            json_path.write_text(json.dumps(report, indent=1) + "\n")
        return int(any(bar["holds"] is False for bar in self.bars))

    @staticmethod
    def _repeats(work: Work) -> int:
        """Warm up, and find how many calls make a sample."""
        work()
        start = time.perf_counter()
        work()
        return max(1, int(MIN_SAMPLE_S / max(time.perf_counter() - start, 1e-7)))


def _format_row(row: Mapping[str, Any]) -> str:
    head = f"{row['case']:<26} {row['implementation']:<34}"
    if "missing" in row:
        return f"{head} missing: {row['missing']}"
    ratio = f"{row['ratio']:7.2f}x" if "ratio" in row else " " * 8
    quality = "" if row["quality"] is None else f"  {row['quality']}"
    wall, cpu, p90 = (1e3 * row[key] for key in ("wall_s", "cpu_s", "cpu_p90_s"))
    return f"{head} {wall:9.3f} ms wall {cpu:9.3f} cpu p90 {p90:9.3f} {ratio}{quality}"
