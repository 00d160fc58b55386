"""Scenes as mp4 files with sound, and the exact truth of every frame."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from omni_sdk.demo.render import Size, object_map, render
from omni_sdk.demo.scene import Scene
from omni_sdk.demo.sound import waveform
from omni_sdk.demo.texts import grs_answer, target_description
from omni_sdk.demo.world import DURATION_SECONDS
from omni_sdk.dus.boxes import mask_box, whole_pixels
from omni_sdk.errors import BackendUnavailableError

VIDEO_CODECS = ("libx264", "libopenh264", "mpeg4")
AUDIO_CODECS = ("aac", "pcm_s16le")
MAX_FPS = 240


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """How a clip is compressed.

    Attributes:
        crf: x264's constant rate factor, 0 (lossless) to 51 (worst); other codecs ignore it.
        preset: x264's preset.
        group: frames from one sync frame to the next, at most.
        sampling_rate: of the sound, in Hz.
        audio_bit_rate: of the sound, in bit/s; PCM ignores it.
    """

    crf: int = 18
    preset: str = "veryfast"
    group: int = 16
    sampling_rate: int = 16_000
    audio_bit_rate: int = 64_000

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must be 0 to 51, got {self.crf}")
        if self.group < 1:
            raise ValueError(f"group must be 1 or more frames, got {self.group}")


@dataclass(frozen=True, slots=True)
class SceneTruth:
    """What is true of a clip; masks are computed when they are asked for.

    Attributes:
        scene: the scene shown.
        size: (height, width) in pixels.
        pts_seconds: presentation time of each frame, ascending from 0.
    """

    scene: Scene
    size: Size
    pts_seconds: tuple[float, ...]

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return len(self.pts_seconds)

    @property
    def query(self) -> str:
        """What is asked."""
        return self.scene.query

    @property
    def answer(self) -> str:
        """The reasoner's true completion."""
        return grs_answer(self.scene)

    @property
    def description(self) -> str | None:
        """Description of the target, such as "a red circle"; None if nothing answers the query."""
        return target_description(self.scene)

    @property
    def target(self) -> int | None:
        """Index of the object that is asked for; None if nothing answers the query."""
        return self.scene.target

    @property
    def span_seconds(self) -> tuple[float, float] | None:
        """When the answer is true, [start, end) in real seconds, or None."""
        return self.scene.span_seconds

    def object_map(self, frame_index: int) -> NDArray[np.uint8]:
        """Return (H, W) uint8: 0 for the background, i + 1 where object i is seen.

        Raises:
            IndexError: no such frame.
        """
        if not 0 <= frame_index < self.num_frames:
            raise IndexError(f"the clip has frames 0..{self.num_frames - 1}, got {frame_index}")
        return object_map(self.scene, self.pts_seconds[frame_index], self.size)

    def mask(self, frame_index: int, index: int) -> NDArray[np.bool_]:
        """Return the visible part of object `index` in a frame, (H, W) bool.

        Raises:
            IndexError: no such frame or object.
        """
        if not 0 <= index < len(self.scene.objects):
            raise IndexError(f"the scene has {len(self.scene.objects)} objects, got {index}")
        return np.equal(self.object_map(frame_index), index + 1)

    def masks(self, index: int) -> Iterator[NDArray[np.bool_]]:
        """Yield `mask` of one object for every frame."""
        return (self.mask(t, index) for t in range(self.num_frames))

    def box(self, frame_index: int, index: int) -> tuple[int, int, int, int] | None:
        """Return the box of `mask`, (x1, y1, x2, y2) with ends exclusive; None if it is not seen."""
        found = mask_box(self.mask(frame_index, index))
        return None if found is None else whole_pixels(found)


def scene_truth(scene: Scene, *, size: Size = (384, 384), fps: float = 8.0) -> SceneTruth:
    """Return the truth of the clip that `write_clip` writes with these settings.

    Args:
        scene: a scene.
        size: (height, width) in pixels.
        fps: frames per second, up to 240; frames start at 0 s, all before 8 s.

    Raises:
        ValueError: fps out of range.
    """
    rate = _rate(fps)
    count = math.ceil(rate * Fraction(DURATION_SECONDS))
    return SceneTruth(scene, size, tuple(float(i / rate) for i in range(count)))


def write_clip(
    scene: Scene,
    path: str | os.PathLike[str],
    *,
    size: Size = (384, 384),
    fps: float = 8.0,
    options: EncoderOptions | None = None,
) -> SceneTruth:
    """Write a scene as mp4: H.264 and AAC where PyAV has them, else MPEG-4 part 2 and PCM.

    Picture and sound both start at 0 s and last 8 s, where 8 * fps is a whole number; otherwise the last
    frame starts before 8 s and ends after. The same arguments and libraries give the same bytes.

    Args:
        scene: a scene.
        path: file to write; its folder must exist. The name should end in ".mp4" or ".mov".
        size: (height, width) in pixels, both even, as 4:2:0 colour needs.
        fps: frames per second, up to 240.
        options: how to compress.

    Returns:
        The truth of every frame.

    Raises:
        ValueError: size or fps out of range.
        BackendUnavailableError: this build of PyAV can encode no video or no sound that fits.
        OSError: the file cannot be written.
    """
    options = options or EncoderOptions()
    if size[0] % 2 or size[1] % 2:
        raise ValueError(f"size must be two even numbers (4:2:0 colour), got {size}")
    truth = scene_truth(scene, size=size, fps=fps)
    suffix = Path(path).suffix.lower()
    container = av.open(
        os.fspath(path),
        "w",
        format="mov" if suffix == ".mov" else "mp4",
        options={"fflags": "+bitexact", "movflags": "+faststart"},
    )
    with container:
        video = _add_video(container, size, _rate(fps), options)
        audio = _add_audio(container, options)
        _write_audio(container, audio, waveform(scene, options.sampling_rate))
        _write_video(container, video, truth, 1 / _rate(fps))
    return truth


def _rate(fps: float) -> Fraction:
    if not 0 < fps <= MAX_FPS:
        raise ValueError(f"fps must be above 0, up to {MAX_FPS}, got {fps}")
    return Fraction(fps).limit_denominator(1001)


def _pick(candidates: tuple[str, ...], what: str) -> str:
    for name in candidates:
        try:
            av.Codec(name, "w")
        except ValueError:  # av.codec.UnknownCodecError: this build lacks it
            continue
        return name
    raise BackendUnavailableError(
        f"this build of PyAV {av.__version__} can encode none of {', '.join(candidates)} ({what}); "
        'install a standard wheel: pip install "av>=17.1"'
    )


def _add_video(
    container: OutputContainer, size: Size, rate: Fraction, options: EncoderOptions
) -> VideoStream:
    codec = _pick(VIDEO_CODECS, "video")
    stream = container.add_stream(codec, rate=rate)
    assert isinstance(stream, VideoStream)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = 1 / rate
    context.thread_count = 1  # x264's rate control depends on the number of threads
    context.gop_size = options.group
    # What swscale does by default when it converts RGB; said in the file, so that readers undo it.
    context.colorspace = 6  # SMPTE 170M (BT.601)
    context.color_range = 1  # 16..235
    if codec == "libx264":
        context.options = {"crf": str(options.crf), "preset": options.preset, "threads": "1"}
    else:
        context.bit_rate = 4_000_000
    return stream


def _add_audio(container: OutputContainer, options: EncoderOptions) -> AudioStream:
    codec = _pick(AUDIO_CODECS, "sound")
    stream = container.add_stream(codec, rate=options.sampling_rate)
    assert isinstance(stream, AudioStream)
    stream.layout = "mono"
    if codec == "aac":
        stream.codec_context.bit_rate = options.audio_bit_rate
    return stream


def _write_audio(
    container: OutputContainer, stream: AudioStream, wave: NDArray[np.float32]
) -> None:
    """Encode all sound; the encoder's look-ahead before 0 s is cut by the container's edit list."""
    rate = stream.codec_context.sample_rate
    planar = stream.codec_context.name == "aac"
    samples = wave if planar else np.rint(np.clip(wave, -1, 1) * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(
        samples[None], format="fltp" if planar else "s16", layout="mono"
    )
    frame.sample_rate = rate
    frame.pts = 0
    frame.time_base = Fraction(1, rate)
    fifo = av.AudioFifo()
    fifo.write(frame)
    for piece in fifo.read_many(stream.codec_context.frame_size or 1024, partial=True):
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))


def _write_video(
    container: OutputContainer, stream: VideoStream, truth: SceneTruth, time_base: Fraction
) -> None:
    for index, seconds in enumerate(truth.pts_seconds):
        pixels = render(truth.scene, seconds, truth.size)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts = index
        frame.time_base = time_base
        frame.duration = 1
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
