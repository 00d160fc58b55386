"""What a GRPO step costs on the nano world, and what spares how much: `python benchmarks/grpo.py [--quick]`.

Each ratio is measured by doing the same work both ways in turn, in CPU time on one thread:
- shared encodings: eight rollouts' masks of one clip, with a tracker that remembers frames, and without;
- cached towers: the three passes of a step (rollout's prefill, reference, policy) over a group of eight, with
  the towers' outputs of its one prompt, and with the towers inside every pass;
- reward workers: one batch of jobs through 1, 2 and 4 Ray actors, wall time; their share of a step is
  that time against a step without rewards;
- the nano run: seconds per step, tokens per second, and the rewards' share within one process.
The thinker is --start, or ../shared/nano/thinker_early; grounder and tracker are the nano bundle's.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from harness import OURS, Benchmark, Missing, shared_directory
from omni_training.encoded import PromptMedia, accept_encoded, collate, encode
from omni_training.experiment.arm import build_arm
from omni_training.experiment.files import Experiment
from omni_training.experiment.settings import FULL, ExperimentSettings
from omni_training.video_samples import open_processor
from omni_training.workers.jobs import GroundingPoint, RewardJob
from omni_training.workers.scorer import ClipScorer
from omni_training.world import WorldClip, share_encodings
from omni_training.world_samples import WorldSamples, training_ids

from omni_sdk import Pipeline

GROUP = 8
WORKERS = (1, 2, 4)
COMPLETION = 32
"""Tokens of a completion in the passes, about what the nano thinker writes."""


def group_jobs(sample: str, shift: float) -> list[RewardJob]:
    """Return eight rollouts that differ: boxes a little off, so that no propagation is shared."""
    truth = WorldClip(sample).truth
    frame = int(np.argmax(truth.union_areas))
    jobs = []
    for k in range(GROUP):
        box = truth.boxes_at(frame)[0] + np.float32(shift + 0.3 * k)
        corners = tuple(float(v) for v in np.clip(box, 0, 96))
        point = GroundingPoint(frame, frame, "it", (corners,))  # type: ignore[arg-type]
        jobs.append(RewardJob(sample, sample, (point,)))
    return jobs


def shared_encodings(bench: Benchmark) -> None:
    """Masks of a group, each frame encoded once or by every rollout."""
    tracker = Pipeline.from_pretrained("nano", threads=1).tracker
    assert tracker is not None
    jobs = group_jobs("direct:124", 0.0)

    def score(shared: bool) -> list[float | None]:
        used = share_encodings(tracker, 256 << 20) if shared else tracker
        side = used.image_size
        scorer = ClipScorer(lambda name: WorldClip(name, tracker_size=side), None, used)
        return [scorer.score(job).mask for job in jobs]

    same = score(True) == score(False)
    bench.compare(
        "masks of a group of 8",
        {OURS: lambda: score(True), "every rollout encodes": lambda: score(False)},
        {OURS: "equal scores" if same else "SCORES DIFFER"},
    )
    bench.bar(
        "shared encodings", case="masks of a group of 8", peer="every rollout encodes", at_least=1.2
    )


def cached_towers(bench: Benchmark, start: str) -> None:
    """The three passes of a step over one group."""
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration as Thinker

    model = Thinker.from_pretrained(start, dtype=torch.float32).eval()
    accept_encoded(model)
    store = WorldSamples(open_processor(start))
    request = store.request(training_ids(1)[0])
    raw = PromptMedia.of(request)
    prompt = torch.from_numpy(request.input_ids)
    words = torch.randint(20, 200, (GROUP, COMPLETION), generator=torch.Generator().manual_seed(0))
    ids = torch.cat([prompt.repeat(GROUP, 1), words], dim=1)
    device = torch.device("cpu")

    @torch.no_grad()
    def passes(cached: bool) -> torch.Tensor:
        media = encode(model, [raw])[0] if cached else raw
        for _ in range(3):
            batch = collate(
                [media] * GROUP, len(prompt), COMPLETION, device=device, dtype=torch.float32
            )
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **batch).logits
        return logits

    gap = float((passes(True) - passes(False)).abs().max())
    bench.compare(
        "passes over a group of 8",
        {OURS: lambda: passes(True), "towers in every pass": lambda: passes(False)},
        {OURS: f"logits differ by {gap:.1e}"},
    )
    bench.bar(
        "cached towers", case="passes over a group of 8", peer="towers in every pass", at_least=1.1
    )


def nano_run(bench: Benchmark, start: str, steps: int) -> float:
    """Do steps of the full arm and of R_K alone; return the wall seconds of a step without rewards."""
    settings = ExperimentSettings(start, seeds=(0,), steps=steps + 1)
    rest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for arm in (FULL, "r_k"):
            trainer, backend = build_arm(
                Experiment(Path(folder), settings), arm, 0, save_strategy="no"
            )
            spent = _timed(backend) if backend is not None else [0.0, 0.0]
            wall = time.perf_counter()
            trainer.train()
            wall = (time.perf_counter() - wall) / (steps + 1)
            # The first step also warms up; the rest count.
            log = [e for e in trainer.state.log_history if "loss" in e]
            cpu = (log[-1]["cpu_seconds"] - log[0]["cpu_seconds"]) / steps
            tokens = (log[-1]["num_tokens"] - log[0]["num_tokens"]) / steps
            share = spent[0] / max(1e-9, log[-1]["cpu_seconds"])
            row = {
                "case": f"step of {settings.prompts_per_step} x {settings.num_generations}",
                "implementation": arm, "wall_s": wall, "cpu_s": cpu, "rounds": steps,
                "quality": f"{tokens / cpu:.0f} tokens per CPU s; rewards {100 * share:.0f} % of it",
            }  # fmt: skip
            bench.rows.append(row)
            print(f"{row['case']:<26} {arm:<34} {cpu:9.2f} s cpu   {row['quality']}", flush=True)
            if backend is None:
                rest = wall
            else:
                backend.close()
    return rest


def _timed(backend: Any) -> list[float]:
    """Sum the CPU and wall seconds that a local backend's scorer spends."""
    spent, score = [0.0, 0.0], backend._scorer.score

    def timed(job: RewardJob) -> Any:
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            return score(job)
        finally:
            spent[0] += time.process_time() - cpu
            spent[1] += time.perf_counter() - wall

    backend._scorer.score = timed
    return spent


def reward_workers(bench: Benchmark, rounds: int, rest: float) -> None:
    """One batch of jobs (six clips, eight rollouts each) through pools of actors, in turn."""
    from omni_training.workers.ray_backend import RayBackend

    try:
        import ray  # noqa: F401
    except ImportError as error:
        for count in WORKERS:
            bench.compare(f"rewards, {count} workers", {OURS: Missing(str(error))})
        return
    options = {"bundle": "nano", "threads": 1, "max_clips": 6}
    pools = {
        n: RayBackend("omni_training.world:world_scorer", options, num_workers=n, num_cpus=0)
        for n in WORKERS
    }
    names = [f"direct:{124 + i}" for i in range(6)]
    asyncio.run(_warm(pools, names))
    walls: dict[int, list[float]] = {n: [] for n in WORKERS}
    latency: dict[int, list[float]] = {n: [] for n in WORKERS}
    try:
        for index in range(rounds):
            # New boxes in each round: nothing of it has been scored before, only clips are held.
            jobs = [j for name in names for j in group_jobs(name, 0.05 * (index + 1))]
            for n in WORKERS if index % 2 == 0 else WORKERS[::-1]:
                started = time.perf_counter()
                found = asyncio.run(pools[n].score(jobs))
                walls[n].append(time.perf_counter() - started)
                latency[n] += [s.seconds for s in found if s is not None]
                assert all(s is not None for s in found)
    finally:
        for pool in reversed(list(pools.values())):
            pool.close()
    for n in WORKERS:
        wall = statistics.median(walls[n])
        share = wall / (wall + rest)
        quality = (
            f"{1e3 * statistics.median(latency[n]):.0f} ms a job; {100 * share:.0f} % of a step"
        )
        row = {"case": "rewards of 48 rollouts", "implementation": f"{n} workers", "wall_s": wall,
               "cpu_s": None, "rounds": rounds, "quality": quality}  # fmt: skip
        bench.rows.append(row)
        print(
            f"{row['case']:<26} {row['implementation']:<34} {wall:9.2f} s wall  {quality}",
            flush=True,
        )


async def _warm(pools: dict[int, Any], names: list[str]) -> None:
    for pool in pools.values():
        await pool.score([job for name in names for job in group_jobs(name, 0.0)[:1]])


def main() -> int:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and cases")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--start", type=Path, help="thinker checkpoint")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = arguments.start or shared_directory() / "nano" / "thinker_early"
    bench = Benchmark(
        "grpo",
        rounds=3 if arguments.quick else 9,
        packages=["torch", "transformers", "trl", "onnxruntime", "ray"],
    )
    shared_encodings(bench)
    if not start.is_dir():
        raise SystemExit(f"no thinker in {start}: give --start, a checkpoint directory")
    cached_towers(bench, str(start))
    rest = nano_run(bench, str(start), 2 if arguments.quick else 6)
    reward_workers(bench, 2 if arguments.quick else 6, rest)
    return bench.finish(arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
