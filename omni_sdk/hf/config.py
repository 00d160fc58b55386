"""A thinker's config.json -> its configuration class, through an allow-list.

A configuration can name code (`auto_map`), hub kernels (`attn_implementation`, `_attn_implementation`) and
quantisers. Only the keys below, which describe shapes and token ids, reach transformers.
"""

from __future__ import annotations

from typing import Any

from transformers import Qwen2_5OmniThinkerConfig

from omni_sdk.errors import BundleError

_THINKER = frozenset(
    {
        "audio_token_index",
        "image_token_index",
        "video_token_index",
        "audio_start_token_id",
        "audio_end_token_id",
        "vision_start_token_id",
        "vision_end_token_id",
        "position_id_per_seconds",
        "seconds_per_chunk",
        "user_token_id",
        "pad_token_id",
    }
)
_TEXT = frozenset(
    {
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_act",
        "max_position_embeddings",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "use_sliding_window",
        "sliding_window",
        "max_window_layers",
        "layer_types",
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
        "tie_word_embeddings",
    }
)
_VISION = frozenset(
    {
        "depth",
        "hidden_size",
        "hidden_act",
        "intermediate_size",
        "num_heads",
        "in_channels",
        "patch_size",
        "spatial_merge_size",
        "temporal_patch_size",
        "window_size",
        "out_hidden_size",
        "fullatt_block_indexes",
        "rope_parameters",
    }
)
_AUDIO = frozenset(
    {
        "num_mel_bins",
        "encoder_layers",
        "encoder_attention_heads",
        "encoder_ffn_dim",
        "d_model",
        "activation_function",
        "scale_embedding",
        "max_source_positions",
        "n_window",
        "output_dim",
    }
)
_LAYERS = {
    "text_config": "num_hidden_layers",
    "vision_config": "depth",
    "audio_config": "encoder_layers",
}
_MAX_LAYERS = 1024


def thinker_config(value: Any, where: str) -> Qwen2_5OmniThinkerConfig:
    """Build the configuration of a thinker from parsed JSON.

    Args:
        value: config.json of a thinker-only checkpoint, or of a full one (with `thinker_config`).
        where: the file, for messages.

    Raises:
        BundleError: not a Qwen2.5-Omni configuration, or one that this SDK cannot run.
    """
    value = _section(
        value.get("thinker_config", value) if isinstance(value, dict) else value, where
    )
    for key, allowed in (
        ("text_config", _TEXT),
        ("vision_config", _VISION),
        ("audio_config", _AUDIO),
    ):
        section = _section(value.get(key), f"{where}: {key}")
        layers = section.get(_LAYERS[key])
        if type(layers) is not int or not 1 <= layers <= _MAX_LAYERS:
            raise BundleError(
                f"{where}: {key}.{_LAYERS[key]} is {layers!r}, expected 1 to {_MAX_LAYERS}"
            )
        value = value | {key: {k: v for k, v in section.items() if k in allowed}}
    kept = _THINKER | set(_LAYERS)
    try:
        config = Qwen2_5OmniThinkerConfig(**{k: v for k, v in value.items() if k in kept})
    # The class checks types with errors of several libraries; any of them means a malformed file.
    except Exception as e:
        raise BundleError(f"{where}: not a Qwen2.5-Omni thinker configuration: {e}") from e
    for key in ("vision_start_token_id", "vision_end_token_id"):
        if type(getattr(config, key, None)) is not int:
            raise BundleError(f"{where}: {key} is missing")
    if set(config.text_config.layer_types) != {"full_attention"}:
        raise BundleError(f"{where}: sliding-window attention is not supported")
    if config.audio_config.n_window % 2 or config.audio_config.scale_embedding:
        raise BundleError(f"{where}: an odd n_window or scaled audio embeddings are not supported")
    return config


def _section(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BundleError(f"{where}: expected an object, found {type(value).__name__}")
    return value
