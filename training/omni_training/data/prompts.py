"""The prompts of training: which template a sample has, with which example; and prompts of one image.

The intent of each is that of the published training (omni-r1.md section 1.3); the wording is ours.
"""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import numpy as np
from omni_sdk.bundle.manifest import GrsSpec
from omni_sdk.errors import DatasetError
from omni_sdk.grs.processor import Processor, load_tokenizer
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
