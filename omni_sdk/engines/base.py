"""What an engine is: named numpy arrays in, named numpy arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    from omni_sdk.bundle.bundle import Bundle


class Engine(Protocol):
    """One loaded graph. `run` may be called from several threads."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph once.

        Args:
            inputs: every input of the graph by name, with the dtype and rank of its manifest entry.

        Returns:
            Every output by name.

        Raises:
            EngineError: a name, dtype or shape does not fit, or the runtime failed.
        """


class EngineLoader(Protocol):
    """Opens a bundle's graphs on one runtime and device."""

    @property
    def backend(self) -> str:
        """Name of the runtime: "onnx" or "tensorrt"."""

    @property
    def device(self) -> str:
        """Where it runs: "cpu", "cuda:0", ..."""

    def load(self, bundle: Bundle, graph: str) -> Engine:
        """Open a graph by its name in the manifest, e.g. "grs/decoder".

        Raises:
            EngineError: the runtime refuses the graph.
            BundleError: the bundle has no such graph.
        """
