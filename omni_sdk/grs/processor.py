"""Frames, sound and words -> requests that a thinker can run. Every setting comes from the manifest."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omni_sdk.errors import BundleError, QueryError
from omni_sdk.graphs.smart_resize import smart_resize
from omni_sdk.grs import prompts
from omni_sdk.grs.chat import (
    Chat,
    MediaIds,
    Turn,
    audio_ids,
    image_ids,
    video_audio_ids,
    video_ids,
)
from omni_sdk.grs.mel import log_mel, num_audio_tokens, num_mel_frames
from omni_sdk.grs.patches import layout_of, patchify
from omni_sdk.grs.positions import rope_positions
from omni_sdk.grs.request import ThinkerRequest, VisionInput
from omni_sdk.media.pixels.patch_layout import Grid, PatchDtype, PatchLayout, PatchValues
from omni_sdk.media.pixels.resize import resize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

    from omni_sdk.bundle.bundle import Bundle
    from omni_sdk.bundle.manifest import GrsSpec
    from omni_sdk.media.clock import Clock
    from omni_sdk.stages import Image, Observation

MAX_QUERY_CHARS = 4000


class Processor:
    """Prepares requests for one model.

    Args:
        spec: the model's settings.
        tokenizer: the model's own; the processor keeps it and sets its options.
        pixel_dtype: of the patches.

    Raises:
        BundleError: the tokenizer, the token ids or the template names do not fit together.
    """

    def __init__(
        self, spec: GrsSpec, tokenizer: Tokenizer, *, pixel_dtype: PatchDtype = "float32"
    ) -> None:
        for name in (spec.prompts.reason, spec.prompts.ask, spec.prompts.ground):
            prompts.template(name)
        self.spec = spec
        self._pixel_dtype: PatchDtype = pixel_dtype
        self._chat = Chat(tokenizer, spec.tokens)

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> Processor:
        """Read a verified bundle's tokenizer.json; BundleError if it is none."""
        vision = bundle.manifest.graphs.get("grs/vision")
        dtypes = {tensor.name: tensor.dtype for tensor in vision.inputs} if vision else {}
        return cls(
            bundle.grs,
            load_tokenizer(bundle.path("tokenizer.json")),
            pixel_dtype="float16" if dtypes.get("pixel_values") == "float16" else "float32",
        )

    @classmethod
    def from_directory(cls, spec: GrsSpec, directory: str | os.PathLike[str]) -> Processor:
        """Read the tokenizer.json of a checkpoint directory; BundleError if there is none."""
        return cls(spec, load_tokenizer(Path(directory) / "tokenizer.json"))

    @property
    def patch_layout(self) -> PatchLayout:
        """How patches are made for this model."""
        return layout_of(self.spec.vision, self._pixel_dtype)

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) at which the reasoner wants frames of this size.

        Raises:
            LimitError: one side is more than 200 times the other.
        """
        return self._size(height, width, self.spec.vision.video_pixels)

    def image_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) at which the grounder wants an image of this size.

        Raises:
            LimitError: one side is more than 200 times the other.
        """
        return self._size(height, width, self.spec.vision.image_pixels)

    def reason_request(
        self,
        observation: Observation,
        query: str,
        *,
        max_new_tokens: int | None = None,
        example: str | None = None,
    ) -> ThinkerRequest:
        """Prepare a query for segmentation.

        Args:
            observation: frames at `frame_size` or patches of `patch_layout`, clock and sound.
            query: 1 to 4,000 characters without control characters.
            max_new_tokens: room for the reply; None: the manifest's.
            example: an answer for templates that show one; None: theirs.

        Raises:
            QueryError: the query is malformed, or prompt and reply exceed the model's positions.
            MediaError: the sound holds NaN or infinite samples.
        """
        return self._watch(observation, query, self.spec.prompts.reason, max_new_tokens, example)

    def ask_request(
        self, observation: Observation, question: str, *, max_new_tokens: int | None = None
    ) -> ThinkerRequest:
        """Prepare a plain question; otherwise as `reason_request`."""
        return self._watch(observation, question, self.spec.prompts.ask, max_new_tokens)

    def ground_request(
        self, image: Image, description: str
    ) -> tuple[ThinkerRequest, tuple[int, int]]:
        """Prepare one image for the grounder.

        Args:
            image: (H, W, 3) uint8 RGB of any size.
            description: of the objects to find; as a query.

        Returns:
            The request and the (height, width) in pixels at which the model sees the image: its boxes
            are pixels of that size.

        Raises:
            QueryError: as `reason_request`.
            LimitError: as `image_size`.
        """
        text = prompts.render(self.spec.prompts.ground, check_query(description))
        return self.image_request(image, text, self.spec.prompts.ground_max_new_tokens)

    def image_request(
        self,
        image: Image,
        text: str,
        max_new_tokens: int,
        *,
        sound: NDArray[np.float32] | None = None,
    ) -> tuple[ThinkerRequest, tuple[int, int]]:
        """Prepare a question about one image, with sound if there is any.

        Args:
            image: (H, W, 3) uint8 RGB of any size.
            text: a whole prompt; what of it is untrusted has passed `check_query`.
            max_new_tokens: room for the reply.
            sound: (N,) float32 mono at the model's sampling rate; less than one token of it is left out.

        Returns:
            As `ground_request`.

        Raises:
            QueryError: prompt and reply exceed the model's positions.
            LimitError: as `image_size`.
            MediaError: the sound holds NaN or infinite samples.
        """
        height, width = image.shape[:2]
        size = self.image_size(height, width)
        pixels, grid = patchify(
            resize(image, size, "bicubic")[None], self.spec.vision, self._pixel_dtype
        )
        num_audio = 0 if sound is None else self._num_audio_tokens(sound)
        media = [image_ids(self.spec.tokens, self._num_tokens(grid))]
        if num_audio:
            media.append(audio_ids(self.spec.tokens, num_audio))
        ids = self._prompt(media, text)
        self._check_length(ids, max_new_tokens)
        mel = (log_mel(sound, self.spec.audio),) if sound is not None and num_audio else ()
        request = ThinkerRequest(
            input_ids=ids,
            position_ids=self._positions(
                ids, image_grids=[grid], audio_frames=[m.shape[1] for m in mel]
            ),
            vision=(VisionInput("image", pixels, grid),),
            mel=mel,
        )
        return request, size

    def decode(self, ids: Sequence[int] | NDArray[np.int64]) -> str:
        """Return the text of token ids, special tokens left out."""
        return self._chat.decode(list(ids))

    def _watch(
        self,
        observation: Observation,
        query: str,
        template: str,
        max_new_tokens: int | None,
        example: str | None = None,
    ) -> ThinkerRequest:
        """Prepare a question about a clip."""
        clock = observation.clock
        text = prompts.render(
            template, check_query(query), seconds=clock.duration_seconds, example=example
        )
        pixels, grid = self._pixels(observation)
        sound = self._sound(observation)
        interleaved = sound is not None and self.spec.sampling.audio_in_video
        seconds = self._seconds_per_grid(clock, interleaved=interleaved)
        ids = self._prompt(self._media(grid, seconds, sound, interleaved=interleaved), text)
        self._check_length(ids, max_new_tokens or self.spec.prompts.max_new_tokens)
        # The spectrogram comes last: a malformed query costs nothing.
        mel = () if sound is None else (log_mel(sound, self.spec.audio),)
        return ThinkerRequest(
            input_ids=ids,
            position_ids=self._positions(
                ids,
                video_grids=[(grid, seconds)],
                audio_frames=[m.shape[1] for m in mel],
                audio_in_video=interleaved,
            ),
            vision=(VisionInput("video", pixels, grid, seconds),),
            mel=mel,
            audio_in_video=interleaved,
        )

    def _pixels(self, observation: Observation) -> tuple[PatchValues, Grid]:
        """Return the frames' patches, one for each time of the clock."""
        count, patches = observation.clock.num_frames, observation.patches
        if patches is not None:
            temporal, shape = self.spec.vision.temporal_patch_size, self.patch_layout.shape
            if patches.grid[0] != -(-count // temporal) or patches.values.shape != shape(
                patches.grid
            ):
                raise ValueError(
                    f"patches {patches.values.shape} of grid {patches.grid} do not fit a clock of {count} "
                    "frames"
                )
            return patches.values, patches.grid
        if len(observation.frames) != count:
            raise ValueError(f"{len(observation.frames)} frames do not fit a clock of {count}")
        return patchify(observation.frames, self.spec.vision, self._pixel_dtype)

    def _sound(self, observation: Observation) -> NDArray[np.float32] | None:
        """Return the samples shown to the model; None where there is no sound to show."""
        audio, samples = self.spec.audio, observation.audio
        if samples is None or not len(samples):
            if self.spec.sampling.missing_audio == "omit":
                return None
            seconds = min(observation.clock.end_seconds, audio.chunk_seconds, audio.max_seconds)
            samples = np.zeros(int(seconds * audio.sampling_rate), np.float32)
        # Less than one token of sound (0.03 s at 100 mel frames per second) has no place in a prompt.
        return samples if self._num_audio_tokens(samples) else None

    def _seconds_per_grid(self, clock: Clock, *, interleaved: bool) -> float:
        """Return the time between two temporal rows.

        Virtual time where the model is told virtual times; real time beside real sound, as
        `SamplingSpec.audio_in_video` says, for sound and frames share one axis there.
        """
        rows = self.spec.vision.temporal_patch_size
        if clock.virtual_fps is not None and not interleaved:
            return rows / clock.virtual_fps
        if clock.num_frames == 1:
            return rows * max(float(clock.end_seconds), 0.0)
        span = float(clock.pts_seconds[-1] - clock.pts_seconds[0])
        return rows * span / (clock.num_frames - 1)

    def _media(
        self,
        grid: Grid,
        seconds: float,
        sound: NDArray[np.float32] | None,
        *,
        interleaved: bool,
    ) -> list[MediaIds]:
        tokens, num_video = self.spec.tokens, self._num_tokens(grid)
        if sound is None:
            return [video_ids(tokens, num_video)]
        num_audio = self._num_audio_tokens(sound)
        if not interleaved:
            return [video_ids(tokens, num_video), audio_ids(tokens, num_audio)]
        both = video_audio_ids(
            tokens,
            self.spec.decoder,
            grid,
            merge_size=self.spec.vision.merge_size,
            seconds_per_grid=seconds,
            num_audio_tokens=num_audio,
        )
        return [both]

    def _prompt(self, media: Sequence[MediaIds], text: str) -> NDArray[np.int64]:
        system = self.spec.prompts.system
        turns = [] if system is None else [Turn("system", (system,))]
        return self._chat.encode([*turns, Turn("user", (*media, text))])

    def _positions(
        self,
        ids: NDArray[np.int64],
        *,
        image_grids: Sequence[Grid] = (),
        video_grids: Sequence[tuple[Grid, float]] = (),
        audio_frames: Sequence[int] = (),
        audio_in_video: bool = False,
    ) -> NDArray[np.int64]:
        return rope_positions(
            ids,
            self.spec.tokens,
            self.spec.decoder,
            merge_size=self.spec.vision.merge_size,
            image_grids=image_grids,
            video_grids=video_grids,
            audio_frames=audio_frames,
            audio_in_video=audio_in_video,
        )

    def _num_audio_tokens(self, sound: NDArray[np.float32]) -> int:
        return max(0, num_audio_tokens(num_mel_frames(len(sound), self.spec.audio)))

    def _num_tokens(self, grid: Grid) -> int:
        return grid[0] * grid[1] * grid[2] // self.spec.vision.merge_size**2

    def _size(self, height: int, width: int, budget: tuple[int, int]) -> tuple[int, int]:
        vision = self.spec.vision
        return smart_resize(
            height,
            width,
            factor=vision.patch_size * vision.merge_size,
            min_pixels=budget[0],
            max_pixels=budget[1],
        )

    def _check_length(self, ids: NDArray[np.int64], max_new_tokens: int) -> None:
        limit = self.spec.decoder.max_positions
        if len(ids) + max_new_tokens > limit:
            raise QueryError(
                f"the prompt has {len(ids)} tokens and the reply may have {max_new_tokens}, the model "
                f"reads {limit} in all; shorten the question, or use fewer frames or less sound"
            )


def check_query(query: str) -> str:
    """Return a question or description with outer whitespace removed.

    Raises:
        QueryError: not a str, empty, longer than 4,000 characters, or with control characters other
            than tab and line breaks.
    """
    if not isinstance(query, str):
        raise QueryError(f"the query must be text (str), got {type(query).__name__}")
    if len(query) > MAX_QUERY_CHARS:
        raise QueryError(
            f"the query has {len(query)} characters, at most {MAX_QUERY_CHARS} allowed"
        )
    if not query.strip():
        raise QueryError("the query is empty; ask for something")
    for position, char in enumerate(query):
        # Cc: control characters; Cs: lone surrogates, which no tokenizer can encode
        if unicodedata.category(char) in ("Cc", "Cs") and char not in "\t\n\r":
            raise QueryError(
                f"the query holds the control character U+{ord(char):04X} at position {position}; "
                "remove it"
            )
    return query.strip()


def load_tokenizer(path: Path) -> Tokenizer:
    """Open a tokenizer.json; BundleError if it cannot be read."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as e:  # the library raises bare Exception for every fault of the file
        raise BundleError(f"{path}: not a tokenizer that `tokenizers` can read ({e})") from e
