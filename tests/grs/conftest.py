"""Settings and oracles shared by the tests of the reasoner's processing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from omni_sdk.bundle.manifest import (
    AudioSpec,
    DecoderSpec,
    GrsSpec,
    PromptSpec,
    SamplingSpec,
    TokenSpec,
    VisionSpec,
)
from omni_sdk.grs.prompts import QWEN_SYSTEM

SPECIALS = [
    f"<|{name}|>"
    for name in (
        *("endoftext", "im_start", "im_end", "AUDIO", "audio_bos", "audio_eos"),
        *("vision_bos", "vision_eos", "vision_pad", "IMAGE", "VIDEO"),
    )
]


@pytest.fixture(scope="session")
def vision_spec() -> VisionSpec:
    """The published checkpoints' (CLIP mean and deviation)."""
    return VisionSpec(
        patch_size=14,
        merge_size=2,
        temporal_patch_size=2,
        window_size=112,
        image_mean=(0.48145466, 0.4578275, 0.40821073),
        image_std=(0.26862954, 0.26130258, 0.27577711),
        video_pixels=(16 * 28 * 28, 128 * 28 * 28),
        image_pixels=(64 * 28 * 28, 900 * 28 * 28),
    )


@pytest.fixture(scope="session")
def audio_spec() -> AudioSpec:
    return AudioSpec(
        sampling_rate=16000,
        n_fft=400,
        hop_length=160,
        num_mel_bins=128,
        chunk_seconds=300,
        n_window=100,
        max_seconds=300.0,
    )


@pytest.fixture(scope="session")
def nano_audio_spec() -> AudioSpec:
    return AudioSpec(
        sampling_rate=16000,
        n_fft=2048,
        hop_length=2000,
        num_mel_bins=32,
        chunk_seconds=8,
        n_window=32,
        max_seconds=8.0,
    )


def make_tokenizer() -> Tokenizer:
    """A small byte-level BPE tokenizer with Qwen's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    text = (
        "<think> a </think><answer>start_time end_time description</answer> system user assistant"
    )
    tokenizer.train_from_iterator([text + " the dog barks at the red car"] * 4, trainer)
    return tokenizer


@pytest.fixture
def tokenizer() -> Tokenizer:
    return make_tokenizer()


@pytest.fixture(scope="session")
def tokens() -> TokenSpec:
    ids = {text: i for i, text in enumerate(SPECIALS)}
    return TokenSpec(
        pad=ids["<|endoftext|>"],
        eos=(ids["<|im_end|>"],),
        image=ids["<|IMAGE|>"],
        video=ids["<|VIDEO|>"],
        audio=ids["<|AUDIO|>"],
        vision_start=ids["<|vision_bos|>"],
        vision_end=ids["<|vision_eos|>"],
        audio_start=ids["<|audio_bos|>"],
        audio_end=ids["<|audio_eos|>"],
        suppress=(ids["<|IMAGE|>"], ids["<|VIDEO|>"], ids["<|AUDIO|>"]),
    )


@pytest.fixture(scope="session")
def decoder_spec() -> DecoderSpec:
    return DecoderSpec(
        hidden_size=64,
        num_layers=2,
        num_kv_heads=2,
        head_dim=16,
        vocab_size=400,
        max_positions=4096,
        position_id_per_seconds=25,
        seconds_per_chunk=2.0,
    )


@pytest.fixture(scope="session")
def spec(
    vision_spec: VisionSpec, audio_spec: AudioSpec, tokens: TokenSpec, decoder_spec: DecoderSpec
) -> GrsSpec:
    """Omni-R1's settings, with sound interleaved, on the small tokenizer."""
    return GrsSpec(
        vision=vision_spec,
        audio=audio_spec,
        tokens=tokens,
        decoder=decoder_spec,
        sampling=SamplingSpec(2.0, 8, 24, "linspace", 2.0, True, "omit"),
        prompts=PromptSpec(QWEN_SYSTEM, "omni-r1", "qwen-ask", "omni-r1-ground", 512, 128),
    )


@pytest.fixture(scope="session")
def nano_directory(shared: Path) -> Path:
    """The small trained thinker."""
    return shared / "nano" / "thinker"


@pytest.fixture(scope="session")
def nano_spec(spec: GrsSpec, nano_audio_spec: AudioSpec) -> GrsSpec:
    return replace(
        spec,
        vision=VisionSpec(8, 2, 2, 48, (0.5,) * 3, (0.5,) * 3, (48 * 48,) * 2, (96 * 96,) * 2),
        audio=nano_audio_spec,
        tokens=TokenSpec(0, (2,), 9, 7, 8, 3, 4, 5, 6, (7, 8, 9)),
        decoder=DecoderSpec(128, 6, 2, 32, 268, 1024, 2, 2.0),
        sampling=SamplingSpec(2.0, 16, 16, "bins", 2.0, False, "silence"),
        prompts=PromptSpec(None, "nano", "nano", "omni-r1-ground", 64, 24),
    )


@pytest.fixture(scope="session")
def rope_oracle():
    """transformers' thinker with the real position settings; its weights are never touched."""
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    ids = {text: i for i, text in enumerate(SPECIALS)}
    config = Qwen2_5OmniThinkerConfig(
        audio_config={
            "num_mel_bins": 128,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 16,
            "d_model": 16,
            "output_dim": 32,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        },
        text_config={
            "vocab_size": 400,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [2, 3, 3],
            },
        },
        audio_token_index=ids["<|AUDIO|>"],
        image_token_index=ids["<|IMAGE|>"],
        video_token_index=ids["<|VIDEO|>"],
        audio_start_token_id=ids["<|audio_bos|>"],
        audio_end_token_id=ids["<|audio_eos|>"],
        vision_start_token_id=ids["<|vision_bos|>"],
        vision_end_token_id=ids["<|vision_eos|>"],
        position_id_per_seconds=25,
        seconds_per_chunk=2,
    )
    return Qwen2_5OmniThinkerForConditionalGeneration._from_config(config).model
