"""Plans from a bundle's graphs: what would be built, the trtexec line of it, and the build."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from omni_sdk.bundle.bundle import Bundle
from omni_sdk.engines.plans import BuildFlags, PlanCache, plan_key, timing_cache_path
from omni_sdk.errors import EngineError
from omni_sdk.graphs.profiles import Profile, Range, ShapeLimits, graph_profiles

from omni_export.tensorrt_operators import SOURCE, objections

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """One plan to build."""

    graph: str
    onnx: Path
    profiles: tuple[Profile, ...]
    flags: BuildFlags


def plan_requests(
    bundle: Bundle, graphs: Sequence[str], limits: ShapeLimits, flags: BuildFlags
) -> list[PlanRequest]:
    """Say what is to be built, after holding every graph against TensorRT's operator list.

    Args:
        bundle: with its variants chosen.
        graphs: names; empty: all.
        limits: of the shapes.
        flags: of the builder.

    Raises:
        BundleError: no such graph.
        EngineError: a graph that TensorRT cannot run; names the operators.
    """
    requests = []
    for name in graphs or list(bundle.manifest.graphs):
        spec = bundle.graph(name)
        path = bundle.path(spec.file)
        if "tensorrt" not in spec.backends:
            raise EngineError(
                f"{name} ({spec.file}, {spec.precision}) runs on {' and '.join(spec.backends)} only; "
                "choose another variant"
            )
        if found := objections(onnx.load(str(path), load_external_data=False)):
            raise EngineError(f"{name}: {'; '.join(found)} ({SOURCE})")
        requests.append(PlanRequest(name, path, graph_profiles(bundle, name, limits), flags))
    return requests


def trtexec_line(request: PlanRequest, plan: Path, timing_cache: Path) -> str:
    """Return the trtexec command that builds the same plan, in TensorRT 10 and 11.

    Args:
        request: what to build.
        plan: file to write.
        timing_cache: file of measured kernels.
    """
    words = [
        *("trtexec", f"--onnx={request.onnx}", f"--saveEngine={plan}"),
        "--stronglyTyped",  # 10.x needs it, 11.x takes it and does so anyway
        f"--timingCacheFile={timing_cache}",
        # trtexec reads the last letter as the unit (B, K, M, G): "MiB" would be bytes
        f"--memPoolSize=workspace:{request.flags.workspace_mb}M",
        f"--builderOptimizationLevel={request.flags.optimization_level}",
        "--skipInference",
    ]
    several = len(request.profiles) > 1
    for index, profile in enumerate(request.profiles):
        if several:
            words.append(f"--profile={index}")
        for at, option in enumerate(("minShapes", "optShapes", "maxShapes")):
            words.append(f"--{option}={_shapes(profile.shapes, at)}")
    return shlex.join(words)


def _shapes(shapes: dict[str, Range], at: int) -> str:
    return ",".join(
        f"{name}:{'x'.join(str(n) for n in ranges[at])}" for name, ranges in shapes.items()
    )


def build_plans(
    bundle: Bundle,
    requests: Sequence[PlanRequest],
    cache: PlanCache,
    *,
    trt: Any,
    compute_capability: str,
    progress: Progress = lambda _: None,
) -> list[Path]:
    """Build the plans that the cache lacks. Of two processes, one builds and the other takes its plan.

    Args:
        bundle: of the requests.
        requests: from `plan_requests`.
        cache: where plans are kept.
        trt: the library.
        compute_capability: of the device, e.g. "8.7".
        progress: told of each plan in a line of text.

    Returns:
        The plan files.

    Raises:
        EngineError: TensorRT refuses a graph, the disk is full, or another build hangs.
    """
    from omni_sdk.engines.tensorrt_api import build_plan

    paths = []
    for request in requests:
        key = plan_key(
            bundle,
            request.graph,
            request.profiles,
            request.flags,
            tensorrt=str(trt.__version__),
            compute_capability=compute_capability,
        )
        with cache.building(key):
            if cache.find(key) is None:
                progress(f"building {request.graph} (minutes)")
                timing = timing_cache_path(
                    cache.directory,
                    tensorrt=key.tensorrt,
                    compute_capability=compute_capability,
                )
                plan = build_plan(trt, request.onnx, request.profiles, request.flags, timing)
                cache.store(key, plan)
            else:
                progress(f"{request.graph}: its plan is there")
        paths.append(cache.directory / f"{key.digest}.plan")
    return paths
