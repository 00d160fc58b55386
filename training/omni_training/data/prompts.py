"""The prompts of training: which template a sample has, with which example; and prompts of one image.

The intent of each is that of the published training (omni-r1.md section 1.3); the wording is ours.
"""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omni_sdk.bundle.manifest import GrsSpec
from omni_sdk.errors import DatasetError, QueryError
from omni_sdk.graphs.smart_resize import smart_resize
from omni_sdk.grs.chat import Chat, Turn, audio_ids, image_ids
from omni_sdk.grs.mel import log_mel, num_audio_tokens, num_mel_frames
from omni_sdk.grs.patches import patchify
from omni_sdk.grs.positions import rope_positions
from omni_sdk.grs.processor import Processor, check_query, load_tokenizer
from omni_sdk.grs.request import ThinkerRequest, VisionInput
from omni_sdk.media.pixels.resize import resize
from omni_sdk.stages import Image
from omni_sdk.utils.text import format_time
from tokenizers import Tokenizer

EXAMPLES = 50
"""Samples of each data set that show an example in the variant without a forced number of moments."""

PHRASE = (
    "The reference is: {query}\n"
    "First work out which objects make sounds, voices and instruments included, and which object the "
    "reference means. Then describe that object by its looks alone, in a short phrase that finds it in this "
    "image without sound and without words of action. If it is not to be seen in this image, the phrase is "
    "[]. Reason inside <think> </think>, then give the phrase inside <answer> </answer>."
)
"""Ref-AVS: the first frame and the whole sound. The published prompt has no way to say "not there"."""

BOX = (
    "Find {query} in the image, and compare it with what else is there before you answer. Reason inside "
    "<think> </think>, then give its box and two points on it, in pixels of the image, inside <answer> "
    '</answer> as one JSON object: <answer>{{"bbox_2d": [x1, y1, x2, y2], "points_1": [x, y], '
    '"points_2": [x, y]}}</answer>'
)
"""refCOCOg, in the way of Seg-Zero."""


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    """What prompts are made with: a model's settings and its tokenizer."""

    spec: GrsSpec
    tokenizer: Tokenizer

    def processor(self, template: str | None = None) -> Processor:
        """Return its processor, asking by another template than the model's own if one is named."""
        spec = self.spec
        if template is not None:
            spec = dataclasses.replace(
                spec, prompts=dataclasses.replace(spec.prompts, reason=template)
            )
        return Processor(spec, self.tokenizer)

    def image_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) at which the model sees an image; LimitError beyond 200 to 1."""
        low, high = self.spec.vision.image_pixels
        factor = self.spec.vision.patch_size * self.spec.vision.merge_size
        return smart_resize(height, width, factor=factor, min_pixels=low, max_pixels=high)


def open_model(path: str) -> Model:
    """Open a checkpoint or bundle directory, or an embedded bundle's name."""
    from omni_sdk.bundle.bundle import Bundle, embedded

    folder = embedded(path) or Path(path)
    if (folder / "manifest.json").is_file():
        bundle = Bundle.open(folder)
        return Model(bundle.grs, load_tokenizer(bundle.path("tokenizer.json")))
    from omni_sdk.hf.checkpoint import read_spec

    return Model(read_spec(folder), load_tokenizer(folder / "tokenizer.json"))


def template_of(variant: str, number: int) -> str | None:
    """Return the template of a sample; None: the model's own.

    Args:
        variant: "model"; "force": about four moments, always with an example; "no_hint": one to four, with
            an example in the first `EXAMPLES` samples of a data set.
        number: of the sample within its data set, from 0.

    Raises:
        DatasetError: an unknown variant.
    """
    if variant == "model":
        return None
    if variant == "force":
        return "omni-r1-force"
    if variant == "no_hint":
        return "omni-r1-example" if number < EXAMPLES else "omni-r1"
    raise DatasetError(f"expected prompt 'model', 'force' or 'no_hint', got {variant!r}")


def random_example(variant: str, seconds: float, name: str, seed: int) -> str:
    """Return an answer in the grammar at random instants, so that its times are not worth copying.

    Start and end are equal, as in the published prompts. Four moments where four are asked for, one or two
    otherwise. The same sample always has the same example, in every process.

    Args:
        variant: as for `template_of`.
        seconds: length of the clip on the reasoner's clock.
        name: of the sample.
        seed: of the run.
    """
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    count = 4 if variant == "force" else int(rng.integers(1, 3))
    times = [format_time(t) for t in np.sort(rng.uniform(0, seconds, count))]
    items = (f'{{"start_time": "{t}", "end_time": "{t}", "description": "..."}}' for t in times)
    return f"[{', '.join(items)}]"


def image_request(
    model: Model,
    template: str,
    query: str,
    image: Image,
    sound: NDArray[np.float32] | None = None,
) -> ThinkerRequest:
    """Prepare a question about one image, with sound if there is any.

    Args:
        model: the model.
        template: `PHRASE` or `BOX`.
        query: an expression; untrusted.
        image: (H, W, 3) uint8 RGB of any size.
        sound: (N,) float32 mono at the model's sampling rate.

    Raises:
        QueryError: the query is malformed or the prompt too long for the model.
        LimitError: one side of the image is more than 200 times the other.
    """
    spec = model.spec
    size = model.image_size(*image.shape[:2])
    pixels, grid = patchify(resize(image, size, "bicubic")[None], spec.vision)
    media = [image_ids(spec.tokens, int(np.prod(grid)) // spec.vision.merge_size**2)]
    mel: tuple[NDArray[np.float32], ...] = ()
    if sound is not None and num_audio_tokens(num_mel_frames(len(sound), spec.audio)) >= 1:
        mel = (log_mel(sound, spec.audio),)
        media.append(
            audio_ids(spec.tokens, num_audio_tokens(num_mel_frames(len(sound), spec.audio)))
        )
    system = spec.prompts.system
    turns = [] if system is None else [Turn("system", (system,))]
    text = template.format(query=check_query(query))
    ids = Chat(model.tokenizer, spec.tokens).encode([*turns, Turn("user", (*media, text))])
    if len(ids) >= spec.decoder.max_positions:
        raise QueryError(
            f"the prompt has {len(ids)} tokens, the model reads {spec.decoder.max_positions}"
        )
    positions = rope_positions(
        ids,
        spec.tokens,
        spec.decoder,
        merge_size=spec.vision.merge_size,
        image_grids=[grid],
        audio_frames=[m.shape[1] for m in mel],
    )
    return ThinkerRequest(ids, positions, (VisionInput("image", pixels, grid),), mel)
