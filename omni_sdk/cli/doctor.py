"""`omni-sdk doctor`: proof, not lists. Every engine and provider runs a real graph.

A provider that is merely listed may have no kernels for the GPU at hand, so a small decoder of the shipped
bundle is run on each and compared with the CPU.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
import time
from typing import TYPE_CHECKING

from omni_sdk.cli import common

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from omni_sdk.bundle import Bundle

GRAPH = "grs/decoder"
TOLERANCE = 1e-2  # fp32 graphs on TF32 or fp16 kernels stay well inside; a broken provider does not


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
    kernels = (
        "built" if native.available() else "absent (numpy references are used: slower, same bytes)"
    )
    print(f"native kernels: {kernels}")
    rows = check_engines()
    print(common.table(("engine", "provider", "state", "ms", "difference"), rows))
    healthy = any(row[1] == "CPUExecutionProvider" and row[2] == "ok" for row in rows)
    if not healthy:
        print("no working engine: pip install 'omni-sdk[onnx]'", file=sys.stderr)
    return 0 if healthy else 1


def check_engines() -> list[tuple[str, str, str, str, str]]:
    """Run the shipped decoder once per provider; return (engine, provider, state, ms, difference)."""
    from omni_sdk.bundle import Bundle
    from omni_sdk.engines.onnx import available_providers
    from omni_sdk.errors import OmniError
    from omni_sdk.hub import resolve

    rows = []
    try:
        bundle = Bundle.open(resolve("nano"))
        providers = available_providers()
    except OmniError as e:
        return [("onnx", "-", str(e), "-", "-")]
    reference, ms = _run_once(bundle, "CPUExecutionProvider")
    rows.append(("onnx", "CPUExecutionProvider", "ok", f"{ms:.1f}", "0"))
    for provider in providers:
        if provider == "CPUExecutionProvider":
            continue
        try:
            values, ms = _run_once(bundle, provider)
        except OmniError as e:
            rows.append(("onnx", provider, f"fails: {str(e).splitlines()[0][:80]}", "-", "-"))
            continue
        difference = float(abs(values - reference).max())
        state = "ok" if difference <= TOLERANCE else "WRONG RESULTS"
        rows.append(("onnx", provider, state, f"{ms:.1f}", f"{difference:.2g}"))
    rows.append(("tensorrt", "-", _tensorrt_state(), "-", "-"))
    return rows


def _run_once(bundle: Bundle, provider: str) -> tuple[NDArray[np.float32], float]:
    import numpy as np

    from omni_sdk.engines.select import open_loader

    engine = open_loader("onnx", providers=[provider]).load(bundle, GRAPH)
    spec, length = bundle.grs.decoder, 5
    rng = np.random.default_rng(0)
    feeds: dict[str, NDArray[np.generic]] = {
        "inputs_embeds": rng.standard_normal((1, length, spec.hidden_size), np.float32),
        "attention_mask": np.ones((1, length), np.int64),
        "position_ids": np.tile(np.arange(length), (3, 1, 1)),
    }
    empty = np.zeros((1, spec.num_kv_heads, 0, spec.head_dim), np.float32)
    feeds |= {t.name: empty for t in bundle.graph(GRAPH).inputs if t.name.startswith("past.")}
    engine.run(feeds)
    started = time.perf_counter()
    logits = engine.run(feeds)["logits"]
    return logits, (time.perf_counter() - started) * 1e3


def _tensorrt_state() -> str:
    version = _version("tensorrt")
    return f"{version} installed, not run by this version" if version else "not installed"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
