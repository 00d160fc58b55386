"""The arithmetic that plans of memory share: the runtime's for a bundle, the training's for a run."""

from __future__ import annotations

GB = 1e9
"""Bytes: plans count as the makers of memory do."""
AUDIO_TOKENS_PER_SECOND = 25
"""Of Qwen2.5-Omni's audio tower: 100 mel frames, pooled by 2 twice."""


def key_value_bytes(num_layers: int, kv_width: int, num_tokens: int, bytes_per_value: int) -> int:
    """Return the size of a decoder's key-value cache.

    Args:
        num_layers: of the decoder.
        kv_width: key-value heads times the size of a head.
        num_tokens: in the cache, over all sequences.
        bytes_per_value: 2 for float16 and bfloat16, 4 for float32.
    """
    return 2 * num_layers * kv_width * num_tokens * bytes_per_value


def in_gb(size: float) -> str:
    """Return a size in bytes as text, such as "1.25 GB"."""
    return f"{size / GB:.2f} GB"
