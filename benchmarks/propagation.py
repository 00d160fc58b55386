"""Masks warped between tracked frames: `python benchmarks/propagation.py [--quick] [--json PATH]`.

(a) "carry": generated clips with exact masks through H.264 (see propagation_clips.py). A true mask is warped
    over gaps of 4 and 8 frames by ours and by OpenCV's DIS flow, warping the mask at every step. IoU, and CPU
    time per object and frame, one thread, in turns on every stretch. The method was tuned on the seeds
    below 6; --seed takes others.
(b) "pipeline": held-out demo clips that hold their target through the default bundle at strides 1, 2, 4, 8
    and "auto": mean J, its loss against stride 1, and the tracker's CPU time per frame, warping included.
    Then stride 4 again with other temporal distances in the tracker's memory. Tuned on numbers below 100 of
    each family.
(c) "real": the clips of ../shared/media with a box given by hand at strides 1, 4 and 8: IoU against stride 1,
    and overlay pictures in --overlays DIRECTORY.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from harness import OURS, Benchmark, Missing, make_parser, optional, shared_directory
from numpy.typing import NDArray
from propagation_clips import KINDS, Clip, make_clip

from omni_sdk import Pipeline
from omni_sdk.config import PipelineConfig, TrackingConfig
from omni_sdk.demo.clip import write_clip
from omni_sdk.demo.scene import make_scene
from omni_sdk.demo.world import FAMILIES, held_out_seed
from omni_sdk.dus.flow.warp import MaskWarper
from omni_sdk.dus.masks import mask_iou
from omni_sdk.dus.sam2.memory import MemoryLimits
from omni_sdk.dus.system import Found, make_prompts
from omni_sdk.dus.tracks import MaskTrack
from omni_sdk.events import Grounded, Reasoned
from omni_sdk.stages import KeyframePrompt

GAPS = (4, 8)
DIS = {
    "OpenCV DIS medium, full size": ("MEDIUM", 1),
    "OpenCV DIS ultrafast, half": ("ULTRAFAST", 2),
}
STRIDES: tuple[int | str, ...] = (1, 2, 4, 8, "auto")
# How far away the tracker's memory says a memory is, at stride 4. Shipped: a slot per stride, and distances
# of pointers in real frames.
MEMORIES: dict[str, dict[str, Any]] = {
    "a slot per real frame": {"stride": 1},
    "a slot by order": {"by_order": True},
}
# Boxes by hand: clip, frame, box_xyxy in pixels.
REAL = {
    "02_cups.mp4": (0, (572.0, 292.0, 738.0, 544.0)),  # the cup in the middle
    "refavs_demo.mp4": (0, (20.0, 140.0, 345.0, 716.0)),  # the drummer; 2 frames per second
}

Mask = NDArray[np.bool_]


def warp_ours(clip: Clip, start: int, gap: int) -> list[Mask]:
    """Masks of the `gap` frames after `start`."""
    warper = MaskWarper(clip.luma[start], clip.masks[start])
    return [warper.step(luma).mask for luma in clip.luma[start + 1 : start + 1 + gap]]


def warp_dis(cv2: Any, clip: Clip, start: int, gap: int, preset: str, shrink: int) -> list[Mask]:
    """The same by dense flow from each frame back to the one before."""
    flow = cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset}"))
    height, width = clip.luma.shape[1:]
    grid = np.dstack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)
    mask, masks = clip.masks[start].astype(np.float32), []
    for t in range(start, start + gap):
        pair = [clip.luma[t], clip.luma[t + 1]]
        if shrink > 1:
            small = (width // shrink, height // shrink)
            pair = [cv2.resize(image, small, interpolation=cv2.INTER_AREA) for image in pair]
        back = flow.calc(pair[1], pair[0], None)
        if shrink > 1:
            back = cv2.resize(back, (width, height)) * shrink
        mask = cv2.remap(mask, grid + back, None, cv2.INTER_LINEAR)
        masks.append(mask > 0.5)
    return masks


def bench_warp(bench: Benchmark, seeds: range, starts: Sequence[int]) -> None:
    """(a) Warped masks against the truth."""
    cv2 = optional("cv2")
    names = [OURS] if isinstance(cv2, Missing) else [OURS, *DIS]
    ious: dict[tuple[str, str, int], list[float]] = {}
    cpu: dict[tuple[str, str], list[float]] = {}
    for kind in KINDS:
        for seed in seeds:
            clip = make_clip(kind, seed)
            for n, start in enumerate(starts):
                for name in names if n % 2 == 0 else names[::-1]:
                    began = time.process_time()
                    if name == OURS:
                        masks = warp_ours(clip, start, max(GAPS))
                    else:
                        masks = warp_dis(cv2, clip, start, max(GAPS), *DIS[name])
                    cpu.setdefault((kind, name), []).append(
                        (time.process_time() - began) / max(GAPS)
                    )
                    for gap in GAPS:
                        truth = clip.masks[start + gap]
                        ious.setdefault((kind, name, gap), []).append(
                            mask_iou(masks[gap - 1], truth)
                        )
        for name in names:
            mean = {gap: float(np.mean(ious[kind, name, gap])) for gap in GAPS}
            spent = float(np.median(cpu[kind, name]))
            quality = "  ".join(f"IoU after {gap}: {mean[gap]:.4f}" for gap in GAPS)
            bench.rows.append(
                {"case": f"carry {kind}", "implementation": name, "cpu_s": spent, "quality": mean}
            )
            print(f"carry {kind:<12} {name:<30} {1e3 * spent:8.2f} ms cpu  {quality}", flush=True)
    for gap in GAPS:
        bench.bar_value(
            f"rigid IoU after {gap}", float(np.mean(ious["rigid", OURS, gap])), at_least=0.97
        )
    for name in names:
        means = {gap: float(np.mean([np.mean(ious[k, name, gap]) for k in KINDS])) for gap in GAPS}
        times = [np.array(cpu[kind, name]) / np.array(cpu[kind, OURS]) for kind in KINDS]
        ratio = float(np.median(np.concatenate(times)))
        bench.rows.append(
            {"case": "carry all kinds", "implementation": name, "ratio": ratio, "quality": means}
        )
        quality = "  ".join(f"IoU after {gap}: {means[gap]:.4f}" for gap in GAPS)
        print(f"carry all kinds    {name:<30} {ratio:8.2f}x cpu   {quality}", flush=True)
        if name == OURS:
            mine = means
            continue
        for gap in GAPS:
            bench.bar_value(f"IoU after {gap} less {name}", mine[gap] - means[gap], at_least=0.0)
        if name == names[1]:
            bench.bar_value(f"CPU time of {name} over ours", ratio, at_least=2.0)


class Recorder:
    """A tracker whose runs are timed: CPU seconds of the process, those inside the frame source left out."""

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker
        self._run: Any = None
        self.cpu_s = 0.0

    @property
    def image_size(self) -> int:
        """See `Tracker`."""
        size: int = self._tracker.image_size
        return size

    def track(self, frames: Any, prompts: Any, config: Any) -> Any:
        """See `Tracker`."""
        self.cpu_s = 0.0
        self._frames = frames
        self.height, self.width = frames.height, frames.width
        self.num_frames = frames.num_frames
        self._run = self._tracker.track(self, prompts, config)
        return self

    def __iter__(self) -> Iterator[Any]:
        return self._timed(iter(self._run), 1.0)

    @property
    def object_ids(self) -> Any:
        """See `TrackingRun`."""
        return self._run.object_ids

    @property
    def timings_ms(self) -> dict[str, float]:
        """See `TrackingRun`."""
        timings: dict[str, float] = self._run.timings_ms
        return timings

    def forward(self, *args: int, **options: bool) -> Iterator[Any]:
        """See `FrameSource`."""
        return self._timed(self._frames.forward(*args, **options), -1.0)

    def backward(self, *args: int, **options: bool) -> Iterator[Any]:
        """See `FrameSource`."""
        return self._timed(self._frames.backward(*args, **options), -1.0)

    def _timed(self, items: Iterator[Any], sign: float) -> Iterator[Any]:
        while True:
            began = time.process_time()
            item = next(items, None)
            self.cpu_s += sign * (time.process_time() - began)
            if item is None:
                return
            yield item


def union_at(tracks: Sequence[MaskTrack], frame_index: int, size: tuple[int, int]) -> Mask:
    """Union of the tracks' masks in a frame."""
    mask = np.zeros(size, bool)
    for track in tracks:
        if frame_index in track.frame_indices:
            mask |= track.mask_at(frame_index)
    return mask


def find_prompts(pipe: Pipeline, path: Path, query: str) -> list[KeyframePrompt]:
    """Reason and ground once: neither depends on the stride."""
    reasoned: Reasoned = pipe.reason(path, query)
    if not reasoned.keyframes:
        return []
    grounded: Grounded = pipe.ground(path, reasoned.keyframes)
    return make_prompts(list(map(Found, grounded.keyframes, grounded.boxes)))[0]


def clips_with_targets(first: int) -> Iterator[tuple[int, str]]:
    """Yield (seed, family) of held-out clips from number `first` of each family on, without end."""
    for number in count(first):
        for family in FAMILIES:
            if family != "null":
                yield held_out_seed(family, number), family


def remembering(options: dict[str, Any]) -> AbstractContextManager[object]:
    """Give the tracker's memory other limits than a run's options give it."""
    if not options:
        return nullcontext()

    def limits(*args: Any, **given: Any) -> MemoryLimits:
        return MemoryLimits(*args, **{**given, **options})

    return patch("omni_sdk.dus.sam2.tracker.MemoryLimits", limits)


class Runs:
    """What each way of tracking a clip gave: mean J, CPU seconds per frame, share of frames tracked."""

    def __init__(self) -> None:
        self.j: dict[str, list[float]] = {}
        self.cpu_s: dict[str, list[float]] = {}
        self.tracked: dict[str, list[float]] = {}

    def add(
        self, name: str, tracks: Sequence[MaskTrack], masks: Sequence[Mask], cpu_s: float
    ) -> None:
        """Score one clip's tracks against its true masks."""
        size = (masks[0].shape[0], masks[0].shape[1])
        js = [mask_iou(union_at(tracks, t, size), mask) for t, mask in enumerate(masks)]
        shares = [source == "tracked" for track in tracks for source in track.sources]
        self.j.setdefault(name, []).append(float(np.mean(js)))
        self.cpu_s.setdefault(name, []).append(cpu_s / len(masks))
        self.tracked.setdefault(name, []).append(float(np.mean(shares)))

    def row(self, name: str, fps: float) -> dict[str, Any]:
        """One row of the table: medians of time, means of J, the loss with its standard error."""
        reference = np.array(self.j["stride 1"])
        losses = reference - np.array(self.j[name])
        cpu = np.array(self.cpu_s[name])
        return {
            "case": f"pipeline {fps:g} fps, {len(losses)} clips with masks",
            "implementation": name,
            "cpu_s": float(np.median(cpu)),
            "ratio": float(np.median(np.array(self.cpu_s["stride 1"]) / cpu)),
            "quality": {
                "j": float(np.mean(self.j[name])),
                "j_loss": float(losses.mean()),
                "j_loss_error": float(losses.std() / max(len(losses), 1) ** 0.5),
                "tracked": float(np.mean(self.tracked[name])),
            },
        }


def bench_pipeline(bench: Benchmark, clips: int, fps: float, first: int) -> None:
    """(b) The default bundle on demo clips, every way in turn on each clip."""
    pipe = Pipeline.from_pretrained("nano")
    recorder = Recorder(pipe.tracker)
    pipe = dataclasses.replace(pipe, tracker=recorder)
    ways = {f"stride {s}": (s, {}) for s in STRIDES}
    ways |= {f"stride 4, {name}": (4, options) for name, options in MEMORIES.items()}
    runs, done = Runs(), 0
    with tempfile.TemporaryDirectory() as folder:
        for number, (seed, family) in enumerate(clips_with_targets(first)):
            path = Path(folder) / "clip.mp4"
            truth = write_clip(make_scene(seed, family), path, size=(384, 384), fps=fps)
            prompts = find_prompts(pipe, path, truth.query)
            if not prompts:
                print(f"clip {seed}: the reasoner finds nothing; no masks, left out")
                continue
            targets = [index + 1 for index, _ in truth.scene.answers]
            masks = [np.isin(truth.object_map(t), targets) for t in range(truth.num_frames)]
            for name in list(ways)[:: 1 if number % 2 else -1]:
                stride, options = ways[name]
                tracking = TrackingConfig(stride=stride)  # type: ignore[arg-type]
                # Decoding in a thread of its own would count: CPU time is the process's.
                config = PipelineConfig(tracking=tracking, overlap=False)
                with remembering(options):
                    tracks = pipe.track(path, prompts, config=config)
                runs.add(name, tracks, masks, recorder.cpu_s)
            done += 1
            if done % 10 == 0 or done == clips:
                print(f"after {done} clips, last seed {seed}")
                rows = [runs.row(name, fps) for name in ways]
                for row in rows:
                    print_pipeline_row(row)
            if done == clips:
                break
    bench.rows += rows
    four, auto = rows[list(ways).index("stride 4")], rows[list(ways).index("stride auto")]
    bench.bar_value("J at stride 4 less J at stride 1", -four["quality"]["j_loss"], at_least=-0.02)
    bench.bar_value("tracker time of stride 1 over stride 4", four["ratio"], at_least=3.0)
    fixed = sorted((r["cpu_s"], r["quality"]["j"]) for r in rows[: len(STRIDES) - 1])
    equal = np.interp(auto["cpu_s"], *zip(*fixed, strict=True))
    bench.bar_value(
        "J of auto less fixed strides' at its cost", auto["quality"]["j"] - equal, at_least=0.0
    )


def print_pipeline_row(row: dict[str, Any]) -> None:
    """Print one row of part (b)."""
    q = row["quality"]
    print(
        f"  {row['implementation']:<32} {1e3 * row['cpu_s']:7.2f} ms cpu/frame  {row['ratio']:5.2f}x  "
        f"J {q['j']:.4f}  loss {q['j_loss']:+.4f} +-{q['j_loss_error']:.4f}  "
        f"tracked {q['tracked']:.2f}",
        flush=True,
    )


def bench_real(bench: Benchmark, overlays: Path | None) -> None:
    """(c) Real clips, a box by hand."""
    folder = shared_directory() / "media"
    pipe = Pipeline.from_pretrained("nano")
    for name, (frame_index, box) in REAL.items():
        path = folder / name
        if not path.exists():
            print(f"real {name}: missing {path}")
            continue
        prompt = KeyframePrompt(frame_index, np.array([box], np.float32))
        reference: MaskTrack | None = None
        for stride in (1, 4, 8):
            config = PipelineConfig(tracking=TrackingConfig(stride=stride))
            (track,) = pipe.track(path, [prompt], config=config)
            reference = reference or track
            ious = [
                mask_iou(track.mask_at(int(t)), reference.mask_at(int(t)))
                for t in track.frame_indices
            ]
            value = float(np.mean(ious))
            bench.rows.append(
                {"case": f"real {name}", "implementation": f"stride {stride}", "quality": value}
            )
            print(f"real {name:<18} stride {stride}: IoU with stride 1 {value:.4f}", flush=True)
            if overlays is not None:
                write_overlay(path, track, overlays / f"{path.stem}_stride{stride}.png")


def write_overlay(path: Path, track: MaskTrack, target: Path) -> None:
    """Write six frames of a clip side by side, the mask in red (warped) or green (tracked)."""
    from omni_sdk.media.source import open_source

    indices = np.linspace(0, len(track) - 1, 8).astype(int)[1:-1]
    with open_source(path) as video:
        images = video.fetch(indices).frames
    columns = []
    for image, index in zip(images, indices, strict=True):
        picture = image.copy()
        colour = (0, 220, 0) if track.sources[index] == "tracked" else (255, 40, 40)
        mask = track.mask_at(int(index))
        picture[mask] = (picture[mask] * 0.5 + np.array(colour) * 0.5).astype(np.uint8)
        columns.append(picture[::2, ::2])
    from PIL import Image

    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(columns, 1)).save(target)


def main() -> int:
    """Run the parts that were asked for."""
    parser = make_parser(__doc__, quick="fewer clips")
    parser.add_argument("--part", choices=("carry", "pipeline", "real"), action="append")
    parser.add_argument("--clips", type=int, default=100, help="demo clips of part (b)")
    parser.add_argument(
        "--seed",
        type=int,
        help="first seed of part (a) (0), first clip of each family in (b) (200)",
    )
    parser.add_argument("--fps", type=float, default=8.0, help="frame rate of the demo clips")
    parser.add_argument("--overlays", type=Path, help="directory for the pictures of part (c)")
    arguments = parser.parse_args()
    parts = arguments.part or ("carry", "pipeline", "real")
    bench = Benchmark(
        "propagation", rounds=1, packages=["opencv-python-headless", "av", "onnxruntime"]
    )
    seed = arguments.seed
    if "carry" in parts:
        first = 0 if seed is None else seed
        seeds = range(first, first + (1 if arguments.quick else 6))
        bench_warp(bench, seeds, (0, 8) if arguments.quick else (0, 4, 8, 12, 16))
    if "pipeline" in parts:
        clips = 10 if arguments.quick else arguments.clips
        bench_pipeline(bench, clips, arguments.fps, 200 if seed is None else seed)
    if "real" in parts:
        bench_real(bench, arguments.overlays)
    return bench.finish(arguments.json)


if __name__ == "__main__":
    sys.exit(main())
