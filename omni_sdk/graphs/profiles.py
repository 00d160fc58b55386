"""Which shapes an engine must take, per graph: TensorRT builds for ranges, not for everything.

A profile gives each input a smallest, a usual and a largest shape. The decoder has two: a prompt without a
cache, and one token on a cache. Everything follows from the bundle's settings and `ShapeLimits`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omni_sdk.errors import BundleError, EngineError
from omni_sdk.graphs.smart_resize import smart_resize
from omni_sdk.graphs.windows import vision_layout
from omni_sdk.utils import schema

if TYPE_CHECKING:
    from omni_sdk.bundle.bundle import Bundle
    from omni_sdk.bundle.manifest import GraphSpec, GrsSpec

Shape = tuple[int, ...]
Range = tuple[Shape, Shape, Shape]
ASPECTS = ((1, 1), (9, 16), (16, 9), (1, 3), (3, 1))
"""Heights to widths of frames that the vision profile takes in full size."""
_TEXT_TOKENS = 512  # prompt and question around the media
_AUDIO_TOKENS_PER_SECOND = 25  # two mel frames of 10 ms, then a stride of 2


@dataclass(frozen=True, slots=True)
class ShapeLimits:
    """How large calls may be.

    Attributes:
        max_objects: objects tracked at once.
        max_conditioning: memories of prompted frames; see `TrackingConfig`.
        max_points: points of one prompt (a box is two).
        max_patches: patches per call of the vision graph; see `GraphThinker`.
        max_chunks: chunks per call of the audio graph; likewise.
        max_prompt: tokens of a prompt; None: what the bundle's media budget can make, within its positions.
        max_new_tokens: of a completion; None: the bundle's default.
    """

    max_objects: int = 8
    max_conditioning: int = 4
    max_points: int = 8
    max_patches: int = 8192
    max_chunks: int = 32
    max_prompt: int | None = None
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        given = (self.max_prompt or 1, self.max_new_tokens or 1)
        sizes = (self.max_objects, self.max_conditioning, self.max_points)
        if min(*given, *sizes, self.max_patches, self.max_chunks) < 1:
            raise ValueError(f"every limit must be at least 1, got {self}")


@dataclass(frozen=True, slots=True)
class Profile:
    """One range of shapes.

    Attributes:
        name: for people.
        shapes: (smallest, usual, largest) of each input.
    """

    name: str
    shapes: dict[str, Range]

    def holds(self, shapes: Mapping[str, Shape]) -> bool:
        """Say whether these inputs lie within the profile."""
        for name, (low, _, high) in self.shapes.items():
            shape = shapes[name]
            if len(shape) != len(low):
                return False
            if any(not a <= s <= b for a, s, b in zip(low, shape, high, strict=True)):
                return False
        return True


def profiles_text(profiles: Sequence[Profile]) -> str:
    """Return profiles as JSON, as a plan's key holds them."""
    return json.dumps([[p.name, schema.to_dict(p.shapes)] for p in profiles])


def read_profiles(text: str) -> tuple[Profile, ...]:
    """Return the profiles of `profiles_text`.

    Raises:
        EngineError: it is something else.
    """
    try:
        values = [{"name": name, "shapes": shapes} for name, shapes in json.loads(text)]
        return tuple(schema.from_dict(Profile, value) for value in values)
    except (ValueError, TypeError) as e:
        raise EngineError(f"the plan's record holds no profiles ({e}); build the plan again") from e


def graph_profiles(bundle: Bundle, graph: str, limits: ShapeLimits) -> tuple[Profile, ...]:
    """Return the profiles of a graph.

    Raises:
        BundleError: no such graph, or an axis that nothing is known of.
    """
    spec = bundle.graph(graph)
    if graph == "grs/decoder":
        return _decoder(spec, bundle.grs, limits)
    if graph == "grs/vision":
        return (Profile("frames", _vision(bundle.grs, limits)),)
    if graph == "grs/audio":
        return (_profile("chunks", spec, {"chunks": (1, 2, limits.max_chunks)}),)
    if graph == "grs/embed":
        longest = prompt_tokens(bundle.grs, limits)
        axes = {"batch": (1, 1, 1), "length": (1, min(1024, longest), longest)}
        return (_profile("tokens", spec, axes),)
    memories = bundle.dus.num_memories - 1 + limits.max_conditioning
    pointers = bundle.dus.max_object_pointers
    axes = {
        "N": (1, 1, limits.max_objects),
        "T": (1, min(bundle.dus.num_memories, memories), memories),
        "P": (1, pointers, pointers),
        "K": (1, 2, limits.max_points),
    }
    return (_profile("objects", spec, axes),)


def prompt_tokens(spec: GrsSpec, limits: ShapeLimits) -> int:
    """Return the longest prompt: all frames and sound at their largest, and text around them."""
    if limits.max_prompt is not None:
        return limits.max_prompt
    vision, sampling = spec.vision, spec.sampling
    token_pixels = (vision.patch_size * vision.merge_size) ** 2
    rows = -(-sampling.max_frames // vision.temporal_patch_size)
    video = rows * (vision.video_pixels[1] // token_pixels)
    image = vision.image_pixels[1] // token_pixels
    sound = int(spec.audio.max_seconds * _AUDIO_TOKENS_PER_SECOND)
    room = spec.decoder.max_positions - (limits.max_new_tokens or spec.prompts.max_new_tokens)
    return max(1, min(max(video + sound, image) + _TEXT_TOKENS, room))


def _decoder(spec: GraphSpec, grs: GrsSpec, limits: ShapeLimits) -> tuple[Profile, ...]:
    longest = prompt_tokens(grs, limits)
    usual = min(2048, longest)
    last = longest + (limits.max_new_tokens or grs.prompts.max_new_tokens)
    one, none = (1, 1, 1), (0, 0, 0)
    prompt = (1, usual, longest)
    prefill = {"batch": one, "length": prompt, "past": none, "total": prompt}
    step = {
        "batch": one,
        "length": one,
        "past": (1, usual, last),
        "total": (2, usual + 1, last + 1),
    }
    return (_profile("prefill", spec, prefill), _profile("step", spec, step))


def _vision(spec: GrsSpec, limits: ShapeLimits) -> dict[str, Range]:
    """Lay out real frames: the smallest one, a call of square ones, and the largest of every aspect."""
    vision = spec.vision
    budget = max(vision.video_pixels[1], vision.image_pixels[1])
    smallest = _sizes([(1, vision.merge_size, vision.merge_size)], spec)
    usual = _sizes([_grid(spec, vision.video_pixels[1], (1, 1), limits.max_patches)], spec)
    pixels = {vision.video_pixels[1], budget}
    calls = [_grid(spec, p, a, limits.max_patches) for p in sorted(pixels) for a in ASPECTS]
    largest = [_sizes([grid], spec) for grid in calls]
    return {
        name: (
            smallest[name],
            usual[name],
            tuple(max(sizes) for sizes in zip(*(call[name] for call in largest), strict=True)),
        )
        for name in smallest
    }


def _grid(
    spec: GrsSpec, pixels: int, aspect: tuple[int, int], max_patches: int
) -> tuple[int, int, int]:
    """Return the (t, h, w) of as many frames of an aspect and a budget as one call holds."""
    vision = spec.vision
    factor = vision.patch_size * vision.merge_size
    height, width = smart_resize(
        aspect[0] * 1000, aspect[1] * 1000, factor=factor, min_pixels=1, max_pixels=pixels
    )
    h, w = height // vision.patch_size, width // vision.patch_size
    rows = -(-spec.sampling.max_frames // vision.temporal_patch_size)
    return (max(1, min(rows, max_patches // (h * w))), h, w)


def _sizes(grids: list[tuple[int, int, int]], spec: GrsSpec) -> dict[str, Shape]:
    layout = vision_layout(grids, spec.vision)
    width = 3 * spec.vision.temporal_patch_size * spec.vision.patch_size**2
    patches = sum(t * h * w for t, h, w in grids)
    sizes: dict[str, Shape] = {"pixel_values": (patches, width)}
    return sizes | {name: value.shape for name, value in layout.items()}


def _profile(name: str, spec: GraphSpec, axes: Mapping[str, tuple[int, int, int]]) -> Profile:
    shapes: dict[str, Range] = {}
    for tensor in spec.inputs:
        try:
            ranges = [(a, a, a) if isinstance(a, int) else axes[a] for a in tensor.axes]
        except KeyError as e:
            raise BundleError(f"{spec.file}: {tensor.name} has an unknown axis {e}") from e
        low, usual, high = (tuple(r[i] for r in ranges) for i in range(3))
        shapes[tensor.name] = (low, usual, high)
    return Profile(name, shapes)
