"""Token embeddings: a graph, or a table of rows that is mapped into memory and never loaded as a whole.

A real model's table is large (Qwen2.5-Omni-3B: 151,936 x 2,048 float16, 622 MB) and a request touches a few
thousand of its rows, so it costs the memory of those rows instead of its own size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omni_sdk.bundle.manifest import TensorSpec
from omni_sdk.engines.inputs import check_inputs
from omni_sdk.errors import BundleError, EngineError

if TYPE_CHECKING:
    from omni_sdk.bundle.bundle import Bundle
    from omni_sdk.engines.base import Engine, EngineLoader

EMBED = "grs/embed"
DTYPES = ("float16", "float32")
_INPUTS = {"input_ids": TensorSpec("input_ids", "int64", ("batch", "length"))}


def open_embedding(loader: EngineLoader, bundle: Bundle) -> Engine:
    """Open a bundle's token embeddings: its table where it has one, else its graph "grs/embed".

    Returns:
        An engine from input_ids (B, S) int64 to embeds (B, S, H) float32.

    Raises:
        BundleError: neither is there, or the table is not of its stated size.
        EngineError: the runtime refuses the graph.
    """
    if bundle.grs.embedding is None:
        return loader.load(bundle, EMBED)
    return EmbeddingTable(bundle)


class EmbeddingTable:
    """Rows of a mapped file, as an `omni_sdk.engines.base.Engine`.

    The file's hash was checked when the bundle was opened. It must not shrink while it is mapped, as for
    every file that a process maps.

    Args:
        bundle: with a table.

    Raises:
        BundleError: the table is not of the size, type or shape that the manifest says.
    """

    def __init__(self, bundle: Bundle) -> None:
        spec, decoder = bundle.grs.embedding, bundle.grs.decoder
        if spec is None:
            raise BundleError(f"bundle {bundle.manifest.name!r} has no embedding table")
        path = bundle.path(spec.file)
        if spec.dtype not in DTYPES or spec.rows < 1:
            raise BundleError(f"{path}: {spec.rows} rows of {spec.dtype}, expected one of {DTYPES}")
        expected = spec.rows * decoder.hidden_size * np.dtype(spec.dtype).itemsize
        if bundle.manifest.files[spec.file].size != expected:
            raise BundleError(
                f"{path}: {bundle.manifest.files[spec.file].size} bytes, expected {expected} for "
                f"{spec.rows} rows of {decoder.hidden_size} {spec.dtype}"
            )
        try:
            self._table = np.memmap(
                path,
                np.dtype(spec.dtype).newbyteorder("<"),
                "r",
                shape=(spec.rows, decoder.hidden_size),
            )
        except (OSError, ValueError) as e:
            raise BundleError(f"{path}: cannot be mapped into memory ({e})") from e

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Take the rows of input_ids; see `omni_sdk.engines.base.Engine.run`."""
        check_inputs(EMBED, _INPUTS, inputs)
        ids = inputs["input_ids"]
        if ids.size and not 0 <= ids.min() <= ids.max() < len(self._table):
            raise EngineError(
                f"{EMBED}: token ids {ids.min()} to {ids.max()}, expected 0 to {len(self._table) - 1}"
            )
        return {"embeds": np.asarray(self._table[ids], np.float32)}
