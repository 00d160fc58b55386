"""Hold inputs against a graph's entry in the manifest before an engine sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_sdk.bundle.manifest import TensorSpec
from omni_sdk.errors import EngineError


def check_inputs(
    graph: str, specs: Mapping[str, TensorSpec], inputs: Mapping[str, NDArray[Any]]
) -> None:
    """Compare names, dtypes, ranks and sizes with the manifest.

    Args:
        graph: its name, for messages.
        specs: expected inputs by name.
        inputs: as given to the engine.

    Raises:
        EngineError: something does not fit. Named axes must agree among the inputs.
    """
    if inputs.keys() != specs.keys():
        raise EngineError(f"{graph}: inputs {sorted(inputs)}, expected {sorted(specs)}")
    sizes: dict[str, int] = {}
    for name, spec in specs.items():
        value = inputs[name]
        if not isinstance(value, np.ndarray) or value.dtype != spec.dtype:
            found = getattr(value, "dtype", type(value).__name__)
            raise EngineError(f"{graph}: {name} is {found}, expected {spec.dtype}")
        if value.ndim != len(spec.axes):
            raise EngineError(f"{graph}: {name} has shape {value.shape}, expected {spec.axes}")
        for axis, size in zip(spec.axes, value.shape, strict=True):
            want = sizes.setdefault(axis, size) if isinstance(axis, str) else axis
            if size != want:
                raise EngineError(
                    f"{graph}: {name} has shape {value.shape}, expected {spec.axes} with {axis} = {want}"
                )
