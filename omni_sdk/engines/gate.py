"""Refuse a graph that computes something else on this machine than where it was exported.

A loader behind the gate runs the bundle's golden inputs (`omni_sdk.graphs.golden`) the first time that a
graph's file meets an engine on a device. What passed is remembered in the cache directory, by the hashes of
the graph's files and the names and versions of engine, device and driver.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import logging
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from omni_sdk.errors import ParityError
from omni_sdk.graphs.golden import golden_error, golden_inputs, golden_outputs, read_golden
from omni_sdk.utils.devices import nvidia_device
from omni_sdk.utils.files import cache_folder, write_json

if TYPE_CHECKING:
    from omni_sdk.bundle.bundle import Bundle
    from omni_sdk.engines.base import Engine, EngineLoader

logger = logging.getLogger(__name__)

_LIBRARIES = {"onnx": ("onnxruntime", "onnxruntime-gpu"), "tensorrt": ("tensorrt",)}


class GatedLoader:
    """An `EngineLoader` whose graphs have passed their golden inputs.

    Args:
        loader: opens the graphs.
        skip: let everything pass, with a warning for each graph.
        directory: where passes are remembered; None: in the cache directory.
    """

    def __init__(
        self, loader: EngineLoader, *, skip: bool = False, directory: Path | None = None
    ) -> None:
        self._loader = loader
        self._skip = skip
        self._directory = directory or cache_folder("parity")

    @property
    def backend(self) -> str:
        """Of the loader behind the gate."""
        return self._loader.backend

    @property
    def device(self) -> str:
        """Of the loader behind the gate."""
        return self._loader.device

    def load(self, bundle: Bundle, graph: str) -> Engine:
        """Open a graph and check it.

        A graph without golden outputs passes.

        Raises:
            ParityError: it computes something else here; names the graph and the numbers.
            BundleError: the golden outputs are malformed.
            EngineError: the runtime refuses the graph.
        """
        engine = self._loader.load(bundle, graph)
        spec = bundle.graph(graph)
        if spec.golden is None:
            return engine
        if self._skip:
            logger.warning(
                "PARITY CHECK SKIPPED: %s (%s) on %s %s may compute something else than where it was "
                "exported; its answers are not to be trusted",
                graph,
                spec.file,
                self.backend,
                self.device,
            )
            return engine
        passed = self._directory / f"{self._key(bundle, graph, engine)}.json"
        if passed.is_file():
            return engine
        reference = read_golden(bundle.path(spec.golden))
        error, output = golden_error(
            golden_outputs(engine.run, golden_inputs(bundle, graph)), reference
        )
        if not error <= spec.golden_tolerance:
            raise ParityError(
                f"{graph} ({spec.file}, {spec.precision}) computes something else on {self.backend} "
                f"{self.device} than where it was exported: {output} is off by {error:.3g} standard "
                f"deviations, at most {spec.golden_tolerance:.3g} is allowed; use another variant or "
                "backend, update the driver, or pass skip_parity (answers may be wrong)"
            )
        logger.info("%s: golden inputs pass, %.3g of %.3g", graph, error, spec.golden_tolerance)
        _remember(passed, {"graph": graph, "error": error, "tolerance": spec.golden_tolerance})
        return engine

    def _key(self, bundle: Bundle, graph: str, engine: Engine) -> str:
        spec = bundle.graph(graph)
        files = [
            bundle.manifest.files[f].sha256 for f in (spec.file, *spec.data, spec.golden or "")
        ]
        device = nvidia_device(self.device)
        parts = [graph, *files, self.backend, self.device, platform.machine(), platform.processor()]
        parts += [device.get("name", ""), device.get("driver_version", "")]
        parts += [str(spec.golden_tolerance), getattr(self._loader, "configuration", "")]
        # An engine that was built here with other shapes or flags has other kernels: it is checked again.
        parts.append(getattr(engine, "fingerprint", ""))
        for name in _LIBRARIES.get(self.backend, ()):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                parts.append(f"{name} {importlib.metadata.version(name)}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _remember(path: Path, values: dict[str, object]) -> None:
    """Write a pass; a directory that cannot be written only costs the check next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_json(path, values)
    except OSError as e:
        logger.info("%s: not remembered (%s)", path, e)
