"""J and F against the official DAVIS formula on OpenCV: `python benchmarks/metrics.py [--quick]`.

Pairs are one method's masks as prediction and another's as truth, for the objects of three DAVIS
sequences at 480p, resized for 1080p; noisy ones have one pixel in a hundred flipped. Without the shared
masks, moving discs take their place. Each call scores all pairs of a set, one after the other, on one
thread; times are per set. The peer is the published formula (davis2017-evaluation `metrics.py`): boundary
maps in numpy, dilation with a disk in OpenCV. `scoring with N processes` is wall time, for the scaling.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import sys
import time
from types import ModuleType
from typing import Any

import numpy as np
from harness import OURS, Benchmark, Missing, make_parser, optional, shared_directory
from numpy.typing import NDArray

from omni_sdk import native
from omni_sdk.datasets.images import read_labels
from omni_sdk.metrics.davis import boundary_f, region_similarity

PEER = "official formula, OpenCV"
SIZES = {"480p": (480, 854), "1080p": (1080, 1920)}
EVERY = 20
"""Every how many frames of a sequence are taken."""
BAR = 3.0
TOLERANCE = 1e-6

Mask = NDArray[np.bool_]
Pair = tuple[Mask, Mask]


def official_boundary(seg: Mask) -> Mask:
    """Boundary map of `_seg2bmap`."""
    e, s, se = (np.zeros_like(seg) for _ in range(3))
    e[:, :-1], s[:-1], se[:-1, :-1] = seg[:, 1:], seg[1:], seg[1:, 1:]
    edge = (seg ^ e) | (seg ^ s) | (seg ^ se)
    edge[-1], edge[:, -1] = seg[-1] ^ e[-1], seg[:, -1] ^ s[:, -1]
    edge[-1, -1] = False
    return edge


def official_f(cv2: ModuleType, pred: Mask, gt: Mask) -> float:
    """F of `f_measure`."""
    radius = math.ceil(0.008 * np.linalg.norm(pred.shape))
    grid = np.arange(-radius, radius + 1)
    disk = (grid[:, None] ** 2 + grid[None] ** 2 <= radius**2).astype(np.uint8)
    ours, theirs = official_boundary(pred), official_boundary(gt)
    near_ours = cv2.dilate(ours.astype(np.uint8), disk)
    near_theirs = cv2.dilate(theirs.astype(np.uint8), disk)
    n_ours, n_theirs = np.sum(ours), np.sum(theirs)
    if n_ours == 0 or n_theirs == 0:
        return float(n_ours == n_theirs)
    precision = np.sum(ours * near_theirs) / float(n_ours)
    recall = np.sum(theirs * near_ours) / float(n_theirs)
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def official_j(pred: Mask, gt: Mask) -> float:
    """J of `db_eval_iou`."""
    counted = np.logical_not(np.zeros_like(pred))
    inter, union = np.sum(pred & gt & counted), np.sum((pred | gt) & counted)
    return 1.0 if union == 0 else float(inter / union)


def real_pairs() -> list[Pair]:
    """Objects of the DAVIS sequences, at 480p; empty where the masks are not there."""
    folder = shared_directory() / "data" / "davis_masks"
    if not (folder / "expected.json").is_file():
        return []
    pairs = []
    for sequence, objects in json.loads((folder / "expected.json").read_text()).items():
        for truth in sorted((folder / "osvos" / sequence).glob("*.png"))[::EVERY]:
            gt, pred = read_labels(truth), read_labels(folder / "rvos" / sequence / truth.name)
            pairs += [(pred == o["prediction_id"], gt == int(k)) for k, o in objects.items()]
    return pairs


def synthetic_pairs() -> list[Pair]:
    """Discs that are a little off."""
    y, x = np.mgrid[: SIZES["480p"][0], : SIZES["480p"][1]]
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(24):
        cy, cx, r = rng.uniform(60, 420), rng.uniform(60, 790), rng.uniform(15, 160)
        dy, dx = rng.uniform(-12, 12, 2)
        gt = (y - cy) ** 2 + (x - cx) ** 2 < r * r
        pairs.append(((y - cy - dy) ** 2 + (x - cx - dx) ** 2 < (0.9 * r) ** 2, gt))
    return pairs


def resize(mask: Mask, size: tuple[int, int]) -> Mask:
    """Resize by the nearest pixel."""
    rows = (np.arange(size[0]) * mask.shape[0]) // size[0]
    columns = (np.arange(size[1]) * mask.shape[1]) // size[1]
    return np.ascontiguousarray(mask[rows[:, None], columns])


def noisy(pairs: list[Pair]) -> list[Pair]:
    """Flip one pixel in a hundred of the predictions."""
    rng = np.random.default_rng(0)
    return [(pred ^ (rng.random(pred.shape) < 0.01), gt) for pred, gt in pairs]


def run(bench: Benchmark, cv2: ModuleType | Missing, name: str, pairs: list[Pair]) -> None:
    """Compare F alone, and J with F, on one set of pairs."""
    jobs: dict[str, tuple[Any, Any]] = {
        "F": (boundary_f, lambda a, b: official_f(cv2, a, b)),
        "J and F": (
            lambda a, b: (region_similarity(a, b), boundary_f(a, b)),
            lambda a, b: (official_j(a, b), official_f(cv2, a, b)),
        ),
    }
    for job, (ours, theirs) in jobs.items():

        def work(function: Any = ours) -> list[Any]:
            return [function(*pair) for pair in pairs]

        def peer(function: Any = theirs) -> list[Any]:
            return [function(*pair) for pair in pairs]

        case = f"{name} {job}"
        quality = None
        if not isinstance(cv2, Missing):
            worst = float(np.abs(np.array(work()) - np.array(peer())).max())
            quality = {OURS: f"max |difference| {worst:g} over {len(pairs)} pairs"}
            bench.bar_value(
                f"{case}: equal to {TOLERANCE:g}", float(worst <= TOLERANCE), at_least=1
            )
        works = {OURS: work, PEER: cv2 if isinstance(cv2, Missing) else peer}
        bench.compare(case, works, quality, memory=True)
        bench.bar(f"{case}: speed", case=case, peer=PEER, at_least=BAR)


_shared_pairs: list[Pair] = []


def score_one(index: int) -> float:
    """Score a pair in a worker, which inherited the pairs; return the CPU seconds it took."""
    pred, gt = _shared_pairs[index % len(_shared_pairs)]
    start = time.process_time()
    region_similarity(pred, gt)
    boundary_f(pred, gt)
    return time.process_time() - start


def run_scaling(bench: Benchmark, pairs: list[Pair], rounds: int) -> None:
    """Time the same scoring with 1, 2, .. processes, alternating."""
    _shared_pairs[:] = pairs
    cores = len(os.sched_getaffinity(0))
    counts = sorted({1, 2, cores} & set(range(1, cores + 1)))
    jobs = range(len(pairs) * 8)
    context = multiprocessing.get_context("fork")
    pools = {n: context.Pool(n) for n in counts}
    samples: dict[int, list[tuple[float, float]]] = {n: [] for n in counts}
    for round_index in range(rounds + 1):
        for n, pool in pools.items():
            start = time.perf_counter()
            cpu = sum(pool.map(score_one, jobs, chunksize=len(pairs)))
            if round_index:  # the first warms the workers up
                samples[n].append((time.perf_counter() - start, cpu))
    for n, pool in pools.items():
        pool.terminate()
        # The best round of each: what else runs on the machine only ever adds.
        wall, cpu = (min(values) for values in zip(*samples[n], strict=True))
        wall_1, cpu_1 = (min(values) for values in zip(*samples[1], strict=True))
        row = {
            "case": "1080p scoring, wall",
            "implementation": f"{OURS}, {n} processes",
            "wall_s": wall,
            "cpu_s": cpu,
            "rounds": rounds,
            "quality": f"{wall_1 / wall:.2f}x the speed of one process, {cpu / cpu_1:.2f}x its CPU "
            f"time, {cores} cores, load {os.getloadavg()[0]:.1f}",
        }
        bench.rows.append(row)
        print(f"{row['case']:<26} {row['implementation']:<34} {row['quality']}", flush=True)


def main() -> int:
    """Run everything, print the table; return 1 where a bar is missed."""
    arguments = make_parser(__doc__).parse_args()
    if not native.available():
        raise SystemExit("the native module omni_sdk._core is not built")
    cv2 = optional("cv2")
    rounds = 5 if arguments.quick else 15
    bench = Benchmark("metrics", rounds=rounds, packages=["opencv-python-headless"])
    base = real_pairs() or synthetic_pairs()
    for label, size in SIZES.items():
        pairs = [(resize(a, size), resize(b, size)) for a, b in base]
        if arguments.quick:
            pairs = pairs[::3]
        run(bench, cv2, f"{label} real", pairs)
        run(bench, cv2, f"{label} noisy", noisy(pairs))
    run_scaling(bench, pairs, rounds)
    return bench.finish(arguments.json)


if __name__ == "__main__":
    sys.exit(main())
