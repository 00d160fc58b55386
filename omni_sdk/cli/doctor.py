"""`omni-sdk doctor`: proof, not lists. Every engine and provider runs a real graph.

A provider that is merely listed may have no kernels for the GPU at hand, so a small decoder of the shipped
bundle is run on each, TensorRT included, and compared with the CPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_sdk.utils.text import table

if TYPE_CHECKING:
    from omni_sdk.bundle.bundle import Bundle
    from omni_sdk.engines.base import EngineLoader
    from omni_sdk.graphs.golden import Arrays

Row = tuple[str, str, str, str, str]
CPU = "CPUExecutionProvider"
_REMOTE = ("AzureExecutionProvider",)  # runs nothing here: it sends its nodes to a service
GRAPH = "grs/decoder"
TOLERANCE = 1e-2
"""In standard deviations: float32 graphs on TF32 kernels stay well inside, a broken provider does not."""


def declare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Run the command; exit code 0 when the CPU engine works."""
    import omni_sdk
    from omni_sdk import native

    packages = ("numpy", "av", "tokenizers", "onnxruntime", "onnxruntime-gpu", "tensorrt", "torch")
    found = [f"{p} {v}" for p in packages if (v := _version(p))]
    print(
        f"omni-sdk {omni_sdk.__version__}, Python {platform.python_version()}, {platform.platform()}"
    )
    print(f"packages: {', '.join(found)}")
    fallback = "" if native.available() else " (numpy references are used: slower, same bytes)"
    print(f"native kernels: {native.state()}{fallback}")
    print(f"device: {describe_device()}")
    rows = check_engines()
    short = [(*row[:2], row[2].partition(":")[0], *row[3:]) for row in rows]
    print(table(("engine", "provider", "state", "ms", "difference"), short))
    for engine, provider, state, *_ in rows:
        if ": " in state:
            print(f"{engine} {provider}: {state.partition(': ')[2]}")
    healthy = any(row[1] == CPU and row[2] == "ok" for row in rows)
    if not healthy:
        print("no working engine: pip install 'omni-sdk[onnx]'", file=sys.stderr)
    return 0 if healthy else 1


def describe_device() -> str:
    """Return name, driver and free memory of the first GPU in words, or that there is none."""
    from omni_sdk.utils.devices import nvidia_device

    found = nvidia_device("cuda:0")
    if not found:
        return "no NVIDIA GPU answers nvidia-smi; engines run on the CPU"
    return (
        f"{found['name']}, compute capability {found['compute_cap']}, driver {found['driver_version']}, "
        f"{found['memory.free']} of {found['memory.total']} free"
    )


def check_engines() -> list[Row]:
    """Run the shipped decoder on every engine; return (engine, provider, state, ms, difference)."""
    from omni_sdk.bundle.bundle import Bundle
    from omni_sdk.bundle.hub import resolve
    from omni_sdk.errors import OmniError

    try:
        bundle = Bundle.open(resolve("nano"))
    except OmniError as e:
        return [("bundle", "-", f"fails: {_line(e)}", "-", "-")]
    return [*_check_onnx(bundle), check_tensorrt(bundle)]


def _check_onnx(bundle: Bundle) -> list[Row]:
    from omni_sdk.engines.select import open_loader
    from omni_sdk.errors import OmniError

    try:
        from omni_sdk.engines.onnx import available_providers

        providers = available_providers()
        reference, ms = _run_once(open_loader("onnx", providers=[CPU]), bundle)
    except OmniError as e:
        return [("onnx", "-", f"fails: {_line(e)}", "-", "-")]
    rows = [("onnx", CPU, "ok", f"{ms:.1f}", "0")]
    for provider in (p for p in providers if p not in (CPU, *_REMOTE)):
        try:
            values, ms = _run_once(open_loader("onnx", providers=[provider]), bundle)
        except OmniError as e:
            rows.append(("onnx", provider, f"fails: {_line(e)}", "-", "-"))
            continue
        rows.append(("onnx", provider, *_verdict(values, reference, ms)))
    return rows


def check_tensorrt(bundle: Bundle, library: Any = None, driver: Any = None) -> Row:
    """Build a plan of the shipped decoder in a temporary directory, run it, and compare with the CPU.

    Args:
        bundle: the shipped one.
        library: TensorRT; None: the machine's.
        driver: CUDA's; None: the machine's.
    """
    from omni_sdk.engines.plans import BuildFlags, PlanCache
    from omni_sdk.engines.tensorrt import TensorRTLoader
    from omni_sdk.errors import BackendUnavailableError, OmniError
    from omni_sdk.graphs.profiles import ShapeLimits

    # Little to build: the kernels that a small decoder needs are those of a large one.
    limits, flags = ShapeLimits(max_prompt=64, max_new_tokens=16), BuildFlags(512, 0)
    with tempfile.TemporaryDirectory() as folder:
        try:
            cache = PlanCache(Path(folder) / "plans")
            loader = TensorRTLoader(
                limits=limits, flags=flags, cache=cache, library=library, driver=driver
            )
            loader.build(bundle, GRAPH)
            values, ms = _run_once(loader, bundle)
            reference, _ = _run_once(_cpu(), bundle)
        except BackendUnavailableError as e:
            return ("tensorrt", "-", f"not installed: {_line(e)}", "-", "-")
        except OmniError as e:
            return ("tensorrt", "-", f"fails: {_line(e)}", "-", "-")
    return ("tensorrt", loader.device, *_verdict(values, reference, ms))


def _cpu() -> EngineLoader:
    from omni_sdk.engines.select import open_loader

    return open_loader("onnx", device="cpu")


def _run_once(loader: EngineLoader, bundle: Bundle) -> tuple[Arrays, float]:
    """Run a prompt and a step on a cache; return their outputs and the time of the second round in ms."""
    from omni_sdk.graphs.golden import golden_inputs, golden_outputs

    engine, calls = loader.load(bundle, GRAPH), golden_inputs(bundle, GRAPH)
    golden_outputs(engine.run, calls)
    started = time.perf_counter()
    outputs = golden_outputs(engine.run, calls)
    return outputs, (time.perf_counter() - started) * 1e3


def _verdict(values: Arrays, reference: Arrays, ms: float) -> tuple[str, str, str]:
    from omni_sdk.graphs.golden import golden_error

    error, _ = golden_error(values, reference)
    state = "ok" if error <= TOLERANCE else "WRONG RESULTS"
    return state, f"{ms:.1f}", f"{error:.2g}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
