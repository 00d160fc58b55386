"""The nano thinker: the real class at a small size, from random weights, in the published layout."""

from __future__ import annotations

import copy
import math
import shutil
from pathlib import Path

import torch
from omni_sdk.demo.world import DURATION_SECONDS, STEP_SECONDS, STEPS
from omni_sdk.utils.files import put_folder, write_json
from tokenizers import Tokenizer
from transformers import (
    GenerationConfig,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from omni_training.nano.thinker.config import ThinkerSizes

PAD, START, END = 0, 1, 2
SAMPLING_RATE = 16_000
CHANGE_GAIN = 3.0
"""Of the patch filters that see what changes from one frame to the next; see `_split_change_filters`."""
_RESIDUAL = ("o_proj", "down_proj", "attn.proj", "out_proj", "fc2")


def thinker_config(sizes: ThinkerSizes, tokenizer: Tokenizer) -> Qwen2_5OmniThinkerConfig:
    """Return the configuration of the class for these sizes and this vocabulary."""
    ids = tokenizer.get_vocab()
    rotary = sizes.hidden // sizes.heads // 2
    height = rotary // 3
    return Qwen2_5OmniThinkerConfig(
        audio_config={
            "num_mel_bins": sizes.mel_bins,
            "encoder_layers": sizes.audio_layers,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 2 * sizes.audio_hidden,
            "d_model": sizes.audio_hidden,
            "max_source_positions": 64,
            "n_window": 32,
            "output_dim": sizes.hidden,
        },
        vision_config={
            "depth": sizes.vision_depth,
            "hidden_size": sizes.vision_hidden,
            "intermediate_size": sizes.vision_intermediate,
            "num_heads": sizes.vision_heads,
            "patch_size": sizes.patch,
            "spatial_merge_size": sizes.merge,
            "temporal_patch_size": sizes.temporal,
            "window_size": sizes.frame_pixels,
            "out_hidden_size": sizes.hidden,
            "fullatt_block_indexes": list(range(sizes.vision_depth)),
        },
        text_config={
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": sizes.hidden,
            "intermediate_size": sizes.intermediate,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "num_key_value_heads": sizes.kv_heads,
            "max_position_embeddings": 1024,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": sizes.rope_theta,
                "mrope_section": [rotary - 2 * height, height, height],
            },
            "tie_word_embeddings": False,
            "use_sliding_window": False,
            "pad_token_id": PAD,
            "bos_token_id": START,
            "eos_token_id": END,
        },
        audio_token_index=ids["<|AUDIO|>"],
        image_token_index=ids["<|IMAGE|>"],
        video_token_index=ids["<|VIDEO|>"],
        vision_start_token_id=ids["<|vision_bos|>"],
        vision_end_token_id=ids["<|vision_eos|>"],
        audio_start_token_id=ids["<|audio_bos|>"],
        audio_end_token_id=ids["<|audio_eos|>"],
        position_id_per_seconds=2,
        seconds_per_chunk=2,
        user_token_id=ids["user\n"],
        tie_word_embeddings=False,
    )


def build_thinker(
    sizes: ThinkerSizes, tokenizer: Tokenizer, seed: int
) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """Return a random thinker; the same seed gives the same weights.

    transformers' standard deviation of 0.02 starves matrices this narrow: here it is 1 / sqrt(fan in), half
    of that where a branch joins the residual stream.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        thinker = Qwen2_5OmniThinkerForConditionalGeneration(thinker_config(sizes, tokenizer))
        for name, parameter in thinker.named_parameters():
            if parameter.dim() < 2 or "positional" in name:
                continue
            deviation = 1 / math.sqrt(parameter[0].numel())
            if "embed_tokens" in name:
                deviation = 0.5
            elif any(part in name for part in _RESIDUAL):
                deviation *= 0.5
            elif "lm_head" in name:
                deviation *= 0.3
            parameter.data.normal_(0, deviation)
        _split_change_filters(thinker.model.visual.patch_embed.proj.weight.data)
    thinker.generation_config = GenerationConfig(
        bos_token_id=START, eos_token_id=END, pad_token_id=PAD
    )
    return thinker


def _split_change_filters(filters: torch.Tensor) -> None:
    """Let half of the patch filters see just what stays between the two frames, half just what changes.

    What changes is faint beside what stays: of plain random filters the tower did not learn in 1,500 steps
    which way an object moves (0.45 right, chance 0.42); of these, with three times the gain on change, it is
    0.89 right after 250.

    Args:
        filters: (channels, 3, 2, patch, patch), changed in place.
    """
    half = len(filters) // 2
    filters[:half, :, 1] = filters[:half, :, 0]
    filters[half:, :, 1] = -filters[half:, :, 0]
    filters[half:] *= CHANGE_GAIN


def save_thinker(
    thinker: Qwen2_5OmniThinkerForConditionalGeneration,
    tokenizer: Tokenizer,
    sizes: ThinkerSizes,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write a checkpoint that `omni_sdk.hf` and `omni-export` read; whole or not at all.

    Args:
        thinker: on any device; left as it is.
        tokenizer: its own.
        sizes: its own.
        folder: replaced if it exists.
        dtype: of the weights in the file.
    """
    staging = folder.with_name(f".{folder.name}.incomplete")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    copy.deepcopy(thinker).to("cpu", dtype).save_pretrained(staging)
    tokenizer.save(str(staging / "tokenizer.json"))
    settings = {
        "patch": sizes.patch,
        "merge": sizes.merge,
        "tpatch": sizes.temporal,
        "mean": 0.5,
        "std": 0.5,
        "n_fft": sizes.n_fft,
        "hop": sizes.hop,
        "mels": sizes.mel_bins,
        "sr": SAMPLING_RATE,
        "image_size_lo": sizes.frame_pixels,
        "image_size_hi": sizes.image_pixels,
        "fps": 1 / STEP_SECONDS,
        "frames": STEPS,
    }
    assert STEPS * STEP_SECONDS == DURATION_SECONDS
    write_json(staging / "preprocessor_config.json", settings)
    put_folder(staging, folder)
    return folder
