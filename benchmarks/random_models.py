"""Models of published sizes with random weights, exported once into a cache: what costs are measured on.

Times and memory depend on shapes, not on weights. Weights are drawn so that activations keep their scale
through the depth; with transformers' initial 0.02 the logits hardly depend on the input, and equal tokens
or masks would prove nothing.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from omni_export import fused_decoder, precision, thinker_graphs
from omni_export.onnx_export import export_graph
from omni_export.sam2_graphs import write_graphs
from omni_export.thinker_graphs import thinker_plans
from omni_export.variants import add_variants
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Sam2VideoConfig,
    Sam2VideoModel,
)

from omni_sdk.bundle.bundle import Bundle, write_manifest
from omni_sdk.bundle.manifest import (
    SCHEMA_VERSION,
    AudioSpec,
    DecoderSpec,
    DusSpec,
    GraphSpec,
    GrsSpec,
    Manifest,
    PromptSpec,
    SamplingSpec,
    TokenSpec,
    VisionSpec,
)
from omni_sdk.hf import hiera, sam2_modules
from omni_sdk.hf.sam2_checkpoint import dus_spec

HEAD_DIM = 128
NUM_SPECIAL = 16
VOCAB = 8192
MAX_POSITIONS = 8192


SAM2_SIZES = {
    "tiny": (96, 1, (1, 2, 7, 2), (5, 7, 9), 7, (8, 4, 14, 7)),
    "large": (144, 2, (2, 6, 36, 4), (23, 33, 43), 7, (8, 4, 16, 8)),
}
"""First width and heads, blocks, blocks with global attention, background grid, windows (published)."""


def sam2_config(name: str, size: int = 1024) -> Sam2VideoConfig:
    """Return the configuration of facebook/sam2.1-hiera-NAME for images of S = `size` pixels."""
    grids = [[size // stride] * 2 for stride in (4, 8, 16)]
    width, heads, blocks, global_blocks, background, windows = SAM2_SIZES[name]
    widths = [width << stage for stage in range(4)]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": width,
        "num_attention_heads": heads,
        "image_size": [size, size],
        "blocks_per_stage": list(blocks),
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [heads << stage for stage in range(4)],
        "window_size_per_stage": list(windows),
        "global_attention_blocks": list(global_blocks),
        "window_positional_embedding_background_size": [background] * 2,
    }
    return Sam2VideoConfig(
        vision_config={
            "backbone_config": backbone,
            "backbone_channel_list": widths[::-1],
            "backbone_feature_sizes": grids,
            "fpn_hidden_size": 256,
            "fpn_top_down_levels": [2, 3],
        },
        prompt_encoder_config={"hidden_size": 256, "image_size": size},
        image_size=size,
        memory_attention_rope_feat_sizes=grids[-1],
        enable_occlusion_spatial_embedding=True,
        enable_temporal_pos_encoding_for_object_pointers=True,
    )


def sam2(name: str, size: int) -> Sam2VideoModel:
    """Return a float32 SAM 2.1 of `sam2_config` with random weights."""
    config = sam2_config(name, size)
    torch.manual_seed(0)
    model = Sam2VideoModel(config).eval()
    _scale_weights(model)
    with torch.no_grad():
        # Upstream has two buffers for one random matrix.
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(
            model.shared_image_embedding.positional_embedding
        )
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(2.0)  # objects are present
    return model


def tracker_bundle(cache: Path, model: Sam2VideoModel, name: str) -> Bundle:
    """Return a bundle of a tracker's graphs, written to `cache` / NAME where it is not there yet."""

    def make(directory: Path) -> tuple[None, DusSpec, dict[str, GraphSpec]]:
        spec = dus_spec(model, "random")
        return None, spec, write_graphs(model, spec, directory)

    return _cached(cache / f"{name}-{_stamp(sam2_modules, hiera)}", make)


@dataclass(frozen=True)
class Sizes:
    """Of a decoder; heads have `HEAD_DIM` channels."""

    hidden: int
    layers: int
    kv_heads: int
    mlp: int
    vocab: int


def small_sizes(hidden: int) -> Sizes:
    """Return four layers of Qwen2.5's proportions with a small vocabulary."""
    return Sizes(hidden, 4, max(1, hidden // HEAD_DIM // 8), 4 * hidden, VOCAB)


def thinker(sizes: Sizes) -> Any:
    """Return a float32 thinker whose decoder has Qwen2.5's shapes; vision and audio towers are tiny."""
    special = {
        name: i
        for i, name in enumerate(
            (
                "pad_token_id", "eos_token_id", "image_token_index", "video_token_index",
                "audio_token_index", "vision_start_token_id", "vision_end_token_id",
                "audio_start_token_id", "audio_end_token_id", "user_token_id",
            )
        )
    }  # fmt: skip
    ends = {name: special.pop(name) for name in ("pad_token_id", "eos_token_id")}
    config = Qwen2_5OmniThinkerConfig(
        audio_config={
            "num_mel_bins": 16, "encoder_layers": 1, "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32, "d_model": 16, "max_source_positions": 64, "n_window": 8,
            "output_dim": sizes.hidden,
        },
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2,
            "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 16,
            "out_hidden_size": sizes.hidden, "fullatt_block_indexes": [1],
        },
        text_config={
            "vocab_size": sizes.vocab, "hidden_size": sizes.hidden, "intermediate_size": sizes.mlp,
            "num_hidden_layers": sizes.layers, "num_attention_heads": sizes.hidden // HEAD_DIM,
            "num_key_value_heads": sizes.kv_heads,
            "max_position_embeddings": MAX_POSITIONS, "use_sliding_window": False,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24],
            },
            "tie_word_embeddings": False, **ends,
        },
        position_id_per_seconds=25, seconds_per_chunk=2, tie_word_embeddings=False, **special,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2_5OmniThinkerForConditionalGeneration(config).eval()
    _scale_weights(model)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = ends["pad_token_id"]
    return model


def thinker_bundle(cache: Path, model: Any, name: str) -> Bundle:
    """Return a bundle of a thinker's graphs, written to `cache` / NAME where it is not there yet."""

    def make(directory: Path) -> tuple[GrsSpec, None, dict[str, GraphSpec]]:
        spec = thinker_spec(model)
        words = {str(i): i for i in range(spec.decoder.vocab_size)}
        Tokenizer(WordLevel(words, unk_token="0")).save(str(directory / "tokenizer.json"))
        plans = thinker_plans(model, spec)
        return spec, None, {p.name: export_graph(p, directory, compact=False) for p in plans}

    return _cached(cache / f"{name}-{_stamp(thinker_graphs)}", make)


def with_variants(cache: Path, bundle: Bundle, names: Sequence[str]) -> Bundle:
    """Return a bundle with variants, made in the cache where they are not there yet."""
    if not names:
        return bundle
    stamp = _stamp(precision, fused_decoder)
    out = cache / f"{bundle.manifest.name}-{'-'.join(names)}-{stamp}"
    if not (out / "manifest.json").exists():
        print(f"making variants of {bundle.manifest.name}: {', '.join(names)}", flush=True)
        add_variants(bundle.directory, out, names)
    return Bundle.open(out)


def thinker_spec(model: Any) -> GrsSpec:
    """Describe a thinker of `thinker` for the manifest; no token ends a completion."""
    text = model.config.text_config
    return GrsSpec(
        vision=VisionSpec(4, 2, 2, 16, (0.5,) * 3, (0.5,) * 3, (64, 4096), (64, 4096)),
        audio=AudioSpec(16000, 400, 160, 16, 8, 8, 30.0),
        tokens=TokenSpec(0, (), 2, 3, 4, 5, 6, 7, 8, tuple(range(NUM_SPECIAL))),
        decoder=DecoderSpec(
            text.hidden_size,
            text.num_hidden_layers,
            text.num_key_value_heads,
            HEAD_DIM,
            text.vocab_size,
            MAX_POSITIONS,
            25,
            2.0,
        ),
        sampling=SamplingSpec(2.0, 2, 8, "bins", None, True, "omit"),
        prompts=PromptSpec(None, "reason", "ask", "ground", 64, 64),
    )


def _scale_weights(model: torch.nn.Module) -> None:
    """Draw matrices with deviation 1 / sqrt(inputs) and small biases, so that signals keep their scale."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "pos_embed" not in name and "embed_tokens" not in name:
                inputs = parameter[0].numel()
                parameter.normal_(0, 1 / math.sqrt(inputs), generator=generator)
            elif "embed_tokens" in name:
                parameter.normal_(0, 1, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.02, generator=generator)


def _stamp(*modules: ModuleType) -> str:
    """A name for the code that writes graphs: graphs of other code are not reused."""
    content = b"".join(Path(str(m.__file__)).read_bytes() for m in modules)
    return hashlib.sha256(content).hexdigest()[:8]


def _cached(directory: Path, make: Any) -> Bundle:
    if not (directory / "manifest.json").exists():
        print(f"exporting {directory.name} into {directory.parent}", flush=True)
        draft = directory.with_name(f".{directory.name}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        grs, dus, graphs = make(draft)
        write_manifest(
            draft,
            Manifest(
                SCHEMA_VERSION,
                directory.name,
                "0",
                "none",
                "random weights",
                {},
                {},
                graphs,
                grs=grs,
                dus=dus,
            ),
        )
        shutil.rmtree(directory, ignore_errors=True)
        draft.rename(directory)
    return Bundle.open(directory)
