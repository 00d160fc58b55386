"""The thinker as four exportable modules over the weights of transformers' own class.

Upstream splits attention by lists of lengths, which is data-dependent; here the host pads instead:

- vision works on windows padded to one size, so windowed and full attention are reshapes with a key mask
  (`omni_sdk.graphs.windows` makes the indices);
- audio works on chunks padded to one size, a batch of chunks (`omni_sdk.grs.mel`);
- one decoder serves prefill (no past) and decoding, and gives logits of the last position only: at a
  vocabulary of 152064 those of a whole prompt would need gigabytes.

Masked keys get a bias of -1e4, not -inf: a row of nothing but padding then stays finite, in half
precision too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omni_sdk.bundle.manifest import GrsSpec, TensorSpec
from omni_sdk.graphs.windows import vision_layout
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.cache_utils import DynamicCache
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import apply_rotary_pos_emb_vision

if TYPE_CHECKING:
    from torch import Tensor

MASKED = -1e4


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """What is needed to export one graph.

    Attributes:
        name: as in the manifest, e.g. "grs/decoder".
        module: the module to trace.
        example: its keyword arguments; every dynamic axis is at least 2 long, because the tracer turns a
            length of 1 into a constant.
        inputs: the graph's inputs, in the order of `example` with lists flattened.
        outputs: the graph's outputs.
    """

    name: str
    module: nn.Module
    example: dict[str, Any]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def _key_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.where(mask, 0.0, MASKED).to(dtype)


class VisionGraph(nn.Module):  # type: ignore[misc]
    """Patches to tokens, in the padded-window layout.

    Args:
        visual: Qwen2_5OmniVisionEncoder.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def _attend(self, attn: Any, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """Attend within each row of `mask`; x is (P, C) with P = rows * length of a row."""
        rows, length = mask.shape

        def split(y: Tensor) -> Tensor:
            return y.reshape(rows, length, attn.num_heads, attn.head_dim).transpose(1, 2)

        heads = (-1, attn.num_heads, attn.head_dim)
        query, key = apply_rotary_pos_emb_vision(
            attn.q(x).reshape(heads), attn.k(x).reshape(heads), cos, sin
        )
        out = functional.scaled_dot_product_attention(
            split(query),
            split(key),
            split(attn.v(x)),
            attn_mask=_key_bias(mask, x.dtype)[:, None, None, :],
            scale=attn.scaling,
        )
        return attn.proj(out.transpose(1, 2).reshape(rows * length, -1))

    def forward(
        self,
        pixel_values: Tensor,
        position_ids: Tensor,
        win_mask: Tensor,
        full_mask: Tensor,
        gather: Tensor,
        out_gather: Tensor,
    ) -> Tensor:
        """Encode N patches, of any number of frames and sizes, to N / merge**2 tokens.

        Args:
            pixel_values: (N, C * temporal_patch * patch**2) float32.
            position_ids: (N, 2) int64 row and column of each patch.
            win_mask: (nW, L) bool, which of a window's L rows are patches.
            full_mask: (F, Lf) bool, likewise for whole frames; nW * L == F * Lf.
            gather: (nW * L,) int64, the patch of each row; N for padding.
            out_gather: (N / merge**2,) int64, the merged row of each output token.
        """
        visual: Any = self.visual
        embed = visual.patch_embed
        # A convolution whose stride is its kernel is a matrix product; engines run that faster.
        x = functional.linear(pixel_values, embed.proj.weight.reshape(embed.embed_dim, -1))
        x = functional.pad(x, (0, 0, 0, 1)).index_select(0, gather)
        position_ids = functional.pad(position_ids, (0, 0, 0, 1)).index_select(0, gather)
        cos, sin = visual.rotary_pos_emb(x, position_ids)
        for i, block in enumerate(visual.blocks):
            mask = full_mask if i in visual.fullatt_block_indexes else win_mask
            x = x + self._attend(block.attn, block.norm1(x), cos, sin, mask)
            x = x + block.mlp(block.norm2(x))
        return visual.merger(x).index_select(0, out_gather)


class AudioGraph(nn.Module):  # type: ignore[misc]
    """Log-mel chunks to tokens.

    Upstream attends within chunks of 2 * n_window mel frames and pools pairs along the whole sound;
    n_window is even, so the pairs never cross a chunk.

    Args:
        tower: Qwen2_5OmniAudioEncoder.
    """

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def _attend(self, attn: Any, x: Tensor, bias: Tensor) -> Tensor:
        batch, length, _ = x.shape

        def split(y: Tensor) -> Tensor:
            return y.reshape(batch, length, attn.num_heads, attn.head_dim).transpose(1, 2)

        out = functional.scaled_dot_product_attention(
            split(attn.q_proj(x)),
            split(attn.k_proj(x)),
            split(attn.v_proj(x)),
            attn_mask=bias,
            scale=attn.scaling,
        )
        return attn.out_proj(out.transpose(1, 2).reshape(batch, length, -1))

    def forward(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """Encode nC chunks.

        Args:
            mel: (nC, M, 2 * n_window) float32, zero after a chunk's length.
            lengths: (nC,) int64 mel frames of each chunk, at least 1.

        Returns:
            (nC, n_window / 2, H); tokens past a chunk's length are padding.
        """
        tower: Any = self.tower
        frames = torch.arange(mel.shape[2], device=mel.device)[None] < lengths[:, None]
        x = functional.gelu(tower.conv1(mel)) * frames[:, None, :].to(mel.dtype)
        x = functional.gelu(tower.conv2(x)).transpose(1, 2)
        x = x + tower.positional_embedding.positional_embedding[: x.shape[1]].to(x.dtype)
        halved = (lengths - 1) // 2 + 1
        keys = torch.arange(x.shape[1], device=mel.device)[None] < halved[:, None]
        bias = _key_bias(keys, x.dtype)[:, None, None, :]
        for layer in tower.layers:
            x = x + self._attend(layer.self_attn, layer.self_attn_layer_norm(x), bias)
            x = x + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(x))))
        x = x.reshape(x.shape[0], -1, 2, x.shape[2]).mean(2)
        return tower.proj(tower.ln_post(x))


class EmbedGraph(nn.Module):  # type: ignore[misc]
    """Token ids to embeddings.

    Args:
        table: the embedding table.
    """

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table = table

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return (B, S, H) embeddings of (B, S) int64 ids."""
        return self.table(input_ids)


GROUPED = "omni_grouped"
"""Name of `grouped_attention` among transformers' attention functions."""


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend without a copy of keys and values for every query head (transformers' repeat_kv).

    The R heads that share a key are R * S rows of one product. At 1,024 cached tokens a step takes 0.55 of
    the time that it took with copies (hidden size 512, ONNX Runtime).

    Args:
        module: unused.
        query: (B, R * KV, S, D), the heads of one key side by side.
        key: (B, KV, T, D).
        value: (B, KV, T, D).
        attention_mask: (B, 1, S, T) bias.
        scaling: of the scores.

    Returns:
        (B, S, R * KV, D), and no weights.
    """
    batch, heads, length, dim = query.shape
    groups = key.shape[1]
    rows = (query * scaling).reshape(batch, groups, heads // groups * length, dim)
    scores = (rows @ key.transpose(2, 3)).reshape(batch, heads, length, -1) + attention_mask
    weights = scores.softmax(-1).reshape(batch, groups, heads // groups * length, -1)
    mixed = (weights @ value).reshape(batch, heads, length, dim)
    return mixed.transpose(1, 2), None


AttentionInterface.register(GROUPED, grouped_attention)


class DecoderGraph(nn.Module):  # type: ignore[misc]
    """Embeddings and a key-value cache to next-token logits and the longer cache.

    Args:
        language_model: Qwen2_5OmniThinkerTextModel.
        head: the projection to the vocabulary.
    """

    def __init__(self, language_model: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.language_model = language_model
        self.head = head

    def forward(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past: list[Tensor],
    ) -> tuple[Tensor, ...]:
        """Run S positions after P cached ones.

        Args:
            inputs_embeds: (B, S, H).
            attention_mask: (B, P + S) int64, 0 on padding.
            position_ids: (3, B, S) int64.
            past: key and value of each layer in turn, (B, KV, P, D).

        Returns:
            (B, 1, V) logits of the last position, then `past` grown to P + S.
        """
        length, total = inputs_embeds.shape[1], attention_mask.shape[1]
        rows = torch.arange(length, device=inputs_embeds.device) + (total - length)
        causal = torch.arange(total, device=inputs_embeds.device)[None] <= rows[:, None]
        visible = causal[None, None] & (attention_mask[:, None, None, :] != 0)
        cache = DynamicCache()
        for i in range(len(past) // 2):
            cache.update(past[2 * i], past[2 * i + 1], i)
        # A ready mask per layer type bypasses transformers' own mask building, which traces badly.
        with _attention(self.language_model, GROUPED):
            out = self.language_model(
                inputs_embeds=inputs_embeds,
                attention_mask={"full_attention": _key_bias(visible, inputs_embeds.dtype)},
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
            )
        logits = self.head(out.last_hidden_state[:, -1:])
        return (logits, *(t for layer in cache.layers for t in (layer.keys, layer.values)))


@contextlib.contextmanager
def _attention(model: Any, name: str) -> Iterator[None]:
    """Attend by another function for a while: the model is what graphs are compared with, too."""
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


def thinker_plans(model: Any, spec: GrsSpec) -> tuple[GraphPlan, ...]:
    """Plan the four graphs of a Qwen2_5OmniThinkerForConditionalGeneration."""
    core = model.model
    return (
        _vision_plan(core.visual, spec),
        _audio_plan(core.audio_tower, spec),
        _embed_plan(core.language_model.embed_tokens, spec),
        _decoder_plan(core.language_model, model.lm_head, spec),
    )


def _vision_plan(visual: Any, spec: GrsSpec) -> GraphPlan:
    patch, merge = spec.vision.patch_size, spec.vision.merge_size
    side = spec.vision.window_size // merge // patch * merge
    width = visual.patch_embed.proj.weight[0].numel()
    # Two grids whose edges are not whole windows.
    grids = [(2, side + merge, side + 2 * merge), (1, side, side + merge)]
    layout = vision_layout(grids, spec.vision)
    patches = sum(t * h * w for t, h, w in grids)
    example = {"pixel_values": torch.randn(patches, width)}
    example |= {name: torch.from_numpy(value) for name, value in layout.items()}
    names = ("pixel_values", "position_ids", "win_mask", "full_mask", "gather", "out_gather")
    return GraphPlan(
        "grs/vision",
        VisionGraph(visual),
        {name: example[name] for name in names},
        (
            TensorSpec("pixel_values", "float32", ("patches", width)),
            TensorSpec("position_ids", "int64", ("patches", 2)),
            TensorSpec("win_mask", "bool", ("windows", side * side)),
            TensorSpec("full_mask", "bool", ("frames", "frame_rows")),
            TensorSpec("gather", "int64", ("rows",)),
            TensorSpec("out_gather", "int64", ("tokens",)),
        ),
        (TensorSpec("embeds", "float32", ("tokens", spec.decoder.hidden_size)),),
    )


def _audio_plan(tower: Any, spec: GrsSpec) -> GraphPlan:
    bins, window = spec.audio.num_mel_bins, spec.audio.n_window
    return GraphPlan(
        "grs/audio",
        AudioGraph(tower),
        {
            "mel": torch.randn(3, bins, 2 * window),
            "lengths": torch.tensor([2 * window, window + 1, window // 2]),
        },
        (
            TensorSpec("mel", "float32", ("chunks", bins, 2 * window)),
            TensorSpec("lengths", "int64", ("chunks",)),
        ),
        (TensorSpec("embeds", "float32", ("chunks", window // 2, spec.decoder.hidden_size)),),
    )


def _embed_plan(table: nn.Module, spec: GrsSpec) -> GraphPlan:
    return GraphPlan(
        "grs/embed",
        EmbedGraph(table),
        {"input_ids": torch.zeros(2, 5, dtype=torch.int64)},
        (TensorSpec("input_ids", "int64", ("batch", "length")),),
        (TensorSpec("embeds", "float32", ("batch", "length", spec.decoder.hidden_size)),),
    )


def _decoder_plan(language_model: nn.Module, head: nn.Module, spec: GrsSpec) -> GraphPlan:
    decoder = spec.decoder
    batch, length, past = 2, 5, 7
    heads, dim = decoder.num_kv_heads, decoder.head_dim
    cache = [torch.randn(batch, heads, past, dim) for _ in range(2 * decoder.num_layers)]
    names = [f"{i}.{part}" for i in range(decoder.num_layers) for part in ("key", "value")]
    positions = torch.from_numpy(np.arange(past, past + length)).expand(3, batch, length)
    return GraphPlan(
        "grs/decoder",
        DecoderGraph(language_model, head),
        {
            "inputs_embeds": torch.randn(batch, length, decoder.hidden_size),
            "attention_mask": torch.ones(batch, past + length, dtype=torch.int64),
            "position_ids": positions,
            "past": cache,
        },
        (
            TensorSpec("inputs_embeds", "float32", ("batch", "length", decoder.hidden_size)),
            TensorSpec("attention_mask", "int64", ("batch", "total")),
            TensorSpec("position_ids", "int64", (3, "batch", "length")),
            *(TensorSpec(f"past.{n}", "float32", ("batch", heads, "past", dim)) for n in names),
        ),
        (
            TensorSpec("logits", "float32", ("batch", 1, decoder.vocab_size)),
            *(TensorSpec(f"present.{n}", "float32", ("batch", heads, "total", dim)) for n in names),
        ),
    )
