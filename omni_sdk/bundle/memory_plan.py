"""Does it fit? Which variant, how many frames and pixels, for a budget of memory.

Pure arithmetic on the manifest, before anything is loaded. Weights and caches are counted exactly; what
the runtime needs while it works is an estimate with its source beside it, so a plan is a bound to start
from, not a measurement (`omni-sdk bench` measures).
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from omni_sdk.bundle.memory_sizes import AUDIO_TOKENS_PER_SECOND, in_gb, key_value_bytes
from omni_sdk.bundle.variants import variant_choices, weight_bytes
from omni_sdk.errors import MemoryBudgetError, OptionError

if TYPE_CHECKING:
    from omni_sdk.bundle.bundle import Bundle
    from omni_sdk.bundle.manifest import DusSpec, GrsSpec

logger = logging.getLogger(__name__)

FLOAT = 4
PATCH = 16  # pixels of the tracker's input per feature
RUNTIME_BYTES = {"cpu": 200 << 20, "cuda": 700 << 20}
"""The process with its libraries (measured with nano on a CPU: 150 MiB); on CUDA also the context and the
libraries' own scratch (an estimate)."""
SCORES_FACTOR = 2.5
"""Attention scores, their softmax and copies, over the scores alone (measured: 1191 MB for 471 MB of scores
in SAM 2.1's memory attention at 1024 px)."""
ACTIVATION_FACTOR = 12
"""Live activations of a block over its hidden states (an estimate: the feed-forward's two wide tensors)."""
VISION_HEADS = 16  # of Qwen2.5-Omni's tower; the manifest does not say
PAGE_BYTES = 4096
ENCODER_BYTES_PER_PIXEL = 300  # image encoder of the tracker at its widest (an estimate)
TEXT_TOKENS = 256
PIXEL_SHARES = (1.0, 0.5, 0.25)
_UNITS = {
    "": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
}


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What is loaded and what it takes, in bytes.

    Attributes:
        variants: for `Bundle.with_variants`.
        max_frames: frames shown to the reasoner at most; None without a reasoner.
        max_pixels: pixels of each at most; likewise.
        prompt_tokens: of the longest prompt that follows; likewise.
        weights: of all graphs.
        cache: keys and values of prompt and completion, old and new at once.
        reasoning: what prefill and the vision graph need while they run (an estimate).
        tracking: memories, and what a tracked frame needs while it runs (an estimate).
        runtime: process and libraries (an estimate).
        budget: that it was made for.
    """

    variants: tuple[str, ...]
    max_frames: int | None
    max_pixels: int | None
    prompt_tokens: int | None
    weights: int
    cache: int
    reasoning: int
    tracking: int
    runtime: int
    budget: int

    @property
    def total(self) -> int:
        """Peak: reasoning and tracking do not run at the same time."""
        return self.weights + self.runtime + max(self.cache + self.reasoning, self.tracking)

    def __str__(self) -> str:
        media = ""
        if self.max_frames is not None:
            media = f"; at most {self.max_frames} frames of {self.max_pixels} pixels, "
            media += f"{self.prompt_tokens} prompt tokens"
        return (
            f"memory plan: {in_gb(self.total)} of {in_gb(self.budget)}: weights {in_gb(self.weights)}, "
            f"key-value cache {in_gb(self.cache)}, reasoning {in_gb(self.reasoning)}, "
            f"tracking {in_gb(self.tracking)}, runtime {in_gb(self.runtime)}; "
            f"variants: {', '.join(self.variants) or 'none'}{media}"
        )


def parse_bytes(value: float | str) -> int:
    """Return a size in bytes from a number or a text such as "8GB", "7.5 GiB", "900MB".

    Raises:
        OptionError: no size, or none above 0.
    """
    if isinstance(value, int | float):
        size = float(value)
    else:
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMG]i?B)?\s*", value, re.IGNORECASE)
        if match is None:
            raise OptionError(f"expected a size such as '8GB' or '7.5GiB', got {value!r}")
        size = float(match[1]) * _UNITS[(match[2] or "").upper()]
    if not 1 <= size < math.inf:
        raise OptionError(f"a memory budget must be above 0, got {value!r}")
    return int(size)


def plan_memory(bundle: Bundle, budget: int, *, backend: str, device: str) -> MemoryPlan:
    """Choose variants, frames and pixels that fit a budget.

    Tried in this order, the first that fits is taken: variants that hardly change answers with all frames
    and pixels, then with fewer pixels, then with the fewest frames; variants that may change answers only
    after all of these (see `omni_sdk.bundle.variants`).

    Args:
        bundle: without variants chosen.
        budget: in bytes; for "cuda" of the device, for "cpu" of the host.
        backend: "onnx" or "tensorrt".
        device: "cpu", "cuda" or "cuda:N".

    Raises:
        MemoryBudgetError: nothing fits; says what the smallest plan needs and what can be changed.
    """
    smallest: MemoryPlan | None = None
    for variants, frames, pixels in _candidates(bundle, backend, device):
        plan = _plan(bundle.with_variants(*variants), variants, frames, pixels, budget, device)
        if plan.total <= budget:
            return plan
        if smallest is None or plan.total < smallest.total:
            smallest = plan
    assert smallest is not None
    raise MemoryBudgetError(
        f"bundle {bundle.manifest.name!r} does not fit {in_gb(budget)}; the smallest plan needs "
        f"{in_gb(smallest.total)} ({smallest}); add smaller variants (omni-export variants --variant int8 "
        "--variant int4), use a smaller checkpoint or a tracker of a smaller image size, or raise "
        "memory_budget"
    )


def apply_plan(bundle: Bundle, plan: MemoryPlan) -> Bundle:
    """Return the bundle with the plan's variants, frames and pixels."""
    chosen = bundle.with_variants(*plan.variants)
    grs = chosen.manifest.grs
    if grs is None or plan.max_frames is None or plan.max_pixels is None:
        return chosen
    low = min(grs.vision.video_pixels[0], plan.max_pixels)
    sampling = replace(
        grs.sampling,
        max_frames=plan.max_frames,
        min_frames=min(grs.sampling.min_frames, plan.max_frames),
    )
    vision = replace(grs.vision, video_pixels=(low, plan.max_pixels))
    grs = replace(grs, sampling=sampling, vision=vision)
    return replace(chosen, manifest=replace(chosen.manifest, grs=grs))


def _candidates(
    bundle: Bundle, backend: str, device: str
) -> Iterator[tuple[tuple[str, ...], int | None, int | None]]:
    media: list[tuple[int | None, int | None]] = [(None, None)]
    if (grs := bundle.manifest.grs) is not None:
        most, fewest = grs.sampling.max_frames, grs.sampling.min_frames
        low, high = grs.vision.video_pixels
        sizes = list(dict.fromkeys(max(low, int(high * share)) for share in PIXEL_SHARES))
        media = [(most, pixels) for pixels in sizes]
        if fewest < most:
            media.append((fewest, sizes[-1]))
    for group in variant_choices(bundle, backend, device):
        for frames, pixels in media:
            for variants in group:
                yield variants, frames, pixels


def _plan(
    bundle: Bundle,
    variants: tuple[str, ...],
    frames: int | None,
    pixels: int | None,
    budget: int,
    device: str,
) -> MemoryPlan:
    manifest = bundle.manifest
    prompt, cache, reasoning = None, 0, 0
    table = manifest.grs.embedding if manifest.grs is not None else None
    if manifest.grs is not None and frames is not None and pixels is not None:
        prompt = longest_prompt(manifest.grs, frames, pixels)
        tokens = prompt + manifest.grs.prompts.max_new_tokens
        cache = 2 * cache_bytes(manifest.grs, tokens, _cache_dtype(bundle))
        reasoning = _reasoning_bytes(manifest.grs, prompt, pixels)
        if table is not None:  # mapped: only the pages of the rows in use take memory
            row = manifest.files[table.file].size // table.rows
            touched = (prompt + manifest.grs.prompts.max_new_tokens) * (row + PAGE_BYTES)
            reasoning += min(touched, manifest.files[table.file].size)
    return MemoryPlan(
        variants=variants,
        max_frames=frames,
        max_pixels=pixels,
        prompt_tokens=prompt,
        weights=weight_bytes(bundle),
        cache=cache,
        reasoning=reasoning,
        tracking=0 if manifest.dus is None else tracking_bytes(manifest.dus),
        runtime=RUNTIME_BYTES["cuda" if device.startswith("cuda") else "cpu"],
        budget=budget,
    )


def longest_prompt(spec: GrsSpec, frames: int, pixels: int) -> int:
    """Return the tokens of the longest prompt: a clip of these frames with all its sound, or a keyframe."""
    vision = spec.vision
    token_pixels = (vision.patch_size * vision.merge_size) ** 2
    rows = -(-frames // vision.temporal_patch_size)
    sound = int(AUDIO_TOKENS_PER_SECOND * spec.audio.max_seconds)
    clip = rows * (pixels // token_pixels) + sound
    keyframe = vision.image_pixels[1] // token_pixels
    room = spec.decoder.max_positions - spec.prompts.max_new_tokens
    return max(1, min(max(clip, keyframe) + TEXT_TOKENS, room))


def cache_bytes(spec: GrsSpec, tokens: int, dtype: str = "float32") -> int:
    """Return the size of the key-value cache in the dtype that the decoder takes."""
    d = spec.decoder
    size = 2 if dtype == "float16" else FLOAT
    return key_value_bytes(d.num_layers, d.num_kv_heads * d.head_dim, tokens, size)


def _cache_dtype(bundle: Bundle) -> str:
    inputs = bundle.graph("grs/decoder").inputs
    return next((t.dtype for t in inputs if t.name.startswith("past.")), "float32")


def _reasoning_bytes(spec: GrsSpec, prompt: int, pixels: int) -> int:
    d, v = spec.decoder, spec.vision
    heads = d.hidden_size // d.head_dim
    scores = SCORES_FACTOR * heads * prompt * prompt * FLOAT
    hidden = ACTIVATION_FACTOR * prompt * d.hidden_size * FLOAT
    patches = max(pixels, v.image_pixels[1]) // v.patch_size**2
    vision = SCORES_FACTOR * VISION_HEADS * patches * patches * FLOAT
    return int(max(scores + hidden, vision))


def tracking_bytes(spec: DusSpec, objects: int = 1, conditioning: int = 4) -> int:
    """Return what tracking takes: each object's memories, the encoder, and one object's attention.

    The tracker bounds the attention of objects that share a call, so that of one is what grows.
    """
    places = (spec.image_size // PATCH) ** 2
    memories = spec.num_memories - 1 + conditioning
    pointers = spec.max_object_pointers * (spec.hidden_size // spec.memory_size)
    bank = memories * places * spec.memory_size + spec.max_object_pointers * spec.hidden_size
    scores = SCORES_FACTOR * places * (memories * places + pointers) * FLOAT
    encoder = ENCODER_BYTES_PER_PIXEL * spec.image_size**2
    return int(objects * bank * FLOAT + max(scores, encoder))
