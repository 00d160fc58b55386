"""Calls in a row in which some outputs are inputs of the next: a decoder and its key-value cache.

An engine that has a device of its own keeps these tensors there (its method `linked`); for any other they
pass through as numpy arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from omni_sdk.engines.base import Engine

Arrays = dict[str, NDArray[Any]]


class LinkedRun(Protocol):
    """One row of calls; not for several threads."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run the graph once.

        Args:
            inputs: all inputs but the linked ones.

        Returns:
            All outputs but the linked ones.

        Raises:
            EngineError: a name, dtype or shape does not fit, or the runtime failed.
        """


def start_linked(
    engine: Engine, links: Mapping[str, str], first: Mapping[str, NDArray[Any]]
) -> LinkedRun:
    """Start a row of calls.

    Args:
        engine: runs the graph.
        links: from an output's name to the input that it becomes.
        first: the linked inputs of the first call.
    """
    linked = getattr(engine, "linked", None)
    if linked is not None:
        started: LinkedRun = linked(links, first)
        return started
    return _NumpyLinks(engine, links, first)


class _NumpyLinks:
    def __init__(
        self, engine: Engine, links: Mapping[str, str], first: Mapping[str, NDArray[Any]]
    ) -> None:
        self._engine = engine
        self._links = dict(links)
        self._held = dict(first)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        outputs = self._engine.run({**inputs, **self._held})
        self._held = {target: outputs.pop(source) for source, target in self._links.items()}
        return outputs
