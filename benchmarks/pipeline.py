"""The whole pipeline with the shipped bundle: time per stage, overhead outside the models, memory.

    python benchmarks/pipeline.py [--quick] [--json PATH]

Cases are clips of the demo's world written to mp4: as the demo writes them (384x384, 8 frames/s), and as
a camera would (720x720, 30 frames/s). Each case is a process of its own, so that peak memory is that of
one case; stage times are the medians of its warm requests. Peers do not exist: no other system does this
job end to end, so the limits are those of the design (section 8). The gain of overlapping stages is
measured against ourselves: requests take turns between no overlap, decoding beside the tracker (the default),
and the next frame encoded ahead as well.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import OURS, Benchmark, make_parser

MODELS = ("prefill", "generate", "ground", "encode", "propagate")
MEDIA = ("index", "decode", "audio")
TURN, DEFAULT = "in turn", "decode beside"
# (name, (height, width), frames per second)
CASES = (
    ("384x384, 8 s, 64 frames", (384, 384), 8.0),
    ("720x720, 8 s, 240 frames", (720, 720), 30.0),
)

CHILD = """
import json, resource, sys, time
from omni_sdk import Pipeline
from omni_sdk.config import PipelineConfig, TrackingConfig
path, query, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3])
ahead = TrackingConfig(encode_ahead=True)
modes = {
    "in turn": PipelineConfig(overlap=False),
    "decode beside": PipelineConfig(),
    "encode ahead too": PipelineConfig(tracking=ahead),
}
started = time.perf_counter()
pipe = Pipeline.from_pretrained("nano", device="cpu")
load = time.perf_counter() - started
rows = {name: [] for name in modes}
for turn in range(repeats + 1):
    order = list(modes)[turn % 3 :] + list(modes)[: turn % 3]
    for name in order:
        wall, cpu = time.perf_counter(), time.process_time()
        result = pipe(path, query, config=modes[name])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        times = {n: getattr(result.timings_ms, n) for n in result.timings_ms.__slots__}
        rows[name].append({"wall_s": wall, "cpu_s": cpu} | times)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
rows = {name: values[1:] for name, values in rows.items()}
print(json.dumps({"load_s": load, "rows": rows, "peak_rss_mb": peak, "status": result.status}))
"""


def run_child(path: Path, query: str, repeats: int) -> dict[str, Any]:
    """Run requests in a process of its own; the first warms up and is not counted."""
    command = [sys.executable, "-c", CHILD, str(path), query, str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def import_cpu_seconds() -> float:
    """Return the median CPU time of `import omni_sdk` over five fresh interpreters."""
    code = "import time; t = time.process_time(); import omni_sdk; print(time.process_time() - t)"
    return statistics.median(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
        for _ in range(5)
    )


def main() -> int:
    """Run the benchmark."""
    from omni_sdk.demo.clip import write_clip
    from omni_sdk.demo.scene import make_scene
    from omni_sdk.demo.world import held_out_seed

    arguments = make_parser(__doc__).parse_args()
    repeats = 3 if arguments.quick else 9
    bench = Benchmark("pipeline", rounds=repeats, packages=("onnxruntime", "av"))
    scene = make_scene(held_out_seed("last", 0), "last")
    with tempfile.TemporaryDirectory() as folder:
        for name, size, fps in CASES:
            path = Path(folder) / "clip.mp4"
            write_clip(scene, path, size=size, fps=fps)
            found = run_child(path, scene.query, repeats)
            medians = {
                mode: {k: statistics.median(row[k] for row in rows) for k in rows[0]}
                for mode, rows in found["rows"].items()
            }
            median = medians[DEFAULT]
            _print_stages(name, median, found)
            gains = _gains(found["rows"])
            for mode, gain in gains.items():
                cpu = medians[mode]["cpu_s"] / medians[TURN]["cpu_s"]
                print(
                    f"  {mode:<17} {gain:5.2f}x the speed of stages in turn, {cpu:.2f}x the CPU time"
                )
            bench.rows += [
                {"case": name, "implementation": f"{OURS}, {mode}", "stages_ms": value}
                | {"gain": gains[mode]}
                | {"peak_rss_mb": found["peak_rss_mb"], "load_s": found["load_s"]}
                | {"wall_s": value["wall_s"], "cpu_s": value["cpu_s"], "quality": found["status"]}
                for mode, value in medians.items()
            ]
            inside = sum(median[s] for s in (*MODELS, *MEDIA)) / median["total"]
            bench.bar_value(f"{name}: share inside models and decoding", inside, at_least=0.90)
            memory = 600 / found["peak_rss_mb"]
            bench.bar_value(f"{name}: 600 MB over peak memory", memory, at_least=1.0)
    seconds = import_cpu_seconds()
    bench.bar_value("0.1 s over CPU time of import omni_sdk", 0.1 / seconds, at_least=1.0)
    return bench.finish(arguments.json)


def _print_stages(name: str, median: dict[str, float], found: dict[str, Any]) -> None:
    print(
        f"{name}: {median['wall_s']:.2f} s wall, {median['cpu_s']:.2f} s CPU, load of models ",
        end="",
    )
    print(f"{found['load_s']:.2f} s, peak {found['peak_rss_mb']:.0f} MB, {found['status']}")
    for stage in (*MEDIA, *MODELS, "mask"):
        share = median[stage] / median["total"]
        print(f"  {stage:<10} {median[stage]:9.1f} ms  {share:6.1%}")
    rest = median["total"] - sum(median[s] for s in (*MEDIA, *MODELS, "mask"))
    print(f"  {'other':<10} {rest:9.1f} ms  {rest / median['total']:6.1%}", flush=True)


def _gains(rows: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Return each mode's speed over stages in turn: the median over rounds of the ratio within a round."""
    return {
        mode: statistics.median(
            a["wall_s"] / b["wall_s"] for a, b in zip(rows[TURN], values, strict=True)
        )
        for mode, values in rows.items()
    }


if __name__ == "__main__":
    sys.exit(main())
