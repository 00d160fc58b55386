"""Checkpoints are data: no code, no kernel, no other directory, no pickle; headers that lie are refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import struct
from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5OmniThinkerConfig, Sam2VideoConfig, Sam2VideoModel

from omni_sdk.errors import BundleError
from omni_sdk.hf import weights
from omni_sdk.hf.sam2_checkpoint import load_model

POISON = {
    "attn_implementation": "evil/kernel",
    "_attn_implementation": "evil/kernel",
    "_attn_implementation_internal": "evil/kernel",
    "_attn_implementation_autoset": True,
    "attn_implementation_internal": "evil/kernel",
    "experts_implementation": "evil/kernel",
    "_experts_implementation": "evil/kernel",
    "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"},
    "trust_remote_code": True,
    "use_kernels": True,
    "kernel_config": {"kernel_mapping": {"RMSNorm": "evil/kernel"}},
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "_name_or_path": "evil/base",
    "base_model_tp_plan": {"evil": "colwise"},
}


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(autouse=True)
def tripwire(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when anything here tries the network."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("tried the network"))


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a random tracker of the real class, as small as it gets."""
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "num_attention_heads": 1,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 1, 1],
        "embed_dim_per_stage": [8, 16, 24, 32],
        "num_attention_heads_per_stage": [1, 1, 1, 1],
        "window_size_per_stage": [4, 4, 2, 2],
        "global_attention_blocks": [2],
        "window_positional_embedding_background_size": [4, 4],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [32, 24, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }
    directory = tmp_path_factory.mktemp("tracker")
    Sam2VideoModel(Sam2VideoConfig(vision_config=vision, image_size=64)).save_pretrained(directory)
    return directory


@pytest.fixture
def copy(tracker: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may spoil."""
    return shutil.copytree(tracker, tmp_path / "copy")


def _poison(value: object) -> object:
    """Put every key into every section."""
    if isinstance(value, dict):
        return {k: _poison(v) for k, v in value.items()} | POISON
    return value


def test_a_poisoned_tracker_config_runs_nothing(copy: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (copy / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Config: pass\n")
    path = copy / "config.json"
    path.write_text(json.dumps(_poison(json.loads(path.read_text()))))
    try:
        model = load_model(copy)
    except BundleError:
        return  # refusing is as good
    finally:
        assert not marker.exists()
    for module in model.modules():
        config = getattr(module, "config", None)
        assert "evil" not in str(getattr(config, "_attn_implementation", ""))
        assert not hasattr(config, "quantization_config")


def test_an_adapter_cannot_redirect_to_another_model(copy: Path) -> None:
    (copy / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere"}')
    with pytest.raises(BundleError, match=r"adapter_config\.json"):
        load_model(copy)


@pytest.mark.parametrize(
    "shard", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin"]
)
def test_shards_lie_inside(copy: Path, shard: str) -> None:
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(BundleError, match="not a plain safetensors file name"):
        load_model(copy)


def test_a_pickle_named_safetensors(copy: Path, tmp_path: Path) -> None:
    path = copy / "model.safetensors"
    for content in (
        pickle.dumps(_Bomb(tmp_path / "ran")),
        pickle.dumps(_Bomb(tmp_path / "ran"), protocol=0),
    ):
        path.write_bytes(content)
        with pytest.raises(BundleError):
            load_model(copy)
        with pytest.raises(BundleError, match="not a safetensors file"):
            weights.load_model(Qwen2_5OmniThinkerConfig(), [path])
    torch.save({"a": _Bomb(tmp_path / "ran")}, path)
    with pytest.raises(BundleError):
        load_model(copy)
    assert not (tmp_path / "ran").exists()


def _safetensors(header: object, data: bytes, length: int | None = None) -> bytes:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return struct.pack("<Q", len(text) if length is None else length) + text + data


F32 = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
LIES = {
    "a header longer than the file": _safetensors({"a": F32}, bytes(16), 1 << 40),
    "a header of 2**64 - 1": _safetensors({"a": F32}, bytes(16), (1 << 64) - 1),
    "data beyond the end": _safetensors({"a": F32}, bytes(8)),
    "a shape that is larger": _safetensors({"a": F32 | {"shape": [1 << 40]}}, bytes(16)),
    "a shape that overflows": _safetensors({"a": F32 | {"shape": [1 << 62, 1 << 62]}}, bytes(16)),
    "offsets backwards": _safetensors({"a": F32 | {"data_offsets": [16, 0]}}, bytes(16)),
    "two tensors on one place": _safetensors({"a": F32, "b": F32}, bytes(16)),
    "an unknown dtype": _safetensors({"a": F32 | {"dtype": "PICKLE"}}, bytes(16)),
    "deep nesting": _safetensors(b"[" * 100_000, b""),
    "not UTF-8": _safetensors(b"\xff\xfe{}", b""),
    "nothing": b"",
}


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie(copy: Path, lie: str) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(LIES[lie])
    with pytest.raises(BundleError):
        load_model(copy)
    with pytest.raises(BundleError):
        weights.load_model(Qwen2_5OmniThinkerConfig(), [path])
