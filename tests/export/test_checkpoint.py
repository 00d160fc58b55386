"""Published layouts are read; nothing in them runs; what is wrong with them is said."""

import copy
import json
import os
import pickle
import shutil
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file

from omni_sdk.errors import BundleError
from omni_sdk.hf.checkpoint import load_thinker, open_thinker, read_spec
from omni_sdk.hf.presets import NANO, QWEN_OMNI
from omni_sdk.hf.weights import canonical_name


@pytest.fixture
def checkpoint(thinker_checkpoint, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(thinker_checkpoint, tmp_path / "copy")


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_both_layouts_give_the_same_model(thinker_checkpoint, full_checkpoint):
    alone, full = load_thinker(thinker_checkpoint), load_thinker(str(full_checkpoint))
    a, b = alone.model.state_dict(), full.model.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert {t.dtype for t in a.values()} == {torch.float32}
    assert alone.spec == full.spec == read_spec(full_checkpoint)
    assert (full.source.checkpoint, full.source.license) == ("qwen-omni-tiny", "apache-2.0")
    assert full.tokenizer == full_checkpoint / "tokenizer.json"
    assert not alone.model.training


def test_settings(full_checkpoint):
    spec = read_spec(full_checkpoint)
    assert (spec.vision.patch_size, spec.vision.window_size) == (14, 112)
    assert spec.vision.video_pixels == (16 * 784, 128 * 784)
    assert spec.vision.image_pixels == (64 * 784, 900 * 784)
    assert spec.vision.image_mean == (0.48145466, 0.4578275, 0.40821073)
    assert (spec.audio.num_mel_bins, spec.audio.hop_length, spec.audio.chunk_seconds) == (
        128,
        160,
        300,
    )
    assert spec.audio.n_window == 100
    assert (spec.tokens.eos, spec.tokens.pad, spec.tokens.video) == ((256, 258), 256, 265)
    assert spec.tokens.suppress == (259, 260, 261, 262, 263, 264, 265)
    assert (spec.decoder.head_dim, spec.decoder.max_positions) == (16, 2048)
    assert (spec.sampling, spec.prompts) == (QWEN_OMNI.sampling, QWEN_OMNI.prompts)


def test_small_checkpoints_settings(checkpoint):
    nano = {
        "patch": 14,
        "merge": 2,
        "tpatch": 2,
        "mean": 0.5,
        "std": 0.5,
        "n_fft": 2048,
        "hop": 2000,
    }
    nano |= {
        "mels": 128,
        "sr": 16000,
        "image_size_lo": 48,
        "image_size_hi": 96,
        "fps": 2.0,
        "frames": 16,
    }
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(nano))
    spec = read_spec(checkpoint)
    assert (spec.sampling, spec.prompts) == (NANO.sampling, NANO.prompts)
    assert (spec.audio.n_fft, spec.audio.hop_length, spec.audio.chunk_seconds) == (2048, 2000, 8)
    assert (spec.vision.video_pixels, spec.vision.image_pixels) == ((2304, 2305), (9216, 9217))
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(nano | {"image_size_hi": 144}))
    assert read_spec(checkpoint).vision.image_pixels == (20736, 20737)
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(nano | {"image_size_hi": -96}))
    with pytest.raises(BundleError, match="image_size_hi"):
        read_spec(checkpoint)


def test_every_spelling_of_a_name():
    for name in ("thinker.model.layers.0.x", "model.layers.0.x", "model.language_model.layers.0.x"):
        assert canonical_name(name) == "language_model.layers.0.x"
    for name in ("thinker.visual.blocks.0.x", "visual.blocks.0.x", "model.visual.blocks.0.x"):
        assert canonical_name(name) == "visual.blocks.0.x"
    assert (
        canonical_name("thinker.lm_head.weight")
        == canonical_name("lm_head.weight")
        == "lm_head.weight"
    )


POISON = {
    "attn_implementation": "evil/kernel",
    "_attn_implementation": "evil/kernel",
    "_attn_implementation_internal": "evil/kernel",
    "attn_implementation_internal": "evil/kernel",
    "experts_implementation": "evil/kernel",
    "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"},
    "trust_remote_code": True,
    "use_kernels": True,
    "kernel_config": {"kernel_mapping": {"RMSNorm": "evil/kernel"}},
    "quantization_config": {"quant_method": "evil", "modules_to_not_convert": None},
}


def test_poisoned_config_runs_nothing(checkpoint, tmp_path, monkeypatch):
    marker = tmp_path / "ran"
    (checkpoint / "evil.py").write_text(
        f"open({str(marker)!r}, 'w')\nclass Config: pass\nclass Model: pass\n"
    )
    (checkpoint / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/base"}')

    def poison(value):
        for key in ("text_config", "vision_config", "audio_config"):
            value[key].update(copy.deepcopy(POISON))
        value.update(copy.deepcopy(POISON))

    edit(checkpoint / "config.json", poison)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("tried the network"))
    model = load_thinker(checkpoint).model
    configs = [
        model.config,
        *(getattr(model.config, f"{k}_config") for k in ("text", "vision", "audio")),
    ]
    assert {c._attn_implementation for c in configs} == {"sdpa"}
    assert not any(
        hasattr(c, key)
        for c in configs
        for key in ("auto_map", "quantization_config", "kernel_config")
    )
    assert not marker.exists()


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickles_are_refused_by_name(checkpoint, tmp_path):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"no model\.safetensors"):
        load_thinker(checkpoint)
    (checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(str(tmp_path / "ran"))))
    with pytest.raises(BundleError, match=r"pytorch_model\.bin.*safetensors"):
        load_thinker(checkpoint)
    assert not (tmp_path / "ran").exists()
    shutil.move(checkpoint / "pytorch_model.bin", checkpoint / "model.safetensors")
    with pytest.raises(BundleError, match="not a safetensors file"):
        load_thinker(checkpoint)
    assert not (tmp_path / "ran").exists()


def _weights(change):
    def spoil(directory):
        tensors = load_file(directory / "model.safetensors")
        change(tensors)
        save_file(tensors, directory / "model.safetensors")

    return spoil


def _config(change):
    return lambda directory: edit(directory / "config.json", change)


def _write(name, text):
    return lambda directory: (directory / name).write_text(text)


def _index(shard):
    return _write(
        "model.safetensors.index.json", json.dumps({"weight_map": {"lm_head.weight": shard}})
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_weights(lambda t: t.pop("lm_head.weight")), "1 tensors are missing, e.g. lm_head.weight"),
        (_weights(lambda t: t.update(evil=torch.ones(1))), "unknown tensor evil"),
        (
            _weights(lambda t: t.update({"lm_head.weight": torch.ones(300, 63)})),
            r"\(300, 63\).*\(300, 64\)",
        ),
        (_weights(lambda t: t.update({"thinker.lm_head.weight": torch.ones(300, 64)})), "twice"),
        (_config(lambda c: c["text_config"].update(vocab_size=10**12)), "configuration says"),
        (
            _config(lambda c: c["text_config"].update(num_hidden_layers=10**9)),
            "num_hidden_layers is 1000000000",
        ),
        (
            _config(lambda c: c["text_config"].update(hidden_size="64")),
            "not a Qwen2.5-Omni thinker",
        ),
        (
            _config(
                lambda c: c["text_config"].update(use_sliding_window=True, max_window_layers=1)
            ),
            "sliding",
        ),
        (_config(lambda c: c["audio_config"].update(n_window=99)), "n_window"),
        (
            _config(lambda c: c.pop("vision_config")),
            "vision_config: expected an object, found NoneType",
        ),
        (_config(lambda c: c.pop("vision_start_token_id")), "vision_start_token_id is missing"),
        (_config(lambda c: c.update(audio_token_index=300)), "exceeds the vocabulary"),
        (_config(lambda c: c["vision_config"].update(patch_size=16)), "differ from config.json"),
        (_write("config.json", "[1]"), "expected an object, found list"),
        (_write("config.json", "{"), "not JSON"),
        (_write("config.json", "[" * 100_000), "not JSON"),
        (_write("preprocessor_config.json", "{}"), "missing or malformed setting"),
        (_write("tokenizer.json", "{}"), "tokenizer"),
        (lambda d: (d / "tokenizer.json").unlink(), "tokenizer"),
        (lambda d: (d / "config.json").unlink(), "config.json: missing"),
        (_index("../model.safetensors"), "not a plain safetensors file name"),
        (_index("/etc/passwd"), "not a plain safetensors file name"),
        (_index(7), "not a plain safetensors file name"),
        (_index("other.safetensors"), "shard other.safetensors is missing"),
        (_write("model.safetensors.index.json", "{}"), "not a weight index"),
    ],
)
def test_what_is_wrong_is_said(checkpoint, spoil, message):
    spoil(checkpoint)
    with pytest.raises(BundleError, match=message):
        load_thinker(checkpoint)


def test_no_such_checkpoint(tmp_path):
    with pytest.raises(BundleError, match="not a directory"):
        load_thinker(str(tmp_path / "nothing here"))


def test_tied_embeddings(checkpoint):
    edit(checkpoint / "config.json", lambda c: c["text_config"].update(tie_word_embeddings=True))
    own = load_thinker(checkpoint).model  # a head of its own wins over the flag
    assert not torch.equal(own.lm_head.weight, own.get_input_embeddings().weight)
    _weights(lambda t: t.pop("lm_head.weight"))(checkpoint)
    tied = load_thinker(checkpoint).model
    assert torch.equal(tied.lm_head.weight, tied.get_input_embeddings().weight)


def test_weights_are_freed_whoever_holds_them(thinker_checkpoint):
    """Tracers keep what they traced, and look at it as arrays: 14 GiB of a 3B thinker's decoder."""
    checkpoint = open_thinker(thinker_checkpoint)
    model = checkpoint.model
    with checkpoint.weights("visual.", "lm_head."):
        weight = model.model.visual.blocks[0].mlp.gate_proj.weight
        before, held = weight.clone(), [weight.detach(), weight.detach().numpy()]
        assert before.any()
    assert not any(item.any() for item in held)  # pages that were given back read as zeros
    assert not model.filled_memory
    with checkpoint.weights("visual."):
        assert torch.equal(model.model.visual.blocks[0].mlp.gate_proj.weight, before)
