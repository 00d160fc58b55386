"""Are the graphs the model? Each graph against torch, then greedy tokens against transformers' generate."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omni_sdk.bundle import Bundle
from omni_sdk.config import GenerationConfig
from omni_sdk.engines.base import Engine, EngineLoader
from omni_sdk.grs.embedding import open_embedding
from omni_sdk.grs.mel import chunk_mel, num_audio_tokens
from omni_sdk.grs.processor import load_tokenizer
from omni_sdk.grs.thinker import GraphThinker
from omni_sdk.grs.windows import vision_layout
from omni_sdk.hf.thinker import HfThinker
from omni_sdk.manifest import GrsSpec, ParityRow
from transformers.cache_utils import DynamicCache

from omni_export.samples import generation_samples, make_request

GRAPH_TOLERANCE = 1e-3
"""Of max |difference| / std(reference), float32; measured 1e-6 to 1e-5 on small models, and rounding grows
with depth. A wrong mask, position or weight shows as 1e-2 and more."""
NUM_TOKENS = 32
_MEASURE = "max |difference| / std"


def thinker_parity(model: Any, bundle: Bundle, loader: EngineLoader) -> list[ParityRow]:
    """Compare a bundle's graphs with the model that they were made from.

    Args:
        model: Qwen2_5OmniThinkerForConditionalGeneration, float32.
        bundle: the graphs.
        loader: runs them.
    """
    spec = bundle.grs
    engines = {name: loader.load(bundle, f"grs/{name}") for name in ("vision", "audio", "decoder")}
    embedding = open_embedding(loader, bundle)
    with torch.inference_mode():
        rows = [
            _row("grs/vision", _vision_error(model.model.visual, engines["vision"], spec)),
            _row("grs/audio", _audio_error(model.model.audio_tower, engines["audio"], spec)),
            _row("grs/embed", _embed_error(model, embedding, spec)),
            _row("grs/decoder", _decoder_error(model, engines["decoder"], spec)),
        ]
    return [*rows, *_token_rows(model, bundle, loader)]


def _row(subject: str, value: float) -> ParityRow:
    return ParityRow(subject, "transformers, float32, CPU", _MEASURE, value, GRAPH_TOLERANCE)


def relative_error(found: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the greatest difference in units of the reference's standard deviation."""
    return float(np.abs(found - reference).max() / (reference.std() or 1.0))


def _vision_error(visual: Any, engine: Engine, spec: GrsSpec) -> float:
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
    errors = []
    for grids in batches:
        patches = sum(t * h * w for t, h, w in grids)
        pixels = rng.standard_normal((patches, width)).astype(np.float32)
        found = engine.run({"pixel_values": pixels, **vision_layout(grids, spec.vision)})["embeds"]
        reference = visual(torch.from_numpy(pixels), grid_thw=torch.tensor(grids)).pooler_output
        errors.append(relative_error(found, reference.numpy()))
    return max(errors)


def _audio_error(tower: Any, engine: Engine, spec: GrsSpec) -> float:
    """One short chunk, one full, one with a short rest, and two sounds in one call."""
    chunk = 2 * spec.audio.n_window
    rng = np.random.default_rng(1)
    errors = []
    for frames in ([4], [chunk], [chunk + 5], [2 * chunk - 1, chunk // 2]):
        mels = [
            rng.standard_normal((spec.audio.num_mel_bins, n)).astype(np.float32) for n in frames
        ]
        chunks, lengths, tokens = chunk_mel(mels, spec.audio.n_window)
        out = engine.run({"mel": chunks, "lengths": lengths})["embeds"]
        parts, first = [], 0
        for n, count in zip(frames, tokens, strict=True):
            last = first - (-n // chunk)
            parts.append(out[first:last].reshape(-1, out.shape[-1])[:count])
            first = last
        reference = tower(
            torch.from_numpy(np.concatenate(mels, axis=1)), feature_lens=torch.tensor(frames)
        ).last_hidden_state
        assert tokens == [num_audio_tokens(n) for n in frames]
        errors.append(relative_error(np.concatenate(parts), reference.numpy()))
    return max(errors)


def _embed_error(model: Any, engine: Engine, spec: GrsSpec) -> float:
    ids = np.random.default_rng(2).integers(0, spec.decoder.vocab_size, (2, 33))
    reference = model.get_input_embeddings()(torch.from_numpy(ids)).numpy()
    return relative_error(engine.run({"input_ids": ids})["embeds"], reference)


def _decoder_error(model: Any, engine: Engine, spec: GrsSpec) -> float:
    """Prefill of a left-padded batch with three-axis positions, then one step on its cache."""
    decoder = spec.decoder
    rng = np.random.default_rng(3)
    batch, length, padding = 2, 21, 6
    mask = np.ones((batch, length + 1), np.int64)
    mask[0, :padding] = 0
    positions = np.sort(rng.integers(0, 3 * length, (3, batch, length + 1)), axis=-1)
    ids = torch.from_numpy(rng.integers(0, decoder.vocab_size, (batch, length + 1)))
    embeds = model.get_input_embeddings()(ids).numpy()
    names = [f"{i}.{part}" for i in range(decoder.num_layers) for part in ("key", "value")]
    empty = np.zeros((batch, decoder.num_kv_heads, 0, decoder.head_dim), np.float32)
    past = {f"past.{name}": empty for name in names}
    cache = DynamicCache()
    errors = []
    for first, last in ((0, length), (length, length + 1)):
        inputs = {
            "inputs_embeds": np.ascontiguousarray(embeds[:, first:last]),
            "attention_mask": np.ascontiguousarray(mask[:, :last]),
            "position_ids": np.ascontiguousarray(positions[..., first:last]),
        }
        out = engine.run(inputs | past)
        hidden = model.model.language_model(
            **{name: torch.from_numpy(value) for name, value in inputs.items()},
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        errors.append(relative_error(out["logits"], model.lm_head(hidden[:, -1:]).numpy()))
        past = {f"past.{name}": out[f"present.{name}"] for name in names}
    return max(errors)


def _token_rows(model: Any, bundle: Bundle, loader: EngineLoader) -> list[ParityRow]:
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
