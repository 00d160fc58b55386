"""A random thinker of the real class at a few thousand parameters: smoke runs and tests, nothing else.

Video, sound and text go through the same code as at 7 B; the words mean nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from omni_sdk.grs.request import ThinkerRequest, VisionInput
from omni_sdk.media.clock import Clock
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from omni_training.rewards.truth import ClipTruth

SPECIAL = (
    "<|pad|>", "<|im_start|>", "<|im_end|>", "<|IMAGE|>", "<|VIDEO|>", "<|AUDIO|>",
    "<|vision_bos|>", "<|vision_eos|>", "<|audio_bos|>", "<|audio_eos|>",
)  # fmt: skip
WORDS = (
    "<think>", "</think>", "<answer>", "</answer>", "[]", "user", "assistant",
    *(
        f'[{{"start_time": "{t}", "end_time": "{t}", "description": "a {w}"}}]'
        for t in range(4) for w in ("ball", "box", "dog")
    ),
    *(f"w{i}" for i in range(21)),
)  # fmt: skip
VOCABULARY = {word: i for i, word in enumerate(SPECIAL + WORDS)}
MEL_BINS = 16
PATCH, MERGE, TEMPORAL = 4, 2, 2


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose tokens are whole words; an answer is one token."""
    model = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<|pad|>"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<|pad|>", eos_token="<|im_end|>", padding_side="left"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    return tokenizer


def tiny_config() -> Qwen2_5OmniThinkerConfig:
    """Return a thinker's configuration: two layers of width 32, a windowed and a full vision block."""
    ids = VOCABULARY
    return Qwen2_5OmniThinkerConfig(
        audio_config={
            "num_mel_bins": MEL_BINS, "encoder_layers": 1, "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32, "d_model": 16, "max_source_positions": 64, "n_window": 8,
            "output_dim": 32,
        },
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2,
            "patch_size": PATCH, "spatial_merge_size": MERGE, "temporal_patch_size": TEMPORAL,
            "window_size": 2 * MERGE * PATCH, "out_hidden_size": 32, "fullatt_block_indexes": [1],
        },
        text_config={
            "vocab_size": len(ids), "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
            "max_position_embeddings": 1024, "use_sliding_window": False,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 100.0, "mrope_section": [2, 3, 3],
            },
            "pad_token_id": ids["<|pad|>"], "eos_token_id": ids["<|im_end|>"],
            "tie_word_embeddings": False,
        },
        audio_token_index=ids["<|AUDIO|>"], image_token_index=ids["<|IMAGE|>"],
        video_token_index=ids["<|VIDEO|>"], vision_start_token_id=ids["<|vision_bos|>"],
        vision_end_token_id=ids["<|vision_eos|>"], audio_start_token_id=ids["<|audio_bos|>"],
        audio_end_token_id=ids["<|audio_eos|>"], user_token_id=ids["user"],
        position_id_per_seconds=4, seconds_per_chunk=2, tie_word_embeddings=False,
    )  # fmt: skip


def save_tiny(folder: Path, seed: int = 0, scale: float = 6.0) -> Path:
    """Write a random checkpoint and its tokenizer; the same seed gives the same bytes.

    Args:
        folder: made if needed.
        seed: of the weights.
        scale: factor on every matrix but the embeddings. With transformers' initial 0.02 the logits hardly
            depend on the input, and a test that media matter would prove nothing.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2_5OmniThinkerForConditionalGeneration(tiny_config())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                parameter.mul_(20.0 if "embed_tokens" in name or "lm_head" in name else scale)
    model.generation_config.eos_token_id = VOCABULARY["<|im_end|>"]
    model.generation_config.pad_token_id = VOCABULARY["<|pad|>"]
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


class TinySamples:
    """Samples "0", "1", ...: noise as video and sound, of unequal sizes, with and without sound or video."""

    def __init__(self, thinker: Qwen2_5OmniThinkerForConditionalGeneration) -> None:
        """Keep the model's position rule."""
        self._thinker = thinker

    def request(self, sample_id: str) -> ThinkerRequest:
        """Return a prompt; sample n has 2, 4 or 6 frames and 0, 12, 24 or 36 frames of sound."""
        number = int(sample_id)
        rng = np.random.default_rng(number)
        grid = (1 + number % 3, 4, 4 + 4 * (number % 2))
        sound = 12 * ((number + 1) % 4)
        ids = VOCABULARY
        row = [ids["<|im_start|>"], ids["user"], *rng.integers(29, 50, 1 + number % 5)]
        row += [ids["<|vision_bos|>"], *[ids["<|VIDEO|>"]] * (np.prod(grid) // 4)]
        row += [ids["<|vision_eos|>"]]
        if sound:
            tokens = ((sound - 1) // 2 + 1 - 2) // 2 + 1
            row += [ids["<|audio_bos|>"], *[ids["<|AUDIO|>"]] * tokens, ids["<|audio_eos|>"]]
        row += [*rng.integers(29, 50, 2), ids["<|im_end|>"], ids["<|im_start|>"], ids["assistant"]]
        input_ids = torch.tensor([row])
        positions, _ = self._thinker.model.get_rope_index(
            input_ids,
            None,
            torch.tensor([grid]),
            torch.ones_like(input_ids),
            False,
            torch.tensor([sound]) if sound else None,
            torch.tensor([1.0]),
        )
        pixels = rng.standard_normal((int(np.prod(grid)), 3 * TEMPORAL * PATCH**2))
        mel = (rng.standard_normal((MEL_BINS, sound)).astype(np.float32),) if sound else ()
        return ThinkerRequest(
            input_ids[0].numpy(),
            positions[:, 0].numpy(),
            (VisionInput("video", pixels.astype(np.float32), grid, 1.0),),
            mel,
        )

    def truth(self, sample_id: str) -> ClipTruth:
        """Return one object in the middle of 8 frames."""
        masks = np.zeros((1, 8, 6, 6), bool)
        masks[0, 2:6, 1:4, 1:4] = True
        return ClipTruth.from_masks(masks)

    def clock(self, sample_id: str) -> Clock:
        """Return a virtual 2 fps clock of 8 frames."""
        return Clock(np.arange(8), np.arange(8) / 2, 4.0)

    def clip_id(self, sample_id: str) -> str:
        """Return the sample itself."""
        return sample_id


def tiny_samples(model: str, count: int = 8) -> tuple[list[str], TinySamples]:
    """Return samples for a tiny checkpoint (a `data.factory`)."""
    thinker = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(model)
    return [str(i) for i in range(count)], TinySamples(thinker)
