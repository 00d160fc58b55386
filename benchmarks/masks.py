"""Mask kernels against OpenCV, pycocotools and torch: `python benchmarks/masks.py [--quick]`.

Real masks are annotations and predictions of DAVIS 2017 at 480p, resized; noisy ones have one pixel in
a hundred flipped (and in the full run, "coin": every pixel is random, the worst case for runs).
Each call handles all masks of a set, one after the other, on one thread; times are per set. The boundary
measure F has its own benchmark, metrics.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
from harness import OURS, Benchmark, Missing, Work, make_parser, optional, shared_directory
from numpy.typing import NDArray

from omni_sdk import native
from omni_sdk.dus import masks as omni

SIZES = {"480p": (480, 854), "1080p": (1080, 1920), "4K": (2160, 3840)}
FRAMES = ("bike-packing/00010", "gold-fish/00030", "judo/00010")
LOW_RES = 256
MIN_AREA = MAX_HOLE = 200

Masks = list[NDArray[np.uint8]]


def resize_nearest(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize by the nearest pixel, so that the real shape stays."""
    rows = (np.arange(size[0]) * mask.shape[0]) // size[0]
    columns = (np.arange(size[1]) * mask.shape[1]) // size[1]
    return np.ascontiguousarray(mask[rows[:, None], columns])


def load_real() -> Masks:
    """Foreground of the DAVIS frames, smoothed where they were stored at 480p; or synthetic ones."""
    image = optional("PIL.Image")
    folder = shared_directory() / "data" / "davis_masks"
    paths = [p for name in FRAMES for p in sorted(folder.glob(f"*/{name}.png"))]
    if isinstance(image, Missing) or not paths:
        raise SystemExit(f"this benchmark needs pillow and the DAVIS masks in {folder}")
    return [(np.asarray(image.open(path)) != 0).astype(np.uint8) for path in paths]


def mask_sets(size: tuple[int, int], *, coin: bool) -> dict[str, Masks]:
    """Real, noisy and, where asked for, random masks of one size."""
    rng = np.random.default_rng(0)
    real = [resize_nearest(mask, size) for mask in load_real()]
    sets = {"real": real, "noisy": [m ^ (rng.random(size) < 0.01).astype(np.uint8) for m in real]}
    if coin:
        sets["coin"] = [(rng.random(size) < 0.5).astype(np.uint8)]
    return sets


def logit_sets() -> dict[str, list[NDArray[np.float32]]]:
    """Low-resolution logits: smooth around the edges of real masks, and with noise on top."""
    rng = np.random.default_rng(1)
    out = []
    for mask in load_real():
        big = resize_nearest(mask, (LOW_RES * 4, LOW_RES * 4)).astype(np.float32)
        share = big.reshape(LOW_RES, 4, LOW_RES, 4).mean((1, 3))
        out.append((20 * (share - 0.5)).astype(np.float32))
    noisy = [(x + rng.normal(0, 5, x.shape)).astype(np.float32) for x in out]
    return {"real": out, "noisy": noisy}


def each(function: Callable[..., object], *lists: list) -> Work:
    """Return a call of `function` on every element."""
    rows = list(zip(*lists, strict=True))

    def work() -> list[object]:
        return [function(*row) for row in rows]

    return work


def same(work: Work | Missing, expected: list) -> str | None:
    """Say whether an implementation gives the expected results."""
    if isinstance(work, Missing):
        return None
    equal = all(np.array_equal(a, b) for a, b in zip(work(), expected, strict=True))
    return "identical" if equal else "DIFFERS"


def opencv_clean(cv2: ModuleType, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Remove components and fill holes with connectedComponentsWithStats and a look-up table."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= MIN_AREA
    keep[0] = False
    kept = keep[labels].view(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - kept, connectivity=4)
    left, top, width, height = (stats[:, i] for i in range(4))
    inside = (
        (left > 0) & (top > 0) & (left + width < mask.shape[1]) & (top + height < mask.shape[0])
    )
    fill = (stats[:, cv2.CC_STAT_AREA] <= MAX_HOLE) & inside
    fill[0] = False
    return kept | fill[labels].view(np.uint8)


class Peers:
    """The peers that are installed, each as a function of one mask, or as `Missing`."""

    def __init__(self) -> None:
        self.coco = optional("pycocotools.mask")
        self.cv2 = optional("cv2")
        self.torch = optional("torch")

    def needs(self, function: Work, *modules: ModuleType | Missing) -> Work | Missing:
        """Return the function, or the first of its modules that is missing."""
        return next((m for m in modules if isinstance(m, Missing)), function)


def run_logits(bench: Benchmark, peers: Peers, label: str, size: tuple[int, int]) -> None:
    """Logits -> upsample -> threshold -> RLE."""
    coco, cv2, torch = peers.coco, peers.cv2, peers.torch

    def with_opencv(logits: NDArray[np.float32]) -> bytes:
        full = cv2.resize(logits, size[::-1], interpolation=cv2.INTER_LINEAR) > 0
        return coco.encode(np.asfortranarray(full.view(np.uint8)))["counts"]

    def with_torch(logits: NDArray[np.float32]) -> bytes:
        full = torch.nn.functional.interpolate(
            torch.from_numpy(logits)[None, None], size=size, mode="bilinear", align_corners=False
        )[0, 0].numpy()
        return coco.encode(np.asfortranarray((full > 0).view(np.uint8)))["counts"]

    for kind, logits in logit_sets().items():
        works = {
            OURS: each(lambda x: omni.logits_to_rle(x, size), logits),
            "OpenCV + pycocotools": peers.needs(each(with_opencv, logits), cv2, coco),
            "torch + pycocotools": peers.needs(each(with_torch, logits), torch, coco),
        }
        quality = {}
        if not isinstance(works["torch + pycocotools"], Missing):
            expected = works["torch + pycocotools"]()
            quality = {name: same(work, expected) for name, work in works.items()}
        case = f"{label} {kind} logits->RLE"
        bench.compare(case, works, quality, memory=True)
        bench.bar(case, case=case, peer="OpenCV + pycocotools", at_least=2.0)


def run_rle(bench: Benchmark, peers: Peers, name: str, masks: Masks, *, barred: bool) -> None:
    """Encode, decode and IoU against pycocotools."""
    coco = peers.coco
    size = masks[0].shape
    texts = [omni.rle_encode(mask) for mask in masks]
    moved = [omni.rle_encode(np.roll(mask, (7, 5), (0, 1))) for mask in masks]
    objects = [{"size": list(size), "counts": text} for text in texts]
    others = [{"size": list(size), "counts": text} for text in moved]

    encode = {
        OURS: each(omni.rle_encode, masks),
        "pycocotools": peers.needs(
            each(lambda m: coco.encode(np.asfortranarray(m))["counts"], masks), coco
        ),
    }
    decode = {
        OURS: each(lambda t: omni.rle_decode(t, size), texts),
        "pycocotools (column-major)": peers.needs(each(lambda o: coco.decode(o), objects), coco),
        "pycocotools, made row-major": peers.needs(
            each(lambda o: np.ascontiguousarray(coco.decode(o)), objects), coco
        ),
    }
    iou = {
        OURS: each(lambda a, b: omni.rle_iou(a, b, size), texts, moved),
        "pycocotools": peers.needs(
            each(lambda a, b: coco.iou([a], [b], [0])[0, 0], objects, others), coco
        ),
    }
    peer_of = {
        "encode": "pycocotools",
        "decode": "pycocotools (column-major)",
        "IoU": "pycocotools",
    }
    bars = {"encode": 5.0, "decode": 1.0, "IoU": 1.0}
    for job, works in (("encode", encode), ("decode", decode), ("IoU", iou)):
        expected = works[OURS]()
        quality = {n: same(w, expected) for n, w in works.items()}
        case = f"{name} {job}"
        bench.compare(case, works, quality, memory=job == "encode")
        if barred:
            bench.bar(case, case=case, peer=peer_of[job], at_least=bars[job])


def run_shapes(bench: Benchmark, peers: Peers, name: str, masks: Masks, *, barred: bool) -> None:
    """Clean-up against OpenCV."""
    cv2 = peers.cv2
    works = {
        OURS: each(lambda m: omni.clean_mask(m, min_area=MIN_AREA, max_hole=MAX_HOLE), masks),
        "OpenCV": peers.needs(each(lambda m: opencv_clean(cv2, m), masks), cv2),
    }
    expected = works[OURS]()
    case = f"{name} clean-up"
    bench.compare(case, works, {n: same(w, expected) for n, w in works.items()}, memory=True)
    if barred:
        bench.bar(case, case=case, peer="OpenCV", at_least=20.0)


def main() -> int:
    """Run everything, print the table; return 1 where a bar is missed."""
    arguments = make_parser(__doc__).parse_args()
    if not native.available():
        raise SystemExit("the native module omni_sdk._core is not built")
    packages = ["pycocotools", "opencv-python-headless", "torch", "pillow"]
    bench = Benchmark("masks", rounds=5 if arguments.quick else 9, packages=packages)
    peers = Peers()
    for label, size in SIZES.items():
        run_logits(bench, peers, label, size)
        for kind, masks in mask_sets(size, coin=not arguments.quick).items():
            run_rle(bench, peers, f"{label} {kind}", masks, barred=kind != "coin")
            run_shapes(bench, peers, f"{label} {kind}", masks, barred=kind != "coin")
    return bench.finish(arguments.json)


if __name__ == "__main__":
    sys.exit(main())
