"""TensorRT 10 and 11 behind one face: the only module that imports it.

What differs (NVIDIA's "Migrating Python Code from TensorRT 10.x to 11.x", read 2026-11):
    - 10.x: a network is strongly typed only with NetworkDefinitionCreationFlag.STRONGLY_TYPED. 11.x: always;
      the flag is deprecated and ignored. Both: precision comes from the graph; BuilderFlag.FP16 and its kin
      are not used here and do not exist in 11.x.
    - 10.x: trtexec needs --stronglyTyped. 11.x: it needs no option.
    - Of what is called here nothing is among those removed APIs of 11.4's list that could be read (the end
      of the list could not).
    - JetPack stays on 10.x (JetPack 6.2: 10.3); 11.x does not support it.

Status: not run (no TensorRT where this was written). Calls are those of NVIDIA's Python API reference for
10.x and 11.x; `tests/engines/test_tensorrt.py` holds them against a library that records them.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omni_sdk.engines.plans import BuildFlags
from omni_sdk.engines.profiles import Profile
from omni_sdk.errors import BackendUnavailableError, EngineError

OLDEST = 10
NEWEST = 11


def load_library() -> types.ModuleType:
    """Import TensorRT.

    Raises:
        BackendUnavailableError: it is missing, or of a version that this module does not know.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as e:
        raise BackendUnavailableError(
            "the tensorrt backend needs TensorRT: pip install 'omni-sdk[tensorrt]' (on Jetson, JetPack "
            f"supplies it: use the system's Python packages): {e}"
        ) from e
    major = major_version(str(tensorrt.__version__))
    if not OLDEST <= major <= NEWEST:
        raise BackendUnavailableError(
            f"TensorRT {tensorrt.__version__} is installed, this omni-sdk knows {OLDEST}.x to {NEWEST}.x"
        )
    return tensorrt  # type: ignore[no-any-return]


def check_driver(trt: Any, cuda_version: tuple[int, int], built_for: int | None) -> None:
    """Refuse a driver that is older than the CUDA that TensorRT was built for.

    Args:
        trt: the library.
        cuda_version: newest CUDA that the driver runs.
        built_for: major version of CUDA; None: not known (JetPack's own packages, which fit its driver).

    Raises:
        EngineError: the driver is too old; within a major version every driver does.
    """
    if built_for is not None and cuda_version[0] < built_for:
        raise EngineError(
            f"the NVIDIA driver runs CUDA up to {cuda_version[0]}.{cuda_version[1]}, TensorRT "
            f"{trt.__version__} here needs {built_for}.0 or newer: update the driver, or install "
            f"tensorrt-cu{cuda_version[0]}"
        )


def built_for_cuda() -> int | None:
    """Return the major version of CUDA that the installed TensorRT wheels are for, by their name."""
    for major in (13, 12, 11):
        for name in (f"tensorrt-cu{major}", f"tensorrt-cu{major}-bindings"):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                importlib.metadata.version(name)
                return major
    return None


def major_version(version: str) -> int:
    """Return the major number of "10.3.0.30"; 0 where there is none."""
    head = version.partition(".")[0]
    return int(head) if head.isdigit() else 0


def build_plan(
    trt: Any, graph: Path, profiles: Sequence[Profile], flags: BuildFlags, timing_cache: Path
) -> bytes:
    """Build a plan from an ONNX file (external data beside it is found by its path).

    Args:
        trt: the library.
        graph: the file.
        profiles: at least one.
        flags: of the builder.
        timing_cache: file of measured kernels; read if it is there, and written.

    Raises:
        EngineError: the parser or the builder refuses; the parser's own messages are included.
    """
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise EngineError(f"{graph}: TensorRT's parser refuses it: {'; '.join(errors)}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, flags.workspace_mb << 20)
    config.builder_optimization_level = flags.optimization_level
    known = timing_cache.read_bytes() if timing_cache.is_file() else b""
    measured = config.create_timing_cache(known)
    config.set_timing_cache(measured, ignore_mismatch=False)
    for profile in profiles:
        ranges = builder.create_optimization_profile()
        for name, (low, usual, high) in profile.shapes.items():
            ranges.set_shape(name, low, usual, high)
        if config.add_optimization_profile(ranges) < 0:
            raise EngineError(f"{graph}: TensorRT refuses the profile {profile.name!r}")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"{graph}: TensorRT could not build a plan (its log is above); common causes: too little "
            f"device memory for workspace_mb={flags.workspace_mb}, or an operator it lacks"
        )
    timing_cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    timing_cache.write_bytes(bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def network_flags(trt: Any) -> int:
    """Return the flags of a strongly typed network."""
    if major_version(str(trt.__version__)) >= NEWEST:
        return 0
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def deserialize(trt: Any, plan: bytes, graph: str) -> Any:
    """Return the engine of a plan that has been checked (see `omni_sdk.engines.plans`).

    Raises:
        EngineError: TensorRT refuses it.
    """
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"{graph}: TensorRT refuses the plan; run `omni-export tensorrt` again")
    return engine


def tensor_modes(trt: Any, engine: Any) -> dict[str, str]:
    """Return "input" or "output" for each tensor of an engine."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    read = trt.TensorIOMode.INPUT
    return {n: "input" if engine.get_tensor_mode(n) == read else "output" for n in names}
