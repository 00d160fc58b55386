"""A thinker's checkpoint -> its graphs in a bundle, one part in memory at a time.

A 3B thinker holds 19 GB of float32 weights, 14 of them in the decoder. Each part is read, traced, written,
compared with transformers and freed before the next one is read; the engine opens the decoder only after
torch has let go of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from omni_sdk.bundle.bundle import Bundle, file_spec
from omni_sdk.bundle.manifest import Manifest, ParityRow
from omni_sdk.engines.base import Engine, EngineLoader
from omni_sdk.grs.embedding import EMBED
from omni_sdk.hf.checkpoint import ThinkerCheckpoint

from omni_export.draft import add_golden
from omni_export.embedding_table import split_embedding
from omni_export.onnx_export import export_graph
from omni_export.parity import Check, graph_check, graph_row, open_graph, token_rows
from omni_export.thinker_graphs import thinker_plans

WHOLE_BYTES = 6 << 30
"""Thinkers up to this size, in float32, also generate in transformers, to compare their tokens."""
_EMBEDDING = "language_model.embed_tokens."
_PARTS = {
    "grs/vision": ("visual.",),
    "grs/audio": ("audio_tower.",),
    EMBED: (_EMBEDDING,),
    "grs/decoder": ("language_model.", "lm_head."),
}
"""Canonical names of the weights that each graph holds."""


def export_thinker(
    checkpoint: ThinkerCheckpoint,
    draft: Manifest,
    directory: Path,
    loader: EngineLoader,
    *,
    compact: bool,
    progress: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Export and compare a thinker's graphs.

    Args:
        checkpoint: opened, without its weights.
        draft: the manifest so far.
        directory: of the bundle under construction; tokenizer.json is there already.
        loader: opens the graphs for the comparison.
        compact: see `export_graph`.
        progress: told of each step in a line of text.

    Returns:
        The draft with the reasoner's settings, graphs, files and parity rows. Beyond `WHOLE_BYTES` the rows
        of greedy tokens are missing: the graphs were compared, whole completions were not.
    """
    model = checkpoint.model

    def compare(graph: str, check: Check) -> tuple[ParityRow, Engine]:
        progress(f"comparing {graph} with transformers")
        engine = open_graph(Bundle(directory, draft), loader, graph)
        return graph_row(graph, check(engine)), engine

    draft, rows = _with_files(draft, directory, "tokenizer.json"), []
    with checkpoint.weights(_EMBEDDING):
        plans, spec = split_embedding(
            thinker_plans(model, checkpoint.spec), model, checkpoint.spec, directory
        )
        check = graph_check(EMBED, model, spec)
    draft = replace(draft, grs=spec)
    if spec.embedding is not None:
        draft = _with_files(draft, directory, spec.embedding.file)
        rows.append(compare(EMBED, check)[0])
    for plan in plans:
        progress(f"exporting {plan.name}")
        with checkpoint.weights(*_PARTS[plan.name]):
            graph = export_graph(plan, directory, compact=compact)
            check = graph_check(plan.name, model, spec)
        draft = _with_files(draft, directory, graph.file, *graph.data)
        draft = replace(draft, graphs=draft.graphs | {plan.name: graph})
        row, engine = compare(plan.name, check)
        rows.append(row)
        # while the engine is open: to open a decoder of 3B again would take its memory and time again
        graph, _ = add_golden(Bundle(directory, draft), plan.name, engine)
        del engine
        assert graph.golden is not None
        draft = _with_files(draft, directory, graph.golden)
        draft = replace(draft, graphs=draft.graphs | {plan.name: graph})
    if checkpoint.num_bytes <= WHOLE_BYTES:
        progress("comparing greedy tokens with transformers")
        with checkpoint.weights(""):
            rows += token_rows(model, Bundle(directory, draft), loader)
    else:
        progress("too large to generate in transformers here: whole completions are not compared")
    return replace(draft, parity=(*draft.parity, *rows))


def _with_files(draft: Manifest, directory: Path, *names: str) -> Manifest:
    return replace(draft, files=draft.files | {n: file_spec(directory / n) for n in names})
