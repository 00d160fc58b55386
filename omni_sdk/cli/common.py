"""What the commands share: how to name a model, progress on stderr, small tables."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from omni_sdk.config import PARITY

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
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--backend", default="auto", choices=("auto", "onnx", "tensorrt", "torch"))
    parser.add_argument(
        "--tracker", default=None, help="with --backend torch: the tracker's checkpoint"
    )
    declare_variants(parser)


def declare_variants(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose providers and variants, the latter by name or by the memory they take."""
    parser.add_argument(
        "--provider",
        action="append",
        default=[],
        metavar="NAME[:KEY=VALUE,..]",
        help="execution provider of ONNX Runtime by its own name and with its own options, in place of "
        "--device: TensorrtExecutionProvider, or CUDAExecutionProvider:enable_cuda_graph=1; may be "
        "repeated, most wanted first",
    )
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME",
        help="use this variant of every graph that has it (fp16, int8, ..); may be repeated, the last wins",
    )
    parser.add_argument(
        "--skip-parity",
        action="store_true",
        help="use graphs that compute something else on this machine (answers may be wrong)",
    )
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="fit this much memory ('8GB', 'auto'): chooses variants, frames and pixels, and says so",
    )


def declare_pixels(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how pixels are made."""
    parser.add_argument(
        "--pixels",
        choices=("exact", "fast"),
        default="exact",
        help="exact: pixels equal the reference preprocessing to the last bit; fast: one pass from the "
        "decoder's planes, close to it",
    )
    parser.add_argument(
        "--parity",
        dest="pixels",
        action=_Parity,
        choices=tuple(PARITY),
        help="older name of --pixels: hf is exact",
    )


class _Parity(argparse.Action):
    """Stores a value of `--parity` as one of `--pixels`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, PARITY[str(values)])


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


def load_pipeline(arguments: argparse.Namespace) -> Pipeline:
    """Load the chosen models."""
    from omni_sdk.pipeline import Pipeline

    return Pipeline.from_pretrained(
        arguments.bundle,
        device=arguments.device,
        backend=arguments.backend,
        tracker=getattr(arguments, "tracker", None),
        limits=read_limits(arguments) if hasattr(arguments, "limit") else None,
        variant=arguments.variant,
        skip_parity=arguments.skip_parity,
        memory_budget=read_memory(arguments),
        providers=read_providers(arguments),
    )


def read_providers(arguments: argparse.Namespace) -> list[tuple[str, dict[str, str]]] | None:
    """Return execution providers with their options, None where none is named.

    Raises:
        EngineError: options that are not KEY=VALUE.
    """
    from omni_sdk.errors import EngineError

    found = []
    if arguments.provider and arguments.backend not in ("auto", "onnx"):
        raise EngineError(f"--provider is for onnxruntime, not for --backend {arguments.backend}")
    for text in arguments.provider:
        name, _, rest = text.partition(":")
        pairs = [item.partition("=") for item in rest.split(",") if item]
        if any(not key or not equals for key, equals, _ in pairs):
            raise EngineError(f"--provider {text!r}: expected NAME or NAME:KEY=VALUE,KEY=VALUE")
        found.append((name, {key: value for key, _, value in pairs}))
    return found or None


def read_memory(arguments: argparse.Namespace) -> str | None:
    """Return the memory budget as text, checked; let the plan that follows from it be printed.

    Raises:
        MemoryBudgetError: no size.
    """
    from omni_sdk.errors import MemoryBudgetError

    budget: str | None = arguments.memory
    if budget is None:
        return None
    if budget != "auto":
        from omni_sdk.bundle.memory_plan import parse_bytes

        try:
            parse_bytes(budget)
        except ValueError as e:
            raise MemoryBudgetError(f"--memory: {e}") from e
    loading = logging.getLogger("omni_sdk.loading")
    loading.addHandler(logging.StreamHandler())
    loading.setLevel(logging.INFO)
    return budget


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
