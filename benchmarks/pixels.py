"""Fast pixels against exact ones: `python benchmarks/pixels.py [--quick]`.

Exact is libswscale's RGB and torchvision's resize, bit for bit; fast is one pass from the decoder's
planes. The first table is the PSNR of fast against exact by pixel format, matrix and range, and of both
against the picture that the planes were made from (resized in float), on frames of the shared clips and on
FFmpeg's testsrc2. libswscale reads and makes (here, too) chroma that lies between its two luma columns; the
fast path takes it to lie on the left one, as H.264 and HEVC have it where nothing is stated: it is also shown
when it is told "centre". Then CPU time, per pair of frames (one row of patches in time), patches included.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from harness import OURS, Benchmark, Missing, Work, make_parser, optional, shared_directory
from numpy.typing import NDArray

from omni_sdk.media.pixels.convert import RgbConverter
from omni_sdk.media.pixels.fast import FastConverter, PlanePicture
from omni_sdk.media.pixels.patch_layout import PatchLayout

Image = NDArray[np.uint8]
SIZE = (252, 448)  # what the published checkpoints see of 16:9
# Mean, deviation and sides of Qwen2VLImageProcessor.
LAYOUT = PatchLayout(
    14, 2, 2, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
)
HALF = PatchLayout(*LAYOUT.sides, LAYOUT.image_mean, LAYOUT.image_std, "float16")
FORMATS = (
    "yuv420p",
    "yuv422p",
    "yuv444p",
    "nv12",
    "yuv420p10le",
    "yuv422p10le",
    "yuv444p10le",
    "p010le",
)
MATRICES = {"601": 5, "709": 1, "2020": 9}
RANGES = {"limited": 1, "full": 2}


def frames_of(path: str, format: str | None = None, count: int = 3) -> list[Image]:
    """Return some frames of a clip as RGB."""
    with av.open(path, format=format) as container:
        images = []
        for index, frame in enumerate(container.decode(video=0)):
            if index % 40 == 20:
                images.append(frame.to_ndarray(format="rgb24"))
            if len(images) == count:
                break
        return images


def sources() -> dict[str, list[Image]]:
    """Real frames and FFmpeg's pattern of saturated edges."""
    folder = shared_directory() / "media"
    real = [
        f for name in ("02_cups", "refavs_demo") for f in frames_of(str(folder / f"{name}.mp4"))
    ]
    pattern = frames_of("testsrc2=size=1920x1080:rate=30", "lavfi", 2)
    return {"real": real, "testsrc2": pattern}


def as_planes(image: Image, format: str, space: int, color_range: int) -> av.VideoFrame:
    """Return a picture as a decoder would give it, its colours as stated."""
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    frame = VideoReformatter().reformat(
        frame,
        format=format,
        dst_colorspace=Colorspace(space) if space != 9 else space,
        dst_color_range=ColorRange(color_range),
        interpolation="ACCURATE_RND",
    )
    frame.colorspace, frame.color_range = space, color_range
    return frame


def exact_image(frame: av.VideoFrame) -> Image:
    """Return the frame at `SIZE` by the exact path."""
    return RgbConverter((frame.height, frame.width), SIZE)(frame)


def fast_image(frame: av.VideoFrame, siting: Any) -> Image:
    """Return the frame at `SIZE` by the fast path."""
    picture = FastConverter(SIZE, "bicubic", siting)(frame)
    assert picture is not None
    return picture.rgb()


def psnr(pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    """Return the PSNR in dB over pairs of 8-bit pictures."""
    error = np.mean([np.mean((a.astype(np.float64) - b) ** 2) for a, b in pairs])
    return float(10 * np.log10(255**2 / error))


def resized(torch: Any, image: Image) -> NDArray[np.float32]:
    """Resize in float, as near to the truth as the filter goes."""
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(tensor, SIZE, mode="bicubic", antialias=True)
    return small[0].permute(1, 2, 0).clamp(0, 255).numpy()


def quality(bench: Benchmark, torch: Any, *, quick: bool) -> None:
    """Print the PSNR of fast against exact, and of both against the source."""
    heads = ("fast : exact", "centred : exact", "exact : source", "centred : source")
    print(f"{'PSNR in dB':<34}" + "".join(f"{head:>18}" for head in heads))
    for source, images in sources().items():
        images = images[::2] if quick else images
        truth = [None if isinstance(torch, Missing) else resized(torch, i) for i in images]
        for format in FORMATS:
            found: dict[str, list[float]] = {name: [] for name in RANGES}
            for matrix, space in MATRICES.items():
                for name, color_range in RANGES.items():
                    frames = [as_planes(image, format, space, color_range) for image in images]
                    exact = [exact_image(frame) for frame in frames]
                    fast = [fast_image(frame, None) for frame in frames]
                    centred = [fast_image(frame, "centre") for frame in frames]
                    values = [psnr(list(zip(x, exact, strict=True))) for x in (fast, centred)]
                    if truth[0] is not None:
                        values += [psnr(list(zip(x, truth, strict=True))) for x in (exact, centred)]
                    case = f"{source} {format} {matrix} {name}"
                    print(f"{case:<34}" + "".join(f"{v:>18.1f}" for v in values))
                    keys = ("fast_exact", "centred_exact", "exact_source", "centred_source")
                    row = {"case": case, "implementation": OURS}
                    bench.rows.append(row | dict(zip(keys, values, strict=False)))
                    found[name].append(values[0])
            bench.rows += [
                {"case": f"{source} {format} {name}", "implementation": OURS}
                | {"fast_exact_least": min(values), "fast_exact_most": max(values)}
                for name, values in found.items()
            ]


def by_torch(torch: Any, frames: list[av.VideoFrame]) -> Work:
    """Return the usual chain: libswscale, torch's uint8 resize, normalise, permute."""
    mean = torch.tensor(LAYOUT.image_mean)[:, None, None] * 255
    std = torch.tensor(LAYOUT.image_std)[:, None, None] * 255
    patch, merge, temporal = LAYOUT.sides
    rows, columns = SIZE[0] // patch // merge, SIZE[1] // patch // merge
    reformatter = VideoReformatter()

    def work() -> Any:
        images = []
        for frame in frames:
            rgb = reformatter.reformat(frame, format="rgb24", threads=1)
            tensor = torch.from_numpy(rgb.to_ndarray()).permute(2, 0, 1)[None]
            images.append(
                torch.nn.functional.interpolate(tensor, SIZE, mode="bicubic", antialias=True)
            )
        video = torch.cat(images).float().sub_(mean).div_(std)
        video = video.view(1, temporal, 3, rows, merge, patch, columns, merge, patch)
        return (
            video.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(rows * columns * merge**2, -1).numpy()
        )

    return work


def ours(frames: list[av.VideoFrame], pixels: Any, layout: PatchLayout) -> Work:
    """Return our chain from planes to patches."""
    make = RgbConverter((frames[0].height, frames[0].width), SIZE, pixels=pixels)

    def work() -> Any:
        values = layout.empty(layout.grid(len(frames), SIZE))
        for at, frame in enumerate(frames):
            picture = make.picture(frame)
            if isinstance(picture, PlanePicture):
                picture.patches(layout, values, at)
            else:
                layout.write(picture[None], values, at)
        return values

    return work


def speed(bench: Benchmark, torch: Any, *, quick: bool) -> None:
    """Time the chains."""
    image = sources()["real"][0]
    sizes = {"1080p": (1080, 1920)} if quick else {"720p": (720, 1280), "1080p": (1080, 1920)}
    formats = FORMATS[::3] if quick else FORMATS
    for name, (height, width) in sizes.items():
        for format in formats:
            frame = as_planes(image, format, 1, 1).reformat(width=width, height=height)
            frame.colorspace, frame.color_range = 1, 1
            frames, case = [frame, frame], f"{name} {format}"
            peers: dict[str, Work | Missing] = {
                OURS: ours(frames, "fast", LAYOUT),
                "fast, float16": ours(frames, "fast", HALF),
                "exact": ours(frames, "exact", LAYOUT),
                "exact, float16": ours(frames, "exact", HALF),
                "libswscale + torch": torch
                if isinstance(torch, Missing)
                else by_torch(torch, frames),
            }
            bench.compare(case, peers, same(peers))
            bench.bar(f"fast against exact, {case}", case=case, peer="exact", at_least=1.5)


def same(peers: dict[str, Work | Missing]) -> dict[str, str]:
    """Say how far each result is from the exact one, in steps of a byte."""
    results: dict[str, Callable[[], Any]] = {
        n: w for n, w in peers.items() if not isinstance(w, Missing)
    }
    exact = results["exact"]()
    step = 1 / 255 / 0.27
    error = {n: np.abs(w().astype(np.float32) - exact) / step for n, w in results.items()}
    return {n: f"mean |error| {e.mean():.3f} of a byte's step" for n, e in error.items()}


def main() -> int:
    """Run the benchmark."""
    arguments = make_parser(__doc__).parse_args()
    bench = Benchmark("pixels", rounds=5 if arguments.quick else 11, packages=["av", "torch"])
    torch = optional("torch")
    quality(bench, torch, quick=arguments.quick)
    print("\nCPU time of two frames, planes to patches; ratio: to fast in float32")
    speed(bench, torch, quick=arguments.quick)
    return bench.finish(arguments.json)


if __name__ == "__main__":
    sys.exit(main())
