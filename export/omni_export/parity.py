"""Are the graphs the model? Each graph against torch, then greedy tokens against transformers' generate.

A graph's check is made while its part of the model is in memory, and run when that may be gone: at real
sizes torch and the engine together would not fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omni_sdk.bundle.bundle import Bundle
from omni_sdk.bundle.manifest import GrsSpec, ParityRow
from omni_sdk.config import GenerationConfig
from omni_sdk.engines.base import Engine, EngineLoader
from omni_sdk.graphs.windows import vision_layout
from omni_sdk.grs.embedding import EMBED, open_embedding
from omni_sdk.grs.mel import chunk_mel, num_audio_tokens
from omni_sdk.grs.processor import load_tokenizer
from omni_sdk.grs.thinker import GraphThinker
from omni_sdk.hf.thinker import HfThinker
from transformers.cache_utils import DynamicCache

from omni_export.samples import generation_samples, make_request

GRAPH_TOLERANCE = 1e-3
"""Of max |difference| / std(reference), float32; measured 1e-6 to 1e-5 on small models, and rounding grows
with depth. A wrong mask, position or weight shows as 1e-2 and more."""
NUM_TOKENS = 32
_MEASURE = "max |difference| / std"
Check = Callable[[Engine], float]
"""Gives a graph's greatest error on the engine that runs it."""


def graph_check(graph: str, model: Any, spec: GrsSpec) -> Check:
    """Compute what torch gives for one graph, on inputs of every kind.

    Args:
        graph: "grs/vision", "grs/audio", "grs/embed" or "grs/decoder".
        model: Qwen2_5OmniThinkerForConditionalGeneration, float32, with that part's weights; the decoder's
            needs the embeddings, too.
        spec: its settings.

    Returns:
        The comparison; it holds arrays only, nothing of the model.
    """
    make = {
        "grs/vision": _vision_check,
        "grs/audio": _audio_check,
        "grs/embed": _embed_check,
        "grs/decoder": _decoder_check,
    }[graph]
    with torch.inference_mode():
        return make(model, spec)


def graph_row(graph: str, error: float) -> ParityRow:
    """Return the row of a graph's error."""
    return ParityRow(graph, "transformers, float32, CPU", _MEASURE, error, GRAPH_TOLERANCE)


def thinker_parity(model: Any, bundle: Bundle, loader: EngineLoader) -> list[ParityRow]:
    """Compare a bundle's graphs with the model that they were made from.

    Args:
        model: Qwen2_5OmniThinkerForConditionalGeneration, float32.
        bundle: the graphs.
        loader: runs them.
    """
    rows = []
    for graph in ("grs/vision", "grs/audio", EMBED, "grs/decoder"):
        check = graph_check(graph, model, bundle.grs)
        rows.append(graph_row(graph, check(open_graph(bundle, loader, graph))))
    return [*rows, *token_rows(model, bundle, loader)]


def open_graph(bundle: Bundle, loader: EngineLoader, graph: str) -> Engine:
    """Open a graph of the reasoner, or the table that stands for "grs/embed"."""
    return open_embedding(loader, bundle) if graph == EMBED else loader.load(bundle, graph)


def relative_error(found: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the greatest difference in units of the reference's standard deviation."""
    return float(np.abs(found - reference).max() / (reference.std() or 1.0))


def _vision_check(model: Any, spec: GrsSpec) -> Check:
    """Whole and ragged windows, one image, two sizes in one call."""
    merge = spec.vision.merge_size
    side = spec.vision.window_size // spec.vision.patch_size // merge * merge
    batches: list[list[tuple[int, int, int]]] = [
        [(1, merge, merge)],
        [(2, side, 2 * side)],
        [(3, side + merge, 2 * side - merge)],
        [(1, side + merge, side), (2, 2 * side, merge)],
    ]
    rng = np.random.default_rng(0)
    width = 3 * spec.vision.temporal_patch_size * spec.vision.patch_size**2
    calls = []
    for grids in batches:
        patches = sum(t * h * w for t, h, w in grids)
        pixels = rng.standard_normal((patches, width)).astype(np.float32)
        out = model.model.visual(torch.from_numpy(pixels), grid_thw=torch.tensor(grids))
        inputs: dict[str, NDArray[Any]] = {"pixel_values": pixels}
        inputs |= vision_layout(grids, spec.vision)
        calls.append((inputs, out.pooler_output.numpy()))
    return lambda engine: max(
        relative_error(engine.run(inputs)["embeds"], expected) for inputs, expected in calls
    )


def _audio_check(model: Any, spec: GrsSpec) -> Check:
    """One short chunk, one full, one with a short rest, and two sounds in one call."""
    chunk = 2 * spec.audio.n_window
    rng = np.random.default_rng(1)
    calls = []
    for frames in ([4], [chunk], [chunk + 5], [2 * chunk - 1, chunk // 2]):
        mels = [
            rng.standard_normal((spec.audio.num_mel_bins, n)).astype(np.float32) for n in frames
        ]
        chunks, lengths, tokens = chunk_mel(mels, spec.audio.n_window)
        assert tokens == [num_audio_tokens(n) for n in frames]
        reference = model.model.audio_tower(
            torch.from_numpy(np.concatenate(mels, axis=1)), feature_lens=torch.tensor(frames)
        ).last_hidden_state
        inputs: dict[str, NDArray[Any]] = {"mel": chunks, "lengths": lengths}
        calls.append((inputs, [-(-n // chunk) for n in frames], tokens, reference.numpy()))

    def check(engine: Engine) -> float:
        errors = []
        for inputs, num_chunks, tokens, expected in calls:
            out = engine.run(inputs)["embeds"]
            sounds = np.split(out, np.cumsum(num_chunks)[:-1])
            found = [s.reshape(-1, out.shape[-1])[:n] for s, n in zip(sounds, tokens, strict=True)]
            errors.append(relative_error(np.concatenate(found), expected))
        return max(errors)

    return check


def _embed_check(model: Any, spec: GrsSpec) -> Check:
    ids = np.random.default_rng(2).integers(0, spec.decoder.vocab_size, (2, 33))
    expected = model.get_input_embeddings()(torch.from_numpy(ids)).numpy()
    return lambda engine: relative_error(engine.run({"input_ids": ids})["embeds"], expected)


def _decoder_check(model: Any, spec: GrsSpec) -> Check:
    """Prefill of a left-padded batch with three-axis positions, then one step on its cache."""
    decoder = spec.decoder
    rng = np.random.default_rng(3)
    batch, length, padding = 2, 21, 6
    mask = np.ones((batch, length + 1), np.int64)
    mask[0, :padding] = 0
    positions = np.sort(rng.integers(0, 3 * length, (3, batch, length + 1)), axis=-1)
    ids = torch.from_numpy(rng.integers(0, decoder.vocab_size, (batch, length + 1)))
    embeds = model.get_input_embeddings()(ids).numpy()
    cache = DynamicCache()
    calls = []
    for first, last in ((0, length), (length, length + 1)):
        inputs = {
            "inputs_embeds": np.ascontiguousarray(embeds[:, first:last]),
            "attention_mask": np.ascontiguousarray(mask[:, :last]),
            "position_ids": np.ascontiguousarray(positions[..., first:last]),
        }
        hidden = model.model.language_model(
            **{name: torch.from_numpy(value) for name, value in inputs.items()},
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        calls.append((inputs, model.lm_head(hidden[:, -1:]).numpy()))
    names = [f"{i}.{part}" for i in range(decoder.num_layers) for part in ("key", "value")]

    def check(engine: Engine) -> float:
        empty = np.zeros((batch, decoder.num_kv_heads, 0, decoder.head_dim), np.float32)
        past, errors = {f"past.{name}": empty for name in names}, []
        for inputs, expected in calls:
            out = engine.run(inputs | past)
            errors.append(relative_error(out["logits"], expected))
            past = {f"past.{name}": out[f"present.{name}"] for name in names}
        return max(errors)

    return check


def token_rows(model: Any, bundle: Bundle, loader: EngineLoader) -> list[ParityRow]:
    """Greedy tokens of whole requests; the end token is switched off so that all of them are compared."""
    spec = bundle.grs
    tokens = dataclasses.replace(
        spec.tokens, eos=(), suppress=tuple(sorted({*spec.tokens.suppress, *spec.tokens.eos}))
    )
    endless = dataclasses.replace(spec, tokens=tokens)
    manifest = dataclasses.replace(bundle.manifest, grs=endless)
    graphs = GraphThinker(loader, Bundle(bundle.directory, manifest))
    reference = HfThinker(model, endless, load_tokenizer(bundle.path("tokenizer.json")))
    config = GenerationConfig(max_new_tokens=NUM_TOKENS)
    rows = []
    for name, samples in generation_samples(spec).items():
        requests = [make_request(spec, sample) for sample in samples]
        pairs = zip(
            graphs.generate(requests, config), reference.generate(requests, config), strict=True
        )
        different = sum(int((a.token_ids != b.token_ids).sum()) for a, b in pairs)
        rows.append(
            ParityRow(
                subject=f"grs: {name}",
                reference="transformers generate, greedy",
                measure=f"tokens that differ of {NUM_TOKENS * len(requests)}",
                value=float(different),
                tolerance=0.0,
            )
        )
    return rows
