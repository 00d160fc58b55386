"""What a benchmark run says, as dataclasses: the schema of its JSON file.

    {"schema_version", "command", "environment", "settings", "model", "videos": [{"source", "query",
      "status", "runs": [{"stages_ms": {...}, "prompt_tokens", ...}]}], "memory"}

Every run's numbers are kept; quantiles are computed where they are shown, so that two files can be
compared without guessing at the spread.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omni_sdk.errors import DatasetError
from omni_sdk.utils import schema
from omni_sdk.utils.files import write_json

BENCH_SCHEMA_VERSION = 2
STAGES = (
    *("index", "decode", "audio", "prefill", "generate", "ground", "encode", "propagate", "mask"),
    *("carry", "other", "total", "first_token"),
    "overlapped",
)
"""Names of `RunReport.stages_ms`. "other" is what no stage claims; "first_token" runs from the call to the
first token's logits. Every other name is of `omni_sdk.results.StageTimings`."""
NOT_SUMMED = ("total", "first_token", "overlapped")
"""Of `STAGES`: all others add up to "total"."""


@dataclass(frozen=True, slots=True)
class RunReport:
    """One timed call of the pipeline.

    Attributes:
        stages_ms: wall milliseconds by the names of `STAGES`.
        prompt_tokens: tokens that the reasoner read.
        generated_tokens: tokens that it wrote, the end token excluded.
        keyframes: keyframes that were grounded.
        tracked_frames: frames that got masks; 0 when nothing was found.
        objects: objects that were tracked.
    """

    stages_ms: dict[str, float]
    prompt_tokens: int
    generated_tokens: int
    keyframes: int
    tracked_frames: int
    objects: int

    @property
    def tokens_per_second(self) -> float | None:
        """Generated tokens over the time of the steps after the first token; None without any."""
        seconds = self.stages_ms["generate"] / 1e3
        return self.generated_tokens / seconds if self.generated_tokens and seconds > 0 else None


@dataclass(frozen=True, slots=True)
class VideoReport:
    """All timed calls on one source.

    Attributes:
        source: as given.
        query: as asked.
        status: of the last call's result.
        width: in pixels.
        height: in pixels.
        num_frames: frames of the source.
        has_audio: whether it has sound.
        runs: in order, the warm-up excluded.
    """

    source: str
    query: str
    status: str
    width: int
    height: int
    num_frames: int
    has_audio: bool
    runs: tuple[RunReport, ...]


@dataclass(frozen=True, slots=True)
class SettingsReport:
    """What was asked for.

    Attributes:
        warm_up: untimed calls per source before the timed ones.
        runs: timed calls per source.
        audio: whether sound was used.
        num_frames: frames shown to the reasoner; None: the bundle's rule.
        overlap: whether frames were decoded beside the tracker.
        encode_ahead: see `TrackingConfig.encode_ahead`.
        memory_budget: as asked for, or None.
    """

    warm_up: int
    runs: int
    audio: bool
    num_frames: int | None
    overlap: bool = True
    encode_ahead: bool = False
    memory_budget: str | None = None


@dataclass(frozen=True, slots=True)
class ModelReport:
    """Which models ran, and at which sizes.

    Attributes:
        name: of the bundle.
        version: of the bundle.
        backend: "onnx", "tensorrt" or "torch".
        device: "cpu", "cuda:0", ...
        variants: asked for, or chosen for a memory budget, e.g. ("int8",).
        precision: by graph, e.g. {"grs/decoder": "float32"}; empty for a checkpoint.
        tracker_image_size: side in pixels of the tracker's input; None without a tracker.
    """

    name: str
    version: str
    backend: str
    device: str
    variants: tuple[str, ...]
    precision: dict[str, str]
    tracker_image_size: int | None


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """Peaks in MiB and energy; None where the machine does not tell.

    Attributes:
        host_loaded_mb: resident memory of the process once the models were loaded.
        host_peak_mb: its peak from then on, or of the whole process where the peak cannot be reset.
        device_peak_mb: peak memory in use on the device, of all processes.
        device_mean_watts: mean power draw of the device during the timed calls.
        energy_joules: of the device per timed call.
    """

    host_loaded_mb: float | None
    host_peak_mb: float | None
    device_peak_mb: float | None = None
    device_mean_watts: float | None = None
    energy_joules: float | None = None


@dataclass(frozen=True, slots=True)
class EnvironmentReport:
    """The machine and the software that the numbers belong to.

    Attributes:
        machine: processor architecture.
        cpu: its name.
        cpus: logical processors that this process may use.
        system: operating system and its release.
        clocks: governor and frequency limits of the processor, power mode of the board; what is readable.
        device: the accelerator's name, driver and clocks as its own tool reports them.
        load_average: of the last minute, at the start; a busy machine gives other numbers.
        threads: OMP_NUM_THREADS, or None where it is not set.
        versions: of Python and the libraries in use.
        time: of the start, UTC.
        native: whether the native kernels are in use, see `omni_sdk.native.state`.
    """

    machine: str
    cpu: str
    cpus: int
    system: str
    clocks: dict[str, str]
    device: dict[str, str]
    load_average: float | None
    threads: str | None
    versions: dict[str, str]
    time: str
    native: str = "unknown"


@dataclass(frozen=True, slots=True)
class BenchReport:
    """A whole benchmark run."""

    schema_version: int
    environment: EnvironmentReport
    settings: SettingsReport
    model: ModelReport
    memory: MemoryReport
    videos: tuple[VideoReport, ...]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Median, 90 % and 99 % quantiles, linearly interpolated."""

    median: float
    p90: float
    p99: float


def quantiles(values: Sequence[float]) -> Quantiles:
    """Return the quantiles of at least one value.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("quantiles of no values")
    if len(values) == 1:
        return Quantiles(values[0], values[0], values[0])
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return Quantiles(statistics.median(values), cuts[89], cuts[98])


def write_report(report: BenchReport, path: Path) -> None:
    """Write a report as JSON."""
    write_json(path, schema.to_dict(report))


def read_report(path: Path) -> BenchReport:
    """Read a report.

    Raises:
        DatasetError: no such file, not JSON, or not of this schema.
    """
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        raise DatasetError(f"{path}: not a result of `omni-sdk bench --json` ({e})") from e
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != BENCH_SCHEMA_VERSION:
        raise DatasetError(
            f"{path}: schema_version {version!r}, expected {BENCH_SCHEMA_VERSION}: not a result of "
            "`omni-sdk bench --json`, or of another version; measure again"
        )
    try:
        report = schema.from_dict(BenchReport, value)
    except schema.SchemaError as e:
        raise DatasetError(f"{path}: {e}") from e
    for video in report.videos:
        for run in video.runs:
            if set(run.stages_ms) != set(STAGES):
                raise DatasetError(f"{path}: stages {sorted(run.stages_ms)}, expected {STAGES}")
        if not video.runs:
            raise DatasetError(f"{path}: {video.source!r} has no runs")
    return report
