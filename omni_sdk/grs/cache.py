"""The decoder's key-value cache as the manifest describes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_sdk.bundle.manifest import GraphSpec


def empty_cache(decoder: GraphSpec, batch: int = 1) -> dict[str, NDArray[Any]]:
    """Return the cache inputs of a prompt: (batch, heads, 0, head size), in the variant's own dtype.

    Args:
        decoder: the entry of "grs/decoder", or of the variant in its place.
        batch: rows.
    """
    sizes = {"batch": batch, "past": 0}
    return {
        tensor.name: np.zeros([sizes.get(a, a) for a in tensor.axes], tensor.dtype)  # type: ignore[arg-type, misc]
        for tensor in decoder.inputs
        if tensor.name.startswith("past.")
    }


def next_cache(
    cache: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return the cache inputs of the next step: what the decoder put out for each of `cache`'s names."""
    return {name: outputs[name.replace("past.", "present.")] for name in cache}
