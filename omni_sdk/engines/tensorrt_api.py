"""TensorRT 10 and 11 behind one face: the only module that imports it.

What differs (NVIDIA's "Migrating Python Code from TensorRT 10.x to 11.x", read 2026-11):
    - 10.x: a network is strongly typed only with NetworkDefinitionCreationFlag.STRONGLY_TYPED. 11.x: always;
      the flag is deprecated and ignored. Both: precision comes from the graph; BuilderFlag.FP16 and its kin
      are not used here and do not exist in 11.x.
    - 10.x: trtexec needs --stronglyTyped. 11.x: the option is accepted and does nothing.
    - Of what is called here nothing is among those removed APIs of 11.4's list that could be read (the end
      of the list could not).
    - JetPack stays on 10.x (JetPack 6.2: 10.3); 11.x does not support it.

Status: not run (no TensorRT where this was written). Calls are those of NVIDIA's Python API reference for
10.x and 11.x; `tests/engines/test_tensorrt.py` holds them against a library that records them.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omni_sdk.engines.plans import BuildFlags
from omni_sdk.errors import BackendUnavailableError, EngineError, OmniError
from omni_sdk.graphs.profiles import Profile
from omni_sdk.utils.files import write_bytes

log = logging.getLogger(__name__)

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
    with _own_errors(f"{graph}: TensorRT cannot build"):
        return _build(trt, graph, profiles, flags, timing_cache)


def _build(
    trt: Any, graph: Path, profiles: Sequence[Profile], flags: BuildFlags, timing_cache: Path
) -> bytes:
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
    _use_timing_cache(config, timing_cache)
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
    _keep_timing_cache(config, timing_cache)
    return bytes(plan)


def _use_timing_cache(config: Any, path: Path) -> None:
    """Start from what was measured before; a file that TensorRT does not take costs time, not the build."""
    known = path.read_bytes() if path.is_file() else b""
    try:
        measured = config.create_timing_cache(known)
        if measured is not None and config.set_timing_cache(measured, ignore_mismatch=False):
            return
    except (RuntimeError, TypeError, ValueError) as e:
        log.info("%s: %s", path, e)
    if known:
        log.warning("%s: TensorRT does not take it; kernels are measured anew", path)
    config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _keep_timing_cache(config: Any, path: Path) -> None:
    """Write what was measured; several builders may: the last one's file stays, whole."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_bytes(path, bytes(config.get_timing_cache().serialize()), mode=0o600)
    except OSError as e:
        log.warning("%s: not kept (%s); the next build measures again", path, e)


@contextlib.contextmanager
def _own_errors(what: str) -> Iterator[None]:
    """Turn what TensorRT's bindings raise into an EngineError.

    Where CUDA does not start (a driver too old, no memory, no device) its constructors return null, which
    Python sees as "TypeError: pybind11::init(): factory function returned nullptr".
    """
    try:
        yield
    except OmniError:
        raise
    except (RuntimeError, TypeError, ValueError, MemoryError) as e:
        hint = ""
        if "nullptr" in str(e):
            hint = (
                "; CUDA did not start: the driver may be older than this TensorRT needs, or the device "
                "has no free memory (`omni-sdk doctor`, `nvidia-smi`)"
            )
        raise EngineError(f"{what}: {e}{hint}") from e


def network_flags(trt: Any) -> int:
    """Return the flags of a strongly typed network."""
    if major_version(str(trt.__version__)) >= NEWEST:
        return 0
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def deserialize(trt: Any, plan: bytes, graph: str, free_bytes: int) -> Any:
    """Return the engine of a plan that has been checked (see `omni_sdk.engines.plans`).

    Args:
        trt: the library.
        plan: its bytes.
        graph: its name, for messages.
        free_bytes: free memory of the device, for messages.

    Raises:
        EngineError: TensorRT refuses it.
    """
    with _own_errors(f"{graph}: TensorRT cannot open the plan"):
        runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"{graph}: TensorRT refuses the plan of {len(plan)} bytes (its log is above; {free_bytes} bytes "
            "of the device are free); choose a smaller variant, or run `omni-export tensorrt` again"
        )
    return engine


def tensor_modes(trt: Any, engine: Any) -> dict[str, str]:
    """Return "input" or "output" for each tensor of an engine."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    read = trt.TensorIOMode.INPUT
    return {n: "input" if engine.get_tensor_mode(n) == read else "output" for n in names}
