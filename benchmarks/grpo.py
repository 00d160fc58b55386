"""What a GRPO step costs on the nano world, and what spares how much: `python benchmarks/grpo.py [--quick]`.

Each ratio is measured by doing the same work both ways in turn, in CPU time on one thread:
- shared encodings: eight rollouts' masks of one clip, with a tracker that remembers frames, and without;
- cached towers: the three passes of a step (rollout's prefill, reference, policy) over a group of eight, with
  the towers' outputs of its one prompt, and with the towers inside every pass;
- the nano run: seconds per step, tokens per second, and the rewards' share within one process;
- reward workers: the jobs that the nano run's own rollouts asked, in the process and through 1, 2 and 4 Ray
  actors, wall time (nothing else may run on the machine): latency of a job, the rewards' share of a step
  (their time against that and a step without them), and how much faster the step is than in one process.
Ratios are against "every rollout encodes", "towers in every pass" and "in the process". The thinker is
--start, or ../shared/nano/thinker_early; grounder and tracker are the nano bundle's.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from harness import OURS, Benchmark, Missing, make_parser, percentile, shared_directory
from omni_training.data.video_samples import open_processor
from omni_training.data.world import WorldClip, share_encodings
from omni_training.data.world_samples import WorldSamples, training_ids
from omni_training.experiment.arm import build_arm
from omni_training.experiment.files import Experiment
from omni_training.experiment.settings import FULL, ExperimentSettings
from omni_training.grpo.media import PromptMedia, accept_encoded, collate, encode
from omni_training.rewards.jobs import DusScores, GroundingPoint, RewardJob
from omni_training.workers.local import LocalBackend
from omni_training.workers.scorer import ClipScorer, build_scorer
from transformers import TrainerCallback

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
        {OURS: {"logit_difference": gap}},
    )
    bench.bar(
        "cached towers", case="passes over a group of 8", peer="towers in every pass", at_least=1.1
    )


def nano_run(bench: Benchmark, start: str, steps: int) -> tuple[float, list[list[RewardJob]]]:
    """Do steps of the full arm and of R_K alone.

    Returns:
        Wall seconds of a step without rewards from the detail system, and the reward jobs of each step of the
        full arm: what real rollouts ask.
    """
    settings = ExperimentSettings(start, seeds=(0,), steps=steps + 1)
    rest, batches = 0.0, []
    with tempfile.TemporaryDirectory() as folder:
        for arm in (FULL, "r_k"):
            trainer, backend = build_arm(
                Experiment(Path(folder), settings), arm, 0, save_strategy="no"
            )
            spent = _timed(backend, batches) if backend is not None else [0.0, 0.0]
            clock = StepClock()
            trainer.add_callback(clock)
            trainer.train()
            # The first step also warms up; the rest count.
            wall = statistics.median(clock.seconds[1:])
            log = [e for e in trainer.state.log_history if "loss" in e]
            cpu = (log[-1]["cpu_seconds"] - log[0]["cpu_seconds"]) / steps
            tokens = (log[-1]["num_tokens"] - log[0]["num_tokens"]) / steps
            share = spent[0] / max(1e-9, log[-1]["cpu_seconds"])
            row = {
                "case": f"step of {settings.prompts_per_step} x {settings.num_generations}",
                "implementation": arm, "wall_s": wall, "cpu_s": cpu, "rounds": steps,
                "tokens_per_cpu_s": tokens / cpu, "reward_share": share,
                "quality": f"{tokens / cpu:.0f} tokens per CPU s; rewards {100 * share:.0f} % of it",
            }  # fmt: skip
            bench.rows.append(row)
            print(
                f"{row['case']:<26} {arm:<34} {wall:9.2f} s wall {cpu:9.2f} cpu   {row['quality']}",
                flush=True,
            )
            if backend is None:
                rest = wall
            else:
                backend.close()
    return rest, batches


class StepClock(TrainerCallback):
    """Wall seconds of each optimiser step, rollouts and rewards included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._last = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now


def _timed(backend: Any, batches: list[list[RewardJob]]) -> list[float]:
    """Sum the CPU and wall seconds that a local backend's scorer spends; keep the batches it is given."""
    spent, score, serve = [0.0, 0.0], backend._scorer.score, backend.score

    def timed(job: RewardJob) -> Any:
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            return score(job)
        finally:
            spent[0] += time.process_time() - cpu
            spent[1] += time.perf_counter() - wall

    async def kept(jobs: Sequence[RewardJob]) -> Any:
        batches.append(list(jobs))
        return await serve(jobs)

    backend._scorer.score, backend.score = timed, kept
    return spent


@dataclass
class Pool:
    """One way of scoring, and what was measured of it."""

    backend: Any
    walls: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    transport: list[float] = field(default_factory=list)

    def score(self, jobs: list[RewardJob]) -> list[DusScores | None]:
        """Score a batch; each job is timed from when a worker gets it to when its scores are back."""
        one, calls = self.backend._one, []

        async def timed(job: RewardJob, slot: int) -> DusScores | None:
            begun = time.perf_counter()
            scores = await one(job, slot)
            calls.append((time.perf_counter() - begun, scores))
            return scores

        if isinstance(self.backend, LocalBackend):
            started = time.perf_counter()
            found = asyncio.run(self.backend.score(jobs))
            self.latency += [s.seconds for s in found if s is not None]
        else:
            self.backend._one = timed
            started = time.perf_counter()
            found = asyncio.run(self.backend.score(jobs))
            self.backend._one = one
            self.latency += [seconds for seconds, _ in calls]
            self.transport += [t - s.seconds for t, s in calls if s is not None]
        self.walls.append(time.perf_counter() - started)
        return found

    def forget(self) -> None:
        """Drop what the warm-up measured."""
        for values in (self.walls, self.latency, self.transport):
            values.clear()


def reward_workers(bench: Benchmark, batches: list[list[RewardJob]], rest: float) -> None:
    """Score the jobs of real steps in this process and by 1, 2 and 4 Ray actors, in turn, wall time.

    The first batch warms every pool up (engines start, graphs are compiled) and is not counted; each later
    one is of clips that no pool has seen.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        for count in WORKERS:
            missing = Missing(f'{error}: pip install "omni-sdk[ray]"')
            bench.compare(f"rewards, {count} workers", {OURS: missing})
        return
    from omni_training.workers.ray_backend import RayBackend

    factory = "omni_training.data.world:world_scorer"
    options = {"bundle": "nano", "threads": 1, "max_clips": 6}
    pools = {"in the process": Pool(LocalBackend(build_scorer(factory, options)))}
    try:
        for n in WORKERS:
            name = f"{n} worker{'s' if n > 1 else ''}"
            pools[name] = Pool(RayBackend(factory, options, num_workers=n, num_cpus=0))
        different = 0
        for index, jobs in enumerate(batches):
            names = list(pools) if index % 2 == 0 else list(pools)[::-1]
            found = {name: pools[name].score(jobs) for name in names}
            values = [[s and (s.box, s.mask) for s in scores] for scores in found.values()]
            assert all(s is not None for scores in values for s in scores), "a job failed"
            different += any(v != values[0] for v in values)
            if index == 0:
                for pool in pools.values():
                    pool.forget()
    finally:
        for pool in reversed(list(pools.values())):
            pool.backend.close()
    local = pools["in the process"].walls
    jobs_of_a_step = statistics.mean(len(jobs) for jobs in batches[1:])
    for name, pool in pools.items():
        wall = statistics.median(pool.walls)
        ratio = statistics.median(a / b for a, b in zip(local, pool.walls, strict=True))
        step = (rest + statistics.median(local)) / (rest + wall)
        # The mean: most rollouts of a group ask what was answered already, and a median would be theirs.
        milliseconds = [1e3 * s for s in pool.latency]
        mean, p90 = statistics.mean(milliseconds), percentile(milliseconds, 0.9)
        transport = 1e3 * statistics.median(pool.transport) if pool.transport else None
        quality = (
            f"{mean:.0f} ms a job, p90 {p90:.0f}"
            + ("" if transport is None else f", {transport:.1f} of it transport")
            + f"; {100 * wall / (wall + rest):.0f} % of a step; step {step:.2f}x"
            + ("" if different == 0 else f"; SCORES DIFFER in {different} batches")
        )
        row = {
            "case": f"rewards of {jobs_of_a_step:.0f} jobs", "implementation": name, "wall_s": wall,
            "wall_p90_s": percentile(pool.walls, 0.9), "cpu_s": None, "rounds": len(pool.walls),
            "ratio": ratio, "step_ratio": step, "share_of_step": wall / (wall + rest),
            "job_ms": mean, "job_p90_ms": p90, "transport_ms": transport, "quality": quality,
        }  # fmt: skip
        bench.rows.append(row)
        print(
            f"{row['case']:<26} {name:<34} {wall:9.2f} s wall {ratio:7.2f}x  {quality}", flush=True
        )


def main() -> int:
    """Run the cases."""
    parser = make_parser(__doc__)
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
    rest, batches = nano_run(bench, str(start), 3 if arguments.quick else 9)
    reward_workers(bench, batches, rest)
    return bench.finish(arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
