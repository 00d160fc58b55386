"""The thinker over a bundle's four graphs: encode media, embed, prefill, decode with a key-value cache."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omni_sdk.engines.linked import start_linked
from omni_sdk.errors import QueryError
from omni_sdk.graphs.windows import vision_layout
from omni_sdk.grs.cache import empty_cache
from omni_sdk.grs.completion import CompletionBuilder
from omni_sdk.grs.embedding import open_embedding
from omni_sdk.grs.mel import chunk_mel
from omni_sdk.grs.processor import load_tokenizer
from omni_sdk.grs.request import Completion, ThinkerRequest, VisionInput
from omni_sdk.grs.token_sampling import TokenSampler

if TYPE_CHECKING:
    from omni_sdk.bundle.bundle import Bundle
    from omni_sdk.bundle.manifest import GrsSpec
    from omni_sdk.config import GenerationConfig
    from omni_sdk.engines.base import EngineLoader
    from omni_sdk.media.pixels.patch_layout import PatchValues

Floats = NDArray[np.float32]
_PADDING_POSITION = 1  # transformers' get_rope_index; masked, so any value would do


class GraphThinker:
    """Runs prepared requests on a bundle's graphs (see `omni_sdk.grs.request.Thinker`).

    Args:
        loader: opens the graphs.
        bundle: a bundle with a reasoner.
        max_patches: patches per call of the vision graph, which bounds its memory. Attention stays within
            a temporal row of a grid, so cutting between rows changes nothing.
        max_chunks: chunks per call of the audio graph, likewise.

    Raises:
        BundleError: the bundle has no reasoner, or a graph or the tokenizer is missing or malformed.
        EngineError: the runtime refuses a graph.
    """

    def __init__(
        self, loader: EngineLoader, bundle: Bundle, *, max_patches: int = 8192, max_chunks: int = 32
    ) -> None:
        self.spec: GrsSpec = bundle.grs
        self._max_patches = max_patches
        self._max_chunks = max_chunks
        self._tokenizer = load_tokenizer(bundle.path("tokenizer.json"))
        self._vision = loader.load(bundle, "grs/vision")
        self._audio = loader.load(bundle, "grs/audio")
        self._embed = open_embedding(loader, bundle)
        self._decoder = loader.load(bundle, "grs/decoder")
        self._graph = bundle.graph("grs/decoder")
        self._cache_links = {
            past.replace("past.", "present."): past for past in empty_cache(self._graph)
        }

    def generate(
        self, requests: Sequence[ThinkerRequest], config: GenerationConfig
    ) -> list[Completion]:
        """Complete each request; see `omni_sdk.grs.request.Thinker.generate`.

        Raises:
            QueryError: a prompt plus max_new_tokens exceeds the model's positions.
            EngineError: a graph failed.
            ValueError: `config.max_new_tokens` is None, or a request's placeholders and media disagree.
        """
        if config.max_new_tokens is None:
            raise ValueError("max_new_tokens is None; take the bundle's default first")
        if not requests:
            return []
        for request in requests:
            check_positions(request, config.max_new_tokens, self.spec.decoder.max_positions)
        if not self._graph.left_padding and len({len(r.input_ids) for r in requests}) > 1:
            return [done for r in requests for done in self.generate([r], config)]
        start = time.perf_counter()
        inputs = self._prompt(requests)
        # The cache stays where the decoder runs.
        empty = empty_cache(self._graph, len(requests))
        decoder = start_linked(self._decoder, self._cache_links, empty)
        logits = decoder.run(inputs)["logits"][:, 0]
        prefilled = time.perf_counter()

        tokens = self.spec.tokens
        samplers = [TokenSampler(config, tokens.suppress) for _ in requests]
        rows = [
            CompletionBuilder(
                self._tokenizer,
                tokens.eos,
                config.stop,
                config.max_new_tokens,
                thinking_budget=config.thinking_budget,
                moments=request.moments,
            )
            for request in requests
        ]
        mask = inputs["attention_mask"]
        position = inputs["position_ids"].max(axis=(0, 2)) + 1
        while True:
            chosen = [
                tokens.pad if row.finish else next_token(row, sampler, scores)
                for row, sampler, scores in zip(rows, samplers, logits, strict=True)
            ]
            ended = [row.add(token) for row, token in zip(rows, chosen, strict=True)]
            if all(ended):
                break
            mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=1)
            ids = np.array(chosen, np.int64)[:, None]
            step = {
                "inputs_embeds": self._embed.run({"input_ids": ids})["embeds"],
                "attention_mask": mask,
                "position_ids": np.ascontiguousarray(
                    np.broadcast_to(position[:, None], (3, len(rows), 1))
                ),
            }
            logits = decoder.run(step)["logits"][:, 0]
            position = position + 1
        prefill_ms = 1e3 * (prefilled - start)
        generate_ms = 1e3 * (time.perf_counter() - prefilled)
        return [row.build(prefill_ms, generate_ms) for row in rows]

    def _prompt(self, requests: Sequence[ThinkerRequest]) -> dict[str, NDArray[Any]]:
        """Embed and left-pad the prompts; return the decoder's inputs for prefill, the cache excluded."""
        tokens = self.spec.tokens
        batch, length = len(requests), max(len(r.input_ids) for r in requests)
        ids = np.full((batch, length), tokens.pad, np.int64)
        mask = np.zeros((batch, length), np.int64)
        positions = np.full((3, batch, length), _PADDING_POSITION, np.int64)
        for i, request in enumerate(requests):
            first = length - len(request.input_ids)
            ids[i, first:] = request.input_ids
            mask[i, first:] = 1
            positions[:, i, first:] = request.position_ids
        embeds = self._embed.run({"input_ids": ids})["embeds"]
        real = mask == 1
        visions = [v for r in requests for v in r.vision]
        encoded = self._encode_vision(visions)
        for kind, token in (("image", tokens.image), ("video", tokens.video)):
            parts = [e for v, e in zip(visions, encoded, strict=True) if v.kind == kind]
            _scatter(embeds, real & (ids == token), parts, kind)
        sounds = self._encode_audio([mel for r in requests for mel in r.mel])
        _scatter(embeds, real & (ids == tokens.audio), sounds, "audio")
        return {"inputs_embeds": embeds, "attention_mask": mask, "position_ids": positions}

    def _encode_vision(self, visions: Sequence[VisionInput]) -> list[Floats]:
        """Return the (tokens, H) embeddings of each image or video."""
        if not visions:
            return []
        unit = self.spec.vision.merge_size**2
        calls = []
        for grids, pixels in self._vision_calls(visions):
            inputs = vision_layout(grids, self.spec.vision)
            calls.append(self._vision.run({"pixel_values": pixels, **inputs})["embeds"])
        ends = np.cumsum([int(np.prod(v.grid_thw)) // unit for v in visions])
        return np.split(np.concatenate(calls), ends[:-1])

    def _vision_calls(
        self, visions: Sequence[VisionInput]
    ) -> Iterator[tuple[list[tuple[int, int, int]], PatchValues]]:
        """Cut the visions between temporal rows and pack the pieces into calls of bounded size."""
        grids: list[tuple[int, int, int]] = []
        pixels: list[PatchValues] = []
        used = 0
        for vision in visions:
            t, h, w = vision.grid_thw
            row = 0
            while row < t:
                room = (self._max_patches - used) // (h * w)
                if room < 1 and used:
                    yield grids, np.concatenate(pixels)
                    grids, pixels, used = [], [], 0
                    continue
                take = min(max(room, 1), t - row)
                grids.append((take, h, w))
                pixels.append(vision.pixel_values[row * h * w : (row + take) * h * w])
                used += take * h * w
                row += take
        yield grids, np.concatenate(pixels)

    def _encode_audio(self, mels: Sequence[Floats]) -> list[Floats]:
        """Return the (tokens, H) embeddings of each sound."""
        if not mels:
            return []
        chunks, lengths, num_tokens = chunk_mel(mels, self.spec.audio.n_window)
        calls = [
            self._audio.run(
                {
                    "mel": chunks[i : i + self._max_chunks],
                    "lengths": lengths[i : i + self._max_chunks],
                }
            )["embeds"]
            for i in range(0, len(chunks), self._max_chunks)
        ]
        embeds = np.concatenate(calls)
        counts = [-(-mel.shape[1] // chunks.shape[2]) for mel in mels]
        parts = np.split(embeds, np.cumsum(counts)[:-1])
        return [
            part.reshape(-1, embeds.shape[-1])[:n]
            for part, n in zip(parts, num_tokens, strict=True)
        ]


def next_token(row: CompletionBuilder, sampler: TokenSampler, scores: NDArray[np.float32]) -> int:
    """Return the token that a row has to take, else the one that its sampler chooses."""
    forced = row.forced()
    return sampler(scores, row.allowed()) if forced is None else forced


def check_positions(request: ThinkerRequest, max_new_tokens: int, max_positions: int) -> None:
    """Refuse a request that the model has no positions for.

    Raises:
        QueryError: the prompt's tokens or last position plus `max_new_tokens` exceed `max_positions`.
        ValueError: `position_ids` does not go with `input_ids`, or the prompt is empty.
    """
    length = len(request.input_ids)
    if not length or request.position_ids.shape != (3, length):
        raise ValueError(
            f"expected position_ids (3, {length}) and at least one token, got "
            f"{request.position_ids.shape}"
        )
    needed = max(length, int(request.position_ids.max()) + 1) + max_new_tokens
    if needed > max_positions:
        raise QueryError(
            f"the prompt ({length} tokens) and {max_new_tokens} new tokens need {needed} positions, the "
            f"model has {max_positions}; shorten the question, the clip or max_new_tokens"
        )


def _scatter(embeds: Floats, where: NDArray[np.bool_], parts: Sequence[Floats], kind: str) -> None:
    """Put media embeddings, in order, in the places of their placeholders."""
    found, expected = int(where.sum()), sum(len(part) for part in parts)
    if found != expected:
        raise ValueError(f"{found} {kind} placeholders for {expected} {kind} tokens")
    if found:
        embeds[where] = np.concatenate(parts)
