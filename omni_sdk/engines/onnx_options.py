"""Options of ONNX Runtime's execution providers, by its own names, filled in per graph. Loads nothing.

Names and meanings: onnxruntime.ai, "CUDA Execution Provider" and "TensorRT Execution Provider". Status: the
options are tested as values; no GPU has run them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_sdk.engines.plans import private_directory
from omni_sdk.graphs.profiles import Range, ShapeLimits, graph_profiles

if TYPE_CHECKING:
    from omni_sdk.bundle.bundle import Bundle
    from omni_sdk.bundle.manifest import GraphSpec

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
CUDA_GRAPH = "enable_cuda_graph"
Providers = list[tuple[str, dict[str, Any]]]


def provider_list(providers: Sequence[Any], available: Sequence[str]) -> Providers:
    """Return (name, options) pairs with what each provider falls back on behind them.

    TensorRT's provider hands what it cannot run to CUDA's, and every provider to the CPU's.

    Args:
        providers: names, or (name, options) pairs, most wanted first.
        available: what this onnxruntime has.
    """
    pairs: Providers = [(p, {}) if isinstance(p, str) else (p[0], dict(p[1])) for p in providers]
    names = [name for name, _ in pairs]
    if TENSORRT in names and CUDA not in names and CUDA in available:
        shared = {k: v for k, v in dict(pairs)[TENSORRT].items() if k == "device_id"}
        pairs.append((CUDA, shared))
    if CPU not in names:
        pairs.append((CPU, {}))
    return pairs


def device_of(providers: Providers) -> str:
    """Return "cuda:N" where the first provider runs on a GPU, else "cpu"."""
    name, options = providers[0]
    return f"cuda:{options.get('device_id', 0)}" if name in (CUDA, TENSORRT) else "cpu"


def graph_providers(
    providers: Providers, bundle: Bundle, graph: str, cache: Path
) -> tuple[Providers, bool]:
    """Return the providers of one graph's session, and whether it is captured as a CUDA graph.

    - `enable_cuda_graph` is kept for graphs without a dynamic axis and switched off for all others: a
      captured graph is replayed on the same addresses and shapes.
    - TensorRT's provider gets what it needs to build an engine once instead of for every new shape:
      explicit shape ranges (one profile: this provider runs the first one only, onnxruntime issue 23965),
      engine and timing caches in a directory that nobody else can write to, and float16 where the graph is
      typed so. Options that the caller gives win.

    Args:
        providers: of `provider_list`.
        bundle: of the graph.
        graph: its name.
        cache: directory of engines; made if it is needed.

    Raises:
        EngineError: others may write to the cache.
    """
    spec = bundle.graph(graph)
    fixed = all(isinstance(a, int) for t in (*spec.inputs, *spec.outputs) for a in t.axes)
    found: Providers = []
    captured = False
    for name, options in providers:
        chosen = dict(options)
        if name == CUDA and _is_on(chosen.get(CUDA_GRAPH)):
            captured = fixed and name == providers[0][0]
            chosen[CUDA_GRAPH] = "1" if captured else "0"
        elif name == TENSORRT:
            private_directory(cache)
            chosen = _tensorrt(bundle, graph, spec, cache) | chosen
        found.append((name, chosen))
    return found, captured


def without_capture(providers: Providers) -> Providers:
    """Return the providers with CUDA graphs switched off."""
    return [(name, {k: v for k, v in o.items() if k != CUDA_GRAPH}) for name, o in providers]


def _is_on(value: Any) -> bool:
    return str(value).lower() in ("1", "true")


def _tensorrt(bundle: Bundle, graph: str, spec: GraphSpec, cache: Path) -> dict[str, Any]:
    options: dict[str, Any] = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
    }
    if "float16" in spec.precision:
        options["trt_fp16_enable"] = "1"
    shapes = _one_range(bundle, graph)
    for at, which in enumerate(("min", "opt", "max")):
        options[f"trt_profile_{which}_shapes"] = ",".join(
            f"{name}:{'x'.join(map(str, ranges[at]))}" for name, ranges in shapes.items()
        )
    return options


def _one_range(bundle: Bundle, graph: str) -> dict[str, Range]:
    """Join a graph's profiles: from the smallest to the largest of all, usual as in the last."""
    profiles = graph_profiles(bundle, graph, ShapeLimits())
    return {
        name: (
            tuple(map(min, *(p.shapes[name][0] for p in profiles), usual)),
            usual,
            tuple(map(max, *(p.shapes[name][2] for p in profiles), usual)),
        )
        for name, (_, usual, _) in profiles[-1].shapes.items()
    }
