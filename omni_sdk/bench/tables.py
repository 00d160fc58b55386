"""Reports as text for people: one run's stages, and two runs side by side."""

from __future__ import annotations

from omni_sdk.bench.compare import Comparison
from omni_sdk.bench.report import STAGES, BenchReport, VideoReport, quantiles
from omni_sdk.utils.text import table

_PER_FRAME = ("encode", "propagate", "mask", "carry")


def report_text(report: BenchReport) -> str:
    """Return a report as text: the machine, the memory, and a table of stages per source."""
    environment, model, memory = report.environment, report.model, report.memory
    device = ", ".join(environment.device.values()) or environment.cpu
    load = "unknown" if environment.load_average is None else f"{environment.load_average:.1f}"
    lines = [
        f"{model.name} {model.version}, {model.backend} on {model.device}"
        + (f", variants {', '.join(model.variants)}" if model.variants else ""),
        f"{device}; {environment.cpus} CPUs, threads {environment.threads or 'not set'}, "
        f"load {load}, {_pairs(environment.clocks) or 'clocks not readable'}",
        f"{_pairs(environment.versions)}; native kernels {environment.native}",
        f"memory: {_mb(memory.host_loaded_mb)} once loaded, {_mb(memory.host_peak_mb)} at the peak; "
        f"device {_mb(memory.device_peak_mb)}; energy per call "
        + ("not reported" if memory.energy_joules is None else f"{memory.energy_joules:.1f} J"),
        f"{report.settings.runs} runs after {report.settings.warm_up} warm-up; "
        + (
            "frames decoded beside the tracker"
            if report.settings.overlap
            else "frames decoded in turn"
        )
        + ("; the next frame encoded ahead" if report.settings.encode_ahead else "")
        + (f"; memory budget {budget}" if (budget := report.settings.memory_budget) else ""),
    ]
    for video in report.videos:
        lines += ["", _video_text(video)]
    return "\n".join(lines)


def _video_text(video: VideoReport) -> str:
    rows = []
    for stage in STAGES:
        values = [run.stages_ms[stage] for run in video.runs]
        q = quantiles(values)
        rows.append((stage, *(f"{v:.1f}" for v in (q.median, q.p90, q.p99)), _rate(video, stage)))
    last = video.runs[-1]
    head = (
        f"{video.source}: {video.width}x{video.height}, {video.num_frames} frames, "
        f"{'with' if video.has_audio else 'no'} sound; {video.status}: {last.prompt_tokens} prompt and "
        f"{last.generated_tokens} generated tokens, {last.keyframes} keyframes, {last.objects} objects"
    )
    return f"{head}\n{table(('stage', 'median ms', 'p90', 'p99', 'rate'), rows)}"


def _rate(video: VideoReport, stage: str) -> str:
    if stage == "generate":
        rates = [r for run in video.runs if (r := run.tokens_per_second) is not None]
        return f"{quantiles(rates).median:.1f} tokens/s" if rates else ""
    if stage in _PER_FRAME:
        each = [r.stages_ms[stage] / r.tracked_frames for r in video.runs if r.tracked_frames]
        return f"{quantiles(each).median:.2f} ms/frame" if each else ""
    return ""


def comparison_text(comparison: Comparison) -> str:
    """Return a comparison as text; what makes the two incomparable comes first."""
    lines = [f"differs: {line}" for line in comparison.differences]
    rows = [
        (
            row.source,
            row.stage,
            f"{row.a.median:.1f}",
            f"{row.b.median:.1f}",
            "-" if row.ratio is None else f"{row.ratio:.2f}",
            row.verdict,
        )
        for row in comparison.rows
    ]
    lines.append(table(("source", "stage", "A ms", "B ms", "B/A", "B is"), rows))
    lines += [f"only in one: {name}" for name in comparison.unmatched]
    return "\n".join(lines)


def _mb(value: float | None) -> str:
    return "not reported" if value is None else f"{value:.0f} MiB"


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
