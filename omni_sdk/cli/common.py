"""What the commands share: how to name a model, progress on stderr, small tables."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from omni_sdk.cli.logs import at_level
from omni_sdk.cli.options import declare_options, read_options
from omni_sdk.config import ModelOptions, Provider

if TYPE_CHECKING:
    from omni_sdk.media.limits import MediaLimits
    from omni_sdk.pipeline import Pipeline

T = TypeVar("T")

NANO_WARNING = (
    "note: the shipped 'nano' bundle knows only the coloured shapes and tones of `omni-sdk demo`; it "
    "does not understand natural video. For that, export a real checkpoint (Haoz0206/Omni-R1 or "
    "Qwen/Qwen2.5-Omni-3B|7B, with facebook/sam2.1-hiera-*): "
    "omni-export onnx --grs Haoz0206/Omni-R1 --dus facebook/sam2.1-hiera-large --out BUNDLE"
)


def declare_model(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose models and a device."""
    parser.add_argument(
        "--bundle", default="nano", help="bundle directory, hub id, or 'nano' (default)"
    )
    declare_loading(parser)


def declare_loading(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how models are loaded."""
    declare_options(parser, ModelOptions, exclude=("providers",))
    parser.add_argument(
        "--provider",
        action="append",
        default=[],
        metavar="NAME[:KEY=VALUE,..]",
        help="execution provider of ONNX Runtime by its own name and with its own options, in place of "
        "--device: TensorrtExecutionProvider, or CUDAExecutionProvider:enable_cuda_graph=1; may be "
        "repeated, most wanted first",
    )


def declare_limits(parser: argparse.ArgumentParser) -> None:
    """Add the option that changes what a source may cost."""
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a limit on the source, e.g. max_wall_seconds=60, max_pixels=8000000 or "
        "protocols=file,https; may be repeated. OMNI_SDK_MAX_WALL_SECONDS and so on set the same",
    )


def read_limits(arguments: argparse.Namespace) -> MediaLimits:
    """Return the defaults with the environment and then the command line applied.

    Raises:
        LimitError: no such limit, or no positive number.
    """
    import dataclasses

    from omni_sdk.errors import LimitError
    from omni_sdk.media.limits import MediaLimits

    limits = MediaLimits.from_environment()
    defaults: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(MediaLimits)}
    for text in arguments.limit:
        name, equals, value = text.partition("=")
        if not equals or name not in defaults:
            raise LimitError(
                f"--limit {text!r}: expected NAME=VALUE with one of {sorted(defaults)}"
            )
        default = defaults[name]
        try:
            parsed = tuple(value.split(",")) if isinstance(default, tuple) else type(default)(value)
            changed: dict[str, Any] = {name: parsed}
            limits = dataclasses.replace(limits, **changed)
        except ValueError as e:
            raise LimitError(f"--limit {text!r}: {e}") from e
    return limits


def read_models(arguments: argparse.Namespace) -> ModelOptions:
    """Return how the models are to be loaded.

    Raises:
        OptionError, EngineError: options that cannot be, or contradict each other.
    """
    return read_options(arguments, ModelOptions, providers=read_providers(arguments))


def load_pipeline(arguments: argparse.Namespace) -> Pipeline:
    """Load the chosen models; a memory plan is said before anything loads."""
    from omni_sdk.pipeline import Pipeline

    options = read_models(arguments)
    limits = read_limits(arguments) if hasattr(arguments, "limit") else None
    level = logging.NOTSET if options.memory_budget is None else logging.INFO
    with at_level(logging.getLogger("omni_sdk.loading"), level):
        return Pipeline.from_options(arguments.bundle, options, limits=limits)


def read_providers(arguments: argparse.Namespace) -> tuple[Provider, ...] | None:
    """Return execution providers with their options, None where none is named.

    Raises:
        EngineError: options that are not KEY=VALUE.
    """
    from omni_sdk.errors import EngineError

    found: list[Provider] = []
    backend = getattr(arguments, "backend", "auto")
    if arguments.provider and backend not in ("auto", "onnx"):
        raise EngineError(f"--provider is for onnxruntime, not for --backend {backend}")
    for text in arguments.provider:
        name, _, rest = text.partition(":")
        pairs = [item.partition("=") for item in rest.split(",") if item]
        if any(not key or not equals for key, equals, _ in pairs):
            raise EngineError(f"--provider {text!r}: expected NAME or NAME:KEY=VALUE,KEY=VALUE")
        found.append((name, {key: value for key, _, value in pairs}))
    return tuple(found) or None


def output_directory(text: str) -> Path:
    """Return the path of a directory that is there or can be made; for argparse, so before models load."""
    path = Path(text)
    try:
        there = next(p for p in (path, *path.absolute().parents) if p.exists())
        is_free = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    except OSError as e:
        raise argparse.ArgumentTypeError(f"{text[:200]!r} is no path here: {e.strerror}") from e
    if not is_free:
        raise argparse.ArgumentTypeError(
            f"expected a directory, or a path where one can be made, got {text!r}: {str(there)!r} is "
            f"{'not writable' if there.is_dir() else 'a file'}"
        )
    return path


def output_file(text: str) -> Path:
    """Return the path of a file that can be written; for argparse, so before models load."""
    path = Path(text)
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        reason = "it is a directory" if path.is_dir() else "its folder is missing or not writable"
        raise argparse.ArgumentTypeError(f"expected a file to write, got {text!r}: {reason}")
    return path


def say(message: str) -> None:
    """Write a line of progress to stderr."""
    print(message, file=sys.stderr, flush=True)


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield items and show progress on stderr: a bar of rich on a terminal, else a line per 10 %."""
    if sys.stderr.isatty():
        try:
            from rich.console import Console
            from rich.progress import track as rich_track
        except ImportError:
            pass
        else:
            yield from rich_track(
                items, total=total, description=what, console=Console(stderr=True), transient=True
            )
            return
    started, shown = time.monotonic(), 0
    for done, item in enumerate(items, 1):
        yield item
        tenth = done * 10 // max(total, 1)
        if tenth > shown:
            shown = tenth
            elapsed = time.monotonic() - started
            say(
                f"{what}: {done}/{total}, {elapsed:.0f} s, {elapsed / done * (total - done):.0f} s left"
            )
