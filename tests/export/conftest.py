"""Small random checkpoints in exactly the published layouts, and one export of them for the session."""

import copy
import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch
from omni_export.bundle_writer import ExportOptions, export_bundle
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

from omni_sdk.bundle.bundle import Bundle
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.grs.thinker import GraphThinker
from omni_sdk.hf.thinker import HfThinker

SPECIAL = {
    name: 256 + i
    for i, name in enumerate(
        [
            "<|endoftext|>",
            "<|im_start|>",
            "<|im_end|>",
            "<|AUDIO|>",
            "<|audio_bos|>",
            "<|audio_eos|>",
            "<|vision_bos|>",
            "<|vision_eos|>",
            "<|IMAGE|>",
            "<|VIDEO|>",
        ]
    )
}
# The keys of Qwen/Qwen2.5-Omni-7B's files, with small numbers.
THINKER_CONFIG = {
    "model_type": "qwen2_5_omni_thinker",
    "architectures": ["Qwen2OmniNaViTThinkerForConditionalGeneration"],
    "audio_config": {
        "model_type": "qwen2_5_omni_audio_encoder",
        "num_mel_bins": 128,
        "encoder_layers": 2,
        "num_hidden_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "d_model": 32,
        "embed_dim": 32,
        "max_source_positions": 1500,
        "n_window": 100,
        "output_dim": 64,
        "scale_embedding": False,
    },
    "vision_config": {
        "model_type": "qwen2_5_omni_vision_encoder",
        "depth": 2,
        "embed_dim": 32,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 4,
        "in_channels": 3,
        "in_chans": 3,
        "patch_size": 14,
        "spatial_patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 25,
    },
    "text_config": {
        "model_type": "qwen2_5_omni_text",
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "max_window_layers": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_scaling": {"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"},
        "sliding_window": 32768,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "init_std": 0.02,
    },
    "audio_token_index": SPECIAL["<|AUDIO|>"],
    "image_token_index": SPECIAL["<|IMAGE|>"],
    "video_token_index": SPECIAL["<|VIDEO|>"],
    "audio_start_token_id": SPECIAL["<|audio_bos|>"],
    "audio_end_token_id": SPECIAL["<|audio_eos|>"],
    "vision_start_token_id": SPECIAL["<|vision_bos|>"],
    "vision_end_token_id": SPECIAL["<|vision_eos|>"],
    "pad_token_id": SPECIAL["<|endoftext|>"],
    "position_id_per_seconds": 25,
    "seconds_per_chunk": 2,
    "user_token_id": 117,
}
PREPROCESSOR = {
    "chunk_length": 300,
    "dither": 0.0,
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 128,
    "hop_length": 160,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "Qwen2VLImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "max_pixels": 12845056,
    "merge_size": 2,
    "min_pixels": 3136,
    "n_fft": 400,
    "n_samples": 4800000,
    "nb_max_frames": 30000,
    "padding_side": "left",
    "padding_value": 0.0,
    "patch_size": 14,
    "processor_class": "Qwen2_5OmniProcessor",
    "return_attention_mask": True,
    "sampling_rate": 16000,
    "temporal_patch_size": 2,
}


def _tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    assert all(tokenizer.token_to_id(name) == i for name, i in SPECIAL.items())
    return tokenizer


def _weights() -> dict[str, torch.Tensor]:
    """Random weights under the published names."""
    torch.manual_seed(0)
    config = Qwen2_5OmniThinkerConfig(**copy.deepcopy(THINKER_CONFIG))
    model = Qwen2_5OmniThinkerForConditionalGeneration._from_config(config)
    published = {}
    for name, tensor in model.state_dict().items():
        # transformers' initial scale (0.02) makes every prompt give the same token over and over.
        scale = 1.0 if tensor.ndim < 2 else 40.0 if "embed" in name else 5.0
        for new, old in (
            ("visual", "visual"),
            ("audio_tower", "audio_tower"),
            ("language_model", "model"),
        ):
            name = name.replace(f"model.{new}.", f"{old}.")
        published[name] = (tensor * scale).to(torch.bfloat16).contiguous()
    return published


def _write_common(directory):
    (directory / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    (directory / "README.md").write_text(
        "---\nlibrary_name: transformers\nlicense: apache-2.0\n---\n# x\n"
    )
    _tokenizer().save(str(directory / "tokenizer.json"))


@pytest.fixture(scope="session")
def thinker_checkpoint(tmp_path_factory):
    """Omni-R1's layout: the thinker alone, one file."""
    directory = tmp_path_factory.mktemp("checkpoints") / "omni-r1-tiny"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(THINKER_CONFIG))
    save_file(_weights(), directory / "model.safetensors", metadata={"format": "pt"})
    _write_common(directory)
    return directory


@pytest.fixture(scope="session")
def full_checkpoint(tmp_path_factory):
    """Qwen2.5-Omni's layout: `thinker_config`, tensors under `thinker.`, shards and an index."""
    directory = tmp_path_factory.mktemp("checkpoints") / "qwen-omni-tiny"
    directory.mkdir()
    config = {
        "architectures": ["Qwen2_5OmniModel"],
        "model_type": "qwen2_5_omni",
        "enable_audio_output": True,
        "thinker_config": THINKER_CONFIG,
        "talker_config": {"model_type": "qwen2_5_omni_talker", "hidden_size": 8},
        "token2wav_config": {"model_type": "qwen2_5_omni_token2wav"},
    }
    (directory / "config.json").write_text(json.dumps(config))
    tensors = {f"thinker.{name}": tensor for name, tensor in _weights().items()}
    names = sorted(tensors)
    tensors["talker.model.norm.weight"] = torch.ones(8)
    shards = {
        "model-00001-of-00003.safetensors": names[: len(names) // 2],
        "model-00002-of-00003.safetensors": [*names[len(names) // 2 :], "talker.model.norm.weight"],
    }
    index = {name: shard for shard, members in shards.items() for name in members}
    # Speech weights are not needed, nor is the shard that holds nothing else.
    index["token2wav.code2wav_bigvgan_model.conv_pre.weight"] = "model-00003-of-00003.safetensors"
    for shard, members in shards.items():
        save_file(
            {name: tensors[name] for name in members}, directory / shard, metadata={"format": "pt"}
        )
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": index})
    )
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": 258}))
    _write_common(directory)
    return directory


@pytest.fixture(scope="session")
def exported(full_checkpoint, sam2_checkpoint, tmp_path_factory):
    """The one export of the session, both halves: directory, manifest and the lines of progress."""
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    lines = []
    options = ExportOptions(grs=str(full_checkpoint), dus=str(sam2_checkpoint))
    manifest = export_bundle(out, options, lines.append)
    return SimpleNamespace(directory=out, manifest=manifest, progress=lines)


@pytest.fixture(scope="session")
def bundle(exported):
    return Bundle.open(exported.directory)


@pytest.fixture(scope="session")
def loader():
    return OnnxLoader("cpu", threads=1)


@pytest.fixture(scope="session")
def endless(bundle):
    """The bundle with no end token, so that completions of random weights have a fixed length."""
    tokens = dataclasses.replace(bundle.grs.tokens, eos=())
    grs = dataclasses.replace(bundle.grs, tokens=tokens)
    return Bundle(bundle.directory, dataclasses.replace(bundle.manifest, grs=grs))


@pytest.fixture(scope="session")
def graphs(endless, loader):
    return GraphThinker(loader, endless)


@pytest.fixture(scope="session")
def reference(endless, thinker_checkpoint):
    """transformers' generate on the same weights, read from the other layout."""
    thinker = HfThinker.from_checkpoint(thinker_checkpoint)
    thinker.spec = endless.grs
    return thinker
