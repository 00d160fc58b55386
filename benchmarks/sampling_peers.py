"""One implementation of frame sampling per process; `sampling.py` starts and asks them.

    python benchmarks/sampling_peers.py NAME

Reads one JSON job per line, {"path", "warm_up", "indices", "size", "save"}, and answers with one JSON
line. The process itself only imports: each job runs in a fork of it, so that its peak memory is its own
and no job finds the caches of an earlier one; a tiny clip goes first, for what a library sets up once.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Size = tuple[int, int] | None
Sampler = Callable[[str, list[int], Size], np.ndarray]
CPUS = os.cpu_count() or 1


def _torch_resize() -> Callable[[Any, Size], np.ndarray]:
    """Return (T, C, H, W) uint8 tensor -> (T, H, W, C) array, by torch's antialiased bicubic resize."""
    import torch

    torch.set_num_threads(CPUS)

    def resize(frames: Any, size: Size) -> np.ndarray:
        if size is not None:
            frames = torch.nn.functional.interpolate(frames, size, mode="bicubic", antialias=True)
        return frames.permute(0, 2, 3, 1).numpy()

    return resize


def ours() -> Sampler:
    """omni-sdk as it is."""
    from omni_sdk.media.source import open_source

    def sample(path: str, indices: list[int], size: Size) -> np.ndarray:
        with open_source(path) as video:
            return video.sample(indices=indices, size=size).frames

    return sample


def ours_lean() -> Sampler:
    """omni-sdk with one container, which takes less memory."""
    from omni_sdk.media.limits import MediaLimits
    from omni_sdk.media.source import open_source

    limits = MediaLimits(max_containers=1)

    def sample(path: str, indices: list[int], size: Size) -> np.ndarray:
        with open_source(path, limits=limits) as video:
            return video.sample(indices=indices, size=size).frames

    return sample


def ours_every_frame() -> Sampler:
    """omni-sdk decoding also the frames that nothing refers to: what remains is the rest of the plan."""
    from omni_sdk.media.demux import decode

    decode._SKIP_NONREF = frozenset()
    return ours()


def ours_with_sound(*, apart: bool = False) -> Sampler:
    """Frames, then the sound of the same file; apart: as if each knew nothing of the other."""
    from omni_sdk.media import audio
    from omni_sdk.media.source import open_source

    if apart:
        audio.read_only = lambda _: None

    def sample(path: str, indices: list[int], size: Size) -> np.ndarray:
        with open_source(path) as video:
            frames = video.sample(indices=indices, size=size).frames
            if apart:
                video._sound, video._is_quick = None, False
            video.audio()
            return frames

    return sample


def bare_decode() -> Sampler:
    """Only the decode of our plan's packets, from an index at hand: the limit."""
    from omni_sdk.media import file_video
    from omni_sdk.media.source import open_source

    nothing = np.zeros((1, 1, 3), np.uint8)

    class NoConverter:
        def __call__(self, _: object) -> np.ndarray:
            return nothing

        picture = __call__

    def prepare(path: str, indices: list[int], size: Size) -> Callable[[], np.ndarray]:
        video = open_source(path)
        file_video.FileVideo._converter = lambda *_: NoConverter()  # type: ignore[method-assign,assignment]

        def work() -> np.ndarray:
            video._decode(indices, size, "bicubic", lambda *_: None)
            return nothing

        return work

    prepare.is_preparation = True  # type: ignore[attr-defined]
    return prepare  # type: ignore[return-value]


def torchcodec(threads: int = CPUS, *, to_float: bool = False) -> Sampler:
    """torchcodec in exact mode, then torch's resize."""
    resize = _torch_resize()
    from torchcodec.decoders import VideoDecoder

    def sample(path: str, indices: list[int], size: Size) -> np.ndarray:
        decoder = VideoDecoder(path, num_ffmpeg_threads=threads, seek_mode="exact")
        frames = resize(decoder.get_frames_at(indices).data, size)
        return frames.astype(np.float32) if to_float else frames

    return sample


def qwen_logic() -> Sampler:
    """What qwen-omni-utils does: torchcodec with 8 threads, resize, float."""
    return torchcodec(8, to_float=True)


def decord(*, scale: bool = False) -> Sampler:
    """decord at full size and torch's resize, or with its own scaling."""
    resize = _torch_resize()
    import decord as library
    import torch

    def sample(path: str, indices: list[int], size: Size) -> np.ndarray:
        box = {"height": size[0], "width": size[1]} if scale and size else {}
        reader = library.VideoReader(path, num_threads=CPUS, **box)
        frames = reader.get_batch(indices).asnumpy()
        if box:
            return frames
        return resize(torch.from_numpy(frames).permute(0, 3, 1, 2), size)

    return sample


def pyav() -> Sampler:
    """PyAV from the start to the last frame wanted, then torch's resize."""
    resize = _torch_resize()
    import av
    import torch

    def sample(path: str, indices: list[int], size: Size) -> np.ndarray:
        wanted, found = set(indices), {}
        with av.open(path) as container:
            container.streams.video[0].thread_type = "AUTO"
            for n, frame in enumerate(container.decode(video=0)):
                if n in wanted:
                    image = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                    found[n] = resize(image.permute(2, 0, 1)[None], size)
                if n >= indices[-1]:
                    break
        return np.concatenate([found[i] for i in indices])

    return sample


def opencv() -> Sampler:
    """OpenCV: grab everything, retrieve what is wanted, INTER_AREA."""
    import cv2

    def sample(path: str, indices: list[int], size: Size) -> np.ndarray:
        capture, wanted, found = cv2.VideoCapture(path), set(indices), {}
        for n in range(indices[-1] + 1):
            if not capture.grab():
                break
            if n in wanted:
                image = capture.retrieve()[1]
                if size is not None:
                    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
                found[n] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        capture.release()
        return np.stack([found[i] for i in indices])

    return sample


SOUND_TOGETHER, SOUND_APART = "omni-sdk with sound", "omni-sdk, sound apart"
SOUND: dict[str, Callable[[], Sampler]] = {
    SOUND_TOGETHER: ours_with_sound,
    SOUND_APART: lambda: ours_with_sound(apart=True),
}
IMPLEMENTATIONS: dict[str, Callable[[], Sampler]] = {
    "omni-sdk": ours,
    "omni-sdk, one container": ours_lean,
    "omni-sdk, no frame skipped": ours_every_frame,
    "bare decode": bare_decode,
    "torchcodec": torchcodec,
    "qwen-omni-utils logic": qwen_logic,
    "decord": decord,
    "decord, own scaling": lambda: decord(scale=True),
    "PyAV": pyav,
    "OpenCV": opencv,
}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _run(sampler: Sampler, job: dict[str, Any]) -> dict[str, Any]:
    size: Size = tuple(job["size"]) if job["size"] else None
    path, indices = job["path"], job["indices"]
    if getattr(sampler, "is_preparation", False):
        work: Callable[[], np.ndarray] = sampler(path, indices, size)  # type: ignore[assignment]
    else:
        sampler(job["warm_up"], [0, 5], (32, 32))

        def work() -> np.ndarray:
            return sampler(path, indices, size)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), _cpu_seconds()
    frames = work()
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if job["save"] and len(frames) == len(indices):
        np.save(job["save"], frames.astype(np.uint8))
    return {"wall": wall, "cpu": cpu, "rss_mb": (peak - before) / 1024}


def main() -> None:
    """Answer jobs until the input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not spoil the answers
    try:
        sampler = (IMPLEMENTATIONS | SOUND)[sys.argv[1]]()
    except (ImportError, OSError, RuntimeError) as error:
        out.write(json.dumps({"missing": str(error).strip().splitlines()[0][:120]}) + "\n")
        return
    out.write(json.dumps({"ready": True}) + "\n")
    out.flush()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                answer = _run(sampler, json.loads(line))
            except Exception as error:  # a peer may fail in any way: that is its result
                answer = {"failed": f"{type(error).__name__}: {error}"[:160]}
            out.write(json.dumps(answer) + "\n")
            out.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            out.write(json.dumps({"failed": f"ended with status {status}"}) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
