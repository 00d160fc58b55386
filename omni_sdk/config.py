"""Options as frozen dataclasses. An unknown keyword raises, as for any dataclass; so does a wrong value.

The command line is made from these fields and from what the docstrings say of them; a field's metadata may
name its "aliases", "choices" and "metavar" there (see `omni_sdk.cli.options`).

`None` means "what the bundle says": nothing about a model is decided here.
"""

from __future__ import annotations

import functools
import math
import numbers
import re
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any, Literal, TypeAlias

from omni_sdk.errors import OptionError

ON_PARSE_ERROR = ("raise", "empty")
BACKENDS = ("auto", "onnx", "tensorrt", "torch")
Provider: TypeAlias = str | tuple[str, Mapping[str, Any]]

PARITY: dict[str, Literal["exact", "fast"]] = {"hf": "exact", "fast": "fast"}
"""Values of `SamplingConfig.parity` in those of `pixels`."""


_SAID = {int: "an integer", float: "a number", bool: "True or False", str: "a text"}


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise OptionError(message)


@functools.cache
def option_types(options: type) -> dict[str, Any]:
    """Return the types of a dataclass's options by name; what is given but not kept is an `InitVar`."""
    # Our own source; typing.get_type_hints fails on InitVar in 3.10.
    scope = vars(sys.modules[options.__module__])
    return {name: eval(text, scope) for name, text in options.__annotations__.items()}


def check_types(options: object) -> None:
    """Refuse a value that is not of its field's type.

    NumPy's numbers pass as Python's do, an integer as a number, a list as a tuple; True is no number.

    Args:
        options: a dataclass whose fields are bools, numbers, texts, None, literals, tuples, mappings, other
            classes, or unions of these.

    Raises:
        OptionError: names the field, what it may be, and what it is.
    """
    kind = typing.cast(type, type(options))
    for name, hint in option_types(kind).items():
        if isinstance(hint, InitVar):
            continue
        value = getattr(options, name)
        if not _fits(value, hint):
            found = type(value).__name__
            raise OptionError(f"{name} must be {_said(hint)}, got {value!r} ({found})")


def _fits(value: object, hint: Any) -> bool:
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, m) for m in members)
    if origin is Literal:
        return isinstance(value, str) and value in members
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        each = members[:1] * len(value) if members[-1] is ... else members
        return len(value) == len(each) and all(map(_fits, value, each))
    if hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, kind) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def _said(hint: Any) -> str:
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_said, members))
    if origin is Literal:
        return " or ".join(map(repr, members))
    if origin is tuple:
        each = "each " if members[-1] is ... else ""
        return f"a tuple ({each}{', '.join(_said(m) for m in members if m is not ...)})"
    return "None" if hint is types.NoneType else _SAID.get(hint) or f"a {(origin or hint).__name__}"


@dataclass(frozen=True, slots=True)
class SamplingConfig:
    """Which part of a source the reasoner sees.

    Attributes:
        num_frames: frames shown to the reasoner, at least 1; None: the bundle's rule.
        audio: whether the sound is used where there is one.
        pixels: "exact": pixels equal the models' reference preprocessing to the last bit; "fast": one pass
            from the decoder's planes to what the models read, close to it (`benchmarks/pixels.py` prints
            the PSNR by format), for frames of the reasoner and the tracker. Exact all the same: frames
            that keep more than half of their pixels, keyframes for the grounder, RGB sources, and
            pixel formats, colour spaces and interlaced frames that the fast pass does not read.
        parity: an older name of `pixels`, read but not kept: "hf" is "exact".
    """

    num_frames: int | None = field(default=None, metadata={"aliases": ("--frames",)})
    audio: bool = True
    pixels: Literal["exact", "fast"] = "exact"
    parity: InitVar[Literal["hf", "fast"] | None] = None

    def __post_init__(self, parity: Literal["hf", "fast"] | None) -> None:
        check_types(self)
        if parity is not None:
            _check(parity in tuple(PARITY), f"parity must be 'hf' or 'fast', got {parity!r}")
            _check(
                self.pixels in ("exact", PARITY[parity]),
                f"pixels={self.pixels!r} and parity={parity!r} contradict: they must mean the same",
            )
            object.__setattr__(self, "pixels", PARITY[parity])
        _check(
            self.num_frames is None or self.num_frames >= 1,
            f"num_frames must be at least 1 or None, got {self.num_frames!r}",
        )


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """How text is generated.

    Attributes:
        max_new_tokens: upper bound on generated tokens; None: the bundle's default.
        temperature: 0 is greedy; otherwise logits are divided by it before sampling.
        top_p: nucleus mass in (0, 1]; 1 keeps every token.
        seed: seed of the sampler; the same request with the same seed gives the same text.
        stop: texts that end generation; the stop text itself is not part of the completion.
        thinking_budget: tokens, at least 0, after which a model that has not begun its answer is made to:
            its thought is closed, <answer> opened for it and, where moments are asked for, its next token
            begins a list. None: three quarters of `max_new_tokens` (for a reasoner; a thinker on its own
            has none). `max_new_tokens` or more: never.
    """

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    thinking_budget: int | None = None

    def __post_init__(self) -> None:
        check_types(self)
        _check(
            self.max_new_tokens is None or self.max_new_tokens >= 1,
            f"max_new_tokens must be at least 1 or None, got {self.max_new_tokens!r}",
        )
        _check(
            math.isfinite(self.temperature) and self.temperature >= 0,
            f"temperature must be finite and >= 0, got {self.temperature!r}",
        )
        _check(0 < self.top_p <= 1, f"top_p must be in (0, 1], got {self.top_p!r}")
        _check(all(self.stop), "stop texts must not be empty")
        _check(
            self.thinking_budget is None or self.thinking_budget >= 0,
            f"thinking_budget must be at least 0 or None, got {self.thinking_budget!r}",
        )


@dataclass(frozen=True, slots=True)
class TrackingConfig:
    """How boxes become mask tracks.

    Attributes:
        max_keyframes: keyframes that are grounded and prompted, at least 1.
        second_looks: where the grounder finds nothing in the middle of a moment, what is described may be
            hidden just then: it is looked for on so many more frames of the moment, in [0, 4].
        max_conditioning: memories of prompted frames that each tracked frame attends to (the nearest
            ones in time); bounds memory and time. transformers keeps all of them.
        match_iou: IoU, in (0, 1], from which a keyframe's box is taken to be an object that is already
            tracked there.
        backward: also fill the frames before the first keyframe.
        stride: the tracker's model runs on every `stride`-th frame and on keyframes, in [1, 32]; the masks of
            the frames in between are warped along with the pictures. "auto": as soon as they can no
            longer be warped with confidence, and on every eighth frame.
        encode_ahead: with stride 1, the image encoder works on the next frame while the rest of the model
            works on this one. The masks are the same either way. It pays where one of them leaves the device
            idle (few threads, small graphs); the memory that both need comes together.
    """

    max_keyframes: int = field(default=4, metadata={"aliases": ("--keyframes",)})
    second_looks: int = 2
    max_conditioning: int = 4
    match_iou: float = 0.5
    backward: bool = True
    stride: int | Literal["auto"] = 1
    encode_ahead: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        _check(self.max_keyframes >= 1, f"max_keyframes must be >= 1, got {self.max_keyframes!r}")
        _check(
            0 <= self.second_looks <= 4,
            f"second_looks must be in [0, 4], got {self.second_looks!r}",
        )
        _check(
            self.max_conditioning >= 1,
            f"max_conditioning must be >= 1, got {self.max_conditioning!r}",
        )
        _check(
            self.stride == "auto" or 1 <= self.stride <= 32,
            f"stride must be in [1, 32] or 'auto', got {self.stride!r}",
        )
        _check(0 < self.match_iou <= 1, f"match_iou must be in (0, 1], got {self.match_iou!r}")


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """All options of one run.

    Attributes:
        sampling: what the reasoner sees.
        generation: how the reasoner writes.
        tracking: how boxes become mask tracks.
        overlap: frames are decoded in a thread of their own while the tracker works on earlier ones. The
            answer is the same either way.
        on_parse_error: "raise" a `ModelOutputError` when the reasoner's text cannot be parsed, or
            return an "empty" result with status "unparsed".
    """

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    on_parse_error: str = field(default="raise", metadata={"choices": ON_PARSE_ERROR})
    overlap: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        _check(
            self.on_parse_error in ON_PARSE_ERROR,
            f"on_parse_error must be 'raise' or 'empty', got {self.on_parse_error!r}",
        )


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How models are loaded: the keywords of `Pipeline.from_pretrained`.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N"; with backend "torch", any name that torch knows.
        backend: "auto", "onnx" and "tensorrt" run bundles, "torch" runs checkpoints.
        providers: ONNX Runtime providers in its own names, or (name, options) pairs, most wanted first; in
            place of `device`.
        revision: branch, tag or commit of a hub id.
        local_files_only: never download.
        tracker: with backend "torch": the tracker's checkpoint directory or hub id.
        threads: CPU threads of one operator (ONNX), at least 1; None: the engine decides.
        variant: variants of the bundle's graphs ("fp16", "int8", ..): each is used in the place of every
            graph that has it, the last one wins.
        skip_parity: use graphs that do not give their golden outputs on this machine (answers may be wrong);
            each is logged as a warning.
        memory_budget: fit so much memory: bytes, a text such as "8GB", or "auto" (what is free on the
            device). Variants, frames and pixels are chosen, and said before anything loads.
    """

    device: str = "auto"
    backend: str = field(default="auto", metadata={"choices": BACKENDS})
    providers: tuple[Provider, ...] | None = None
    revision: str | None = None
    local_files_only: bool = False
    tracker: str | None = None
    threads: int | None = None
    variant: tuple[str, ...] = ()
    skip_parity: bool = False
    memory_budget: int | float | str | None = field(
        default=None, metadata={"aliases": ("--memory",), "metavar": "SIZE"}
    )

    def __post_init__(self) -> None:
        check_types(self)
        is_torch = self.backend == "torch"
        _check(self.backend in BACKENDS, f"backend must be one of {BACKENDS}, got {self.backend!r}")
        _check(
            is_torch or re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", self.device) is not None,
            f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {self.device!r}",
        )
        _check(
            self.threads is None or self.threads >= 1,
            f"threads must be at least 1 or None, got {self.threads!r}",
        )
        _check(
            not is_torch or not (self.variant or self.memory_budget is not None),
            "variant= and memory_budget= are for bundles, not for backend='torch'",
        )
        _check(
            self.providers is None or self.backend in ("auto", "onnx"),
            f"providers= is for onnxruntime, not for backend={self.backend!r}",
        )
        _check(
            self.tracker is None or is_torch,
            "tracker= is for backend='torch'; a bundle names its own tracker",
        )
        _check(
            self.memory_budget is None or not self.variant,
            "memory_budget= chooses the variant itself; pass one of the two",
        )
