"""Write a thinker's token embeddings as a table that is mapped into memory, where a graph would be large."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omni_sdk.bundle.manifest import GrsSpec, TableSpec
from omni_sdk.grs.embedding import EMBED

from omni_export.thinker_graphs import GraphPlan

TABLE_BYTES = 128 << 20
"""Tables from this size on, in float32, are mapped; a smaller one is a graph, which every engine runs."""
FILE = "grs/embed.table"
_ROWS = 4096  # written at once
_EXACT = 1e-5
"""Of |difference| / std, under which float16 counts as exact: bfloat16 checkpoints are within it (only
values below 2**-17 are rounded), float32 ones that use their digits are not."""


def split_embedding(
    plans: Sequence[GraphPlan], model: Any, spec: GrsSpec, directory: Path
) -> tuple[tuple[GraphPlan, ...], GrsSpec]:
    """Take the embedding out of the graphs that are to be exported if it is large, and write its table.

    Args:
        plans: of all graphs.
        model: Qwen2_5OmniThinkerForConditionalGeneration.
        spec: its settings.
        directory: of the bundle under construction.

    Returns:
        The plans that are left, and the settings with the table's entry.
    """
    weight = model.get_input_embeddings().weight
    if 4 * weight.numel() < TABLE_BYTES:
        return tuple(plans), spec
    rest = tuple(plan for plan in plans if plan.name != EMBED)
    return rest, replace(spec, embedding=write_table(weight.detach(), directory, FILE))


def write_table(weight: Any, directory: Path, file: str) -> TableSpec:
    """Write a (rows, H) float tensor row by row, as float16 where that is exact, else as float32.

    Little-endian, row-major, without a header: the manifest holds the shape.
    """
    allowed = _EXACT * float(weight.std())
    with np.errstate(over="ignore"):  # infinite where float16 ends: not exact
        halves = all(
            np.abs(block.astype(np.float16).astype(np.float32) - block).max() <= allowed
            for block in _blocks(weight)
        )
    dtype = np.dtype("<f2" if halves else "<f4")
    path = directory / file
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        for block in _blocks(weight):
            out.write(block.astype(dtype).tobytes())
    return TableSpec(file, "float16" if halves else "float32", len(weight))


def _blocks(weight: Any) -> Iterator[NDArray[np.float32]]:
    """Yield float32 arrays of at most `_ROWS` rows, so that no second table is held."""
    for first in range(0, len(weight), _ROWS):
        yield weight[first : first + _ROWS].float().cpu().numpy()
