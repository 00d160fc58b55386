"""Reward workers over the procedural world: scores, caching, failures; Ray where it is installed."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from omni_training.data.world import WorldClip, world_scorer
from omni_training.rewards.jobs import DusScores, GroundingPoint, RewardJob
from omni_training.rewards.masks import mask_reward
from omni_training.workers.local import LocalBackend
from omni_training.workers.scorer import ClipScorer, build_scorer

from omni_sdk.config import TrackingConfig
from omni_sdk.demo.world import held_out_seed
from omni_sdk.errors import BackendUnavailableError, DatasetError, MediaError
from omni_sdk.stages import FrameMasks, GroundedBox, KeyframePrompt, ObjectMask

SAMPLE = f"direct:{held_out_seed('direct', 0)}"


def visible_frames(clip: WorldClip) -> list[int]:
    return np.flatnonzero(clip.truth.union_areas).tolist()


def job(sample_id: str = SAMPLE, *, shift: float = 0.0, preset: str = "paper") -> RewardJob:
    """A job whose boxes are the true ones, moved to the right."""
    clip = WorldClip(sample_id)
    points = []
    for frame in visible_frames(clip)[:2]:
        box = clip.truth.boxes_at(frame)[0] + np.array([shift, 0, shift, 0], np.float32)
        corners = tuple(float(v) for v in box)
        points.append(GroundingPoint(frame, frame, "it", (corners,)))  # type: ignore[arg-type]
    return RewardJob(sample_id, sample_id, tuple(points), masks=False, preset=preset)


def score(backend: Any, *jobs: RewardJob) -> list[DusScores | None]:
    return asyncio.run(backend.score(jobs))


def test_jobs_survive_json() -> None:
    from json import dumps, loads

    value = job()
    assert RewardJob.from_dict(loads(dumps(value.to_dict()))) == value
    open_point = GroundingPoint(1, 2, "words")
    value = replace(value, points=(open_point,), masks=True)
    assert RewardJob.from_dict(loads(dumps(value.to_dict()))) == value


def test_wrong_jobs_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 64 keyframes"):
        RewardJob("a", "a", (GroundingPoint(0, 0, ""),) * 65)
    with pytest.raises(ValueError, match="expected a preset"):
        world_scorer().score(job(preset="other"))


def test_true_boxes_earn_everything_and_moved_ones_less() -> None:
    backend = LocalBackend(world_scorer())
    exact, moved, reference = score(backend, job(), job(shift=10), job(preset="reference", shift=0))
    assert exact is not None
    assert moved is not None
    assert reference is not None
    assert exact.box == pytest.approx(1.0)
    assert 0.1 < moved.box < 0.9
    # The published code takes boxes to include their last pixel: half-open ones lose a rim.
    assert 0.8 < reference.box < 1.0


class MadeRun(list[FrameMasks]):
    """A `TrackingRun` whose masks are there from the start."""

    object_ids: ClassVar[list[tuple[int, ...]]] = [(1,)]
    timings_ms: ClassVar[dict[str, float]] = {}


class TrueMaskTracker:
    """A tracker of known quality: the target's own masks, shifted; counts its runs."""

    image_size = 32

    def __init__(self) -> None:
        self.runs = 0

    def track(self, frames: Any, prompts: list[KeyframePrompt], config: TrackingConfig) -> Any:
        from omni_sdk.dus.masks import rle_encode

        self.runs += 1
        mask = np.zeros((frames.height, frames.width), bool)
        mask[:, : frames.width // 2] = True
        half = (ObjectMask(1, rle_encode(mask), 1.0),)
        return MadeRun(
            FrameMasks(frame.frame_index, frame.pts_seconds, half)
            for frame in frames.forward(0, frames.num_frames)
        )


class CountingGrounder:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def ground(self, images: list[Any], descriptions: list[str]) -> list[tuple[GroundedBox, ...]]:
        self.asked += descriptions
        box = np.array([1, 1, 20, 20], np.float32)
        return [() if d == "nothing" else (GroundedBox(box, d),) for d in descriptions]


def test_a_group_grounds_and_propagates_each_question_once() -> None:
    grounder, tracker = CountingGrounder(), TrueMaskTracker()
    scorer = ClipScorer(lambda s: WorldClip(s, tracker_size=32), grounder, tracker)
    points = (GroundingPoint(3, 3, "a"), GroundingPoint(8, 8, "b"))
    group = RewardJob(SAMPLE, "clip", points)
    first = [scorer.score(group) for _ in range(8)]
    assert grounder.asked == ["a", "b"]
    assert tracker.runs == 1
    assert len({s.mask for s in first}) == 1
    half = np.zeros((96, 96), bool)
    half[:, :48] = True
    clip = WorldClip(SAMPLE)
    expected = mask_reward((half, true) for true in clip.true_masks().values())
    assert first[0].mask == pytest.approx(expected)


def test_a_second_look_is_paid_where_it_finds() -> None:
    """Boxes are compared with the truth of the frame on which they were found."""

    seen = "direct:20000002"  # its target is there from the first frame on

    class OnFrame(CountingGrounder):
        def ground(self, images: list[Any], descriptions: list[str]) -> list[Any]:
            clip = WorldClip(seen)
            true = clip.truth.boxes_at(8)[0]
            self.asked += descriptions
            return [
                (GroundedBox(true, d),) if np.array_equal(i, clip.image(8)) else ()
                for i, d in zip(images, descriptions, strict=True)
            ]

    def look(*others: tuple[int, int]) -> Any:
        grounder = OnFrame()
        scorer = ClipScorer(lambda s: WorldClip(s, tracker_size=32), grounder, TrueMaskTracker())
        point = GroundingPoint(3, 3, "a", second_looks=others)
        job = RewardJob.from_dict(RewardJob(seen, "clip", (point,)).to_dict())
        assert job.points == (point,)
        return scorer.score(job), len(grounder.asked)

    (none, asked), (found, asked_again) = look(), look((6, 6), (3, 3), (8, 8), (9, 9))
    assert (none.box, none.num_boxes, asked) == (0.0, 0, 1)
    assert (found.num_boxes, asked_again) == (1, 3)  # frame 3 was looked at, and 9 is not needed
    assert found.box == pytest.approx(1.0)


def test_nothing_found_is_no_propagation() -> None:
    tracker = TrueMaskTracker()
    scorer = ClipScorer(lambda s: WorldClip(s), CountingGrounder(), tracker)
    got = scorer.score(RewardJob(SAMPLE, "clip", (GroundingPoint(3, 3, "nothing"),)))
    assert (got.mask, got.num_boxes, tracker.runs) == (0.0, 0, 0)


def test_clips_held_are_bounded() -> None:
    loaded: list[str] = []

    def load(sample_id: str) -> WorldClip:
        loaded.append(sample_id)
        return WorldClip(sample_id)

    scorer = ClipScorer(load, None, None, max_clips=2)
    names = [f"direct:{i}" for i in (1, 2, 1, 3, 1, 2)]
    for name in names:
        scorer.score(RewardJob(name, name, (), masks=False))
    assert loaded == ["direct:1", "direct:2", "direct:3", "direct:2"]


def test_a_failing_job_is_none_and_counted() -> None:
    def load(sample_id: str) -> WorldClip:
        if sample_id == "bad":
            raise MediaError("bad.mp4: truncated")
        return WorldClip(sample_id)

    backend = LocalBackend(ClipScorer(load, None, None))
    good, bad, late = score(backend, job(), replace(job(), sample_id="bad"), job())
    assert bad is None
    assert good is not None
    assert late is not None
    assert (backend.stats.jobs, backend.stats.failed, backend.stats.retried) == (3, 1, 1)


@pytest.mark.parametrize("factory", ["", "json", "json:loads", "omni_training.nowhere:x"])
def test_factories_are_checked(factory: str) -> None:
    with pytest.raises((ValueError, TypeError, ImportError)):
        build_scorer(factory, {})


def test_samples_of_the_world_are_checked() -> None:
    for name in ("direct", "direct:x", "other:1", "direct:-1", "direct:" + "9" * 40):
        with pytest.raises(DatasetError, match="FAMILY:SEED"):
            WorldClip(name)


class FaultyScorer(ClipScorer):
    """Does what the first point's description says."""

    tries = 0

    def score(self, job: RewardJob) -> DusScores:
        order = job.points[0].description
        if order == "fail once":
            self.tries += 1
            if self.tries % 2:
                raise MediaError("as asked, the first time")
        if order == "slow":
            time.sleep(1.0)
        if order == "raise":
            raise MediaError("as asked")
        if order == "die":
            os._exit(1)
        if order == "hang":
            time.sleep(60)
        return DusScores(box=float(os.getpid()), mask=None)


def faulty() -> FaultyScorer:
    return FaultyScorer(WorldClip, None, None)


def broken() -> FaultyScorer:
    raise MediaError("bundle.json: as asked")


class CountingScorer(ClipScorer):
    """Tells how many clips it has loaded, and how many jobs it has had."""

    def __init__(self) -> None:
        super().__init__(WorldClip, None, None)
        self.jobs = 0

    def score(self, job: RewardJob) -> DusScores:
        self.jobs += 1
        self._entry(job.sample_id)
        return DusScores(box=float(len(self._entries)), mask=None, num_boxes=self.jobs)


def counting() -> CountingScorer:
    return CountingScorer()


def test_a_job_is_tried_twice_before_it_is_given_up() -> None:
    backend = LocalBackend(faulty())
    (once,) = score(backend, command("fail once", "a"))
    assert once is not None
    assert (backend.stats.failed, backend.stats.retried) == (0, 1)


needs_ray = pytest.mark.usefixtures("ray")


@pytest.fixture(scope="module")
def private_ray() -> Iterator[None]:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    folder = str(Path(__file__).parent)
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 << 20,
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}},
    )
    yield
    ray.shutdown()


def command(order: str, clip: str) -> RewardJob:
    return RewardJob("any:1", clip, (GroundingPoint(0, 0, order),), masks=False)


@needs_ray
def test_ray_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from omni_training.workers.ray_backend import RayBackend

    def timed_out(**_: Any) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", timed_out)
    with pytest.raises(BackendUnavailableError, match=r"ray does not start: .*timed out"):
        RayBackend("test_workers:faulty", {})


@needs_ray
def test_ray_scores_like_local_and_routes_by_clip(private_ray: None) -> None:
    from omni_training.workers.ray_backend import RayBackend

    jobs = [job(), job(shift=10), job(f"direct:{held_out_seed('direct', 1)}", shift=5)]
    local = score(LocalBackend(world_scorer()), *jobs)
    backend = RayBackend("omni_training.data.world:world_scorer", {}, num_workers=2, num_cpus=0.5)
    remote = score(backend, *jobs)
    backend.close()
    assert [s and s.box for s in remote] == [s and s.box for s in local]
    assert backend.stats.failed == 0


@needs_ray
def test_ray_outlives_what_jobs_do(private_ray: None) -> None:
    """An exception, a dying and a hanging worker: None, counted, replaced; the next job is served."""
    from omni_training.workers.ray_backend import RayBackend

    backend = RayBackend(
        "test_workers:faulty", {}, num_workers=2, num_cpus=0.5, timeout_seconds=120
    )
    a, b = "first", "second"
    pids = [s and s.box for s in score(backend, *[command("ok", c) for c in (a, a, b, a, b)])]
    assert pids[0] == pids[1] == pids[3] != pids[2] == pids[4]
    assert score(backend, command("raise", a), command("ok", b))[0] is None
    assert backend.stats.replaced_workers == 0
    assert score(backend, command("die", a)) == [None]
    assert backend.stats.replaced_workers == 2
    (after,) = score(backend, command("ok", a))
    assert after is not None
    assert after.box not in pids
    backend._timeout = 2.0
    assert score(backend, command("hang", b)) == [None]
    # Still two seconds for the job: how long its new worker takes to start does not count.
    assert score(backend, command("ok", b))[0] is not None
    assert (backend.stats.failed, backend.stats.retried) == (3, 3)
    backend.close()
    backend.close()


def test_clips_keep_their_worker_and_spread_evenly() -> None:
    from collections import OrderedDict

    from omni_training.workers.ray_backend import RayBackend

    backend = RayBackend.__new__(RayBackend)
    backend._workers, backend._homes = [None] * 4, OrderedDict()
    batch = [f"clip{i}" for i in range(8) for _ in range(8)]
    slots = backend._route(batch)
    assert sorted(slots) == [slot for slot in range(4) for _ in range(16)], "two clips for each"
    assert all(len(set(slots[i : i + 8])) == 1 for i in range(0, 64, 8)), "a clip has one worker"
    assert backend._route(batch[::-1]) == slots[::-1], "and keeps it"
    uneven = backend._route(["new", *["clip0"] * 9])
    assert uneven[0] != uneven[1]
    alone = {backend._route([f"single{i}"])[0] for i in range(40)}
    assert alone == {0, 1, 2, 3}, "clips that come alone use every worker"
    for i in range(1000):
        backend._route([f"more{i}"])
    assert len(backend._homes) == 256


@needs_ray
def test_ray_keeps_a_groups_other_rollouts(private_ray: None) -> None:
    """A job that kills its worker twice costs itself only; one that failed once is scored."""
    from omni_training.workers.ray_backend import RayBackend

    backend = RayBackend("test_workers:faulty", {}, num_workers=1, num_cpus=0.5, timeout_seconds=60)
    orders = ["ok", "die", "ok", "fail once", "ok"]
    found = score(backend, *[command(order, "clip") for order in orders])
    assert [s is None for s in found] == [False, True, False, False, False]
    assert (backend.stats.failed, backend.stats.retried) == (1, 2)
    assert backend.stats.replaced_workers == 2
    backend.close()


@needs_ray
def test_ray_counts_a_jobs_time_from_its_start(private_ray: None) -> None:
    """Four jobs of one second each wait for each other, under a limit of two and a half seconds each."""
    from omni_training.workers.ray_backend import RayBackend

    backend = RayBackend("test_workers:faulty", {}, num_workers=1, num_cpus=0.5, timeout_seconds=60)
    backend._timeout = 2.5
    found = score(backend, *[command("slow", "clip")] * 4)
    backend.close()
    assert all(s is not None for s in found)
    assert backend.stats.replaced_workers == 0


@needs_ray
def test_ray_workers_that_do_not_start_are_told_at_once(private_ray: None) -> None:
    from omni_training.workers.ray_backend import RayBackend

    with pytest.raises(BackendUnavailableError, match=r"broken.*bundle\.json: as asked"):
        RayBackend("test_workers:broken", {}, num_workers=2, num_cpus=0.5)


@needs_ray
def test_rollouts_of_a_group_share_a_worker_and_its_clip(private_ray: None) -> None:
    """Sticky routing: eight rollouts of one clip load it once; two clips on two workers do not meet."""
    from omni_training.workers.ray_backend import RayBackend

    backend = RayBackend("test_workers:counting", {}, num_workers=2, num_cpus=0.5)
    clips = ("direct:100", "direct:101")
    jobs = [RewardJob(c, c, (GroundingPoint(3, 3, f"{k}"),)) for c in clips for k in range(8)]
    found = score(backend, *jobs)
    backend.close()
    assert [s and s.box for s in found] == [1.0] * 16
    assert [s and s.num_boxes for s in found] == [*range(1, 9), *range(1, 9)]
