"""Random requests of every kind for a model's settings: what parity is measured on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from omni_sdk.bundle.manifest import GrsSpec
from omni_sdk.grs.chat import audio_ids, image_ids, video_audio_ids, video_ids
from omni_sdk.grs.mel import num_audio_tokens
from omni_sdk.grs.positions import rope_positions
from omni_sdk.grs.request import ThinkerRequest, VisionInput

Grid = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """What a random request holds.

    Attributes:
        text: tokens of text, half before and half after the media.
        video: grid of a video (t, h, w), in patches.
        image: grid of an image.
        audio_frames: mel frames of a sound; 0: none.
        audio_in_video: interleave sound and video.
        seconds_per_grid: seconds between two rows of the video.
        seed: of all that is random.
    """

    text: int = 16
    video: Grid | None = None
    image: Grid | None = None
    audio_frames: int = 0
    audio_in_video: bool = False
    seconds_per_grid: float = 1.0
    seed: int = 0


def make_request(spec: GrsSpec, sample: Sample) -> ThinkerRequest:
    """Make a request with random tokens, pixels and sound, all drawn from the sample's seed."""
    rng = np.random.default_rng(sample.seed)
    tokens, vision = spec.tokens, spec.vision
    special = {*tokens.suppress, *tokens.eos, tokens.pad}
    words = np.array([i for i in range(spec.decoder.vocab_size) if i not in special])
    head, tail = rng.choice(words, sample.text // 2), rng.choice(words, -(-sample.text // 2))
    width = 3 * vision.temporal_patch_size * vision.patch_size**2

    def pixels(grid: Grid) -> NDArray[np.float32]:
        return rng.standard_normal((int(np.prod(grid)), width)).astype(np.float32)

    def count(grid: Grid) -> int:
        return int(np.prod(grid)) // vision.merge_size**2

    media: list[int] = []
    visions: list[VisionInput] = []
    sound = num_audio_tokens(sample.audio_frames) if sample.audio_frames else 0
    if sample.image is not None:
        media += image_ids(tokens, count(sample.image))
        visions.append(VisionInput("image", pixels(sample.image), sample.image))
    if sample.video is not None:
        seconds = sample.seconds_per_grid
        visions.append(VisionInput("video", pixels(sample.video), sample.video, seconds))
        if sample.audio_in_video:
            media += video_audio_ids(
                tokens,
                spec.decoder,
                sample.video,
                merge_size=vision.merge_size,
                seconds_per_grid=seconds,
                num_audio_tokens=sound,
            )
        else:
            media += video_ids(tokens, count(sample.video))
    if sound and not sample.audio_in_video:
        media += audio_ids(tokens, sound)
    bins = spec.audio.num_mel_bins
    mel = (rng.standard_normal((bins, sample.audio_frames)).astype(np.float32),) if sound else ()
    ids = np.array([*head, *media, *tail], np.int64)
    return ThinkerRequest(
        input_ids=ids,
        position_ids=rope_positions(
            ids,
            tokens,
            spec.decoder,
            merge_size=vision.merge_size,
            image_grids=[v.grid_thw for v in visions if v.kind == "image"],
            video_grids=[(v.grid_thw, v.seconds_per_grid) for v in visions if v.kind == "video"],
            audio_frames=[m.shape[1] for m in mel],
            audio_in_video=sample.audio_in_video,
        ),
        vision=tuple(visions),
        mel=mel,
        audio_in_video=sample.audio_in_video,
    )


def generation_samples(spec: GrsSpec) -> dict[str, list[Sample]]:
    """Return named batches that together use every graph in every way, a few hundred tokens each."""
    merge = spec.vision.merge_size
    side = spec.vision.window_size // spec.vision.patch_size // merge * merge
    ragged: Grid = (3, side + merge, side - merge)  # the right and lower windows are not full
    chunk = 2 * spec.audio.n_window
    both = Sample(video=ragged, audio_frames=chunk + 11, audio_in_video=True)
    return {
        "video": [Sample(video=ragged, seed=1)],
        "audio in video": [both],
        "image": [Sample(image=(1, side + merge, 2 * side), seed=2)],
        "left-padded batch": [
            Sample(
                text=9, video=(2, side, side), audio_frames=chunk // 2, audio_in_video=True, seed=3
            ),
            both,
        ],
    }
