"""safetensors files -> the thinker's parameters, whatever the layout's prefixes; in whole or in parts.

A 7B thinker takes 36 GB in float32. `open_model` gives it without its weights, `fill` and `release` bring
and drop those of one part.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration
from transformers.initialization import no_init_weights

from omni_sdk.errors import BundleError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_SHARD = re.compile(r"[A-Za-z0-9._-]+\.safetensors")
_OTHER_PARTS = ("talker.", "token2wav.")
_MAX_INDEX_BYTES = 64 << 20
# Tables that older versions of transformers saved although they follow from the configuration.
_DERIVED = re.compile(r"inv_freq$|positional_embedding$")
_PREFIXES = (
    (re.compile(r"^thinker\."), ""),
    (re.compile(r"^model\.(visual|audio_tower|language_model)\."), r"\1."),
    (re.compile(r"^model\."), "language_model."),
)


def canonical_name(name: str) -> str:
    """Map a tensor's name in any published layout, or in transformers' class, to one spelling.

    Full checkpoints say `thinker.model.layers..`, thinker-only ones `model.layers..`, transformers 5
    `model.language_model.layers..`; `visual` and `audio_tower` likewise.
    """
    for pattern, replacement in _PREFIXES:
        name = pattern.sub(replacement, name)
    return name


def weight_files(directory: Path) -> list[Path]:
    """List the safetensors files of a checkpoint.

    Raises:
        BundleError: none, only pickles, or an index that names a file elsewhere.
    """
    index = directory / INDEX
    if not index.is_file():
        if (directory / SINGLE).is_file():
            return [directory / SINGLE]
        pickles = sorted(p.name for p in directory.glob("*.bin")) + sorted(
            p.name for p in directory.glob("*.pt*")
        )
        if pickles:
            raise BundleError(
                f"{directory}: only pickled weights ({pickles[0]}), which can run code; convert them "
                "to safetensors"
            )
        raise BundleError(f"{directory}: no {SINGLE} and no {INDEX}")
    if index.stat().st_size > _MAX_INDEX_BYTES:
        raise BundleError(f"{index}: larger than {_MAX_INDEX_BYTES} bytes")
    try:
        names = json.loads(index.read_bytes())["weight_map"].items()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise BundleError(f"{index}: not a weight index ({e!r})") from e
    # Shards that hold nothing of the thinker (speech) need not be there.
    wanted = {shard for name, shard in names if not name.startswith(_OTHER_PARTS)}
    for shard in wanted:
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            raise BundleError(f"{index}: {shard!r} is not a plain safetensors file name")
        if not (directory / shard).is_file():
            raise BundleError(f"{directory}: shard {shard} is missing")
    return [directory / shard for shard in sorted(wanted)]


def load_model(config: Qwen2_5OmniThinkerConfig, files: list[Path]) -> Any:
    """Build the thinker in float32 on the CPU and fill it.

    Raises:
        BundleError: a tensor is missing, unknown, or of another shape.
    """
    model = open_model(config, files)
    fill(model, files)
    return model


def open_model(config: Qwen2_5OmniThinkerConfig, files: list[Path]) -> Any:
    """Build the thinker with parameters on the meta device: shapes, and no memory.

    Names and shapes are compared with the files' headers.

    Raises:
        BundleError: a tensor is missing, unknown, or of another shape.
    """
    stored = _stored(files)
    tied = "lm_head.weight" not in stored and config.text_config.tie_word_embeddings
    # A checkpoint that brings its own head must not share it with the embedding.
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied
    with torch.device("meta"):
        expected = {
            canonical_name(name): tuple(tensor.shape)
            for name, tensor in _build(config).state_dict().items()
        }
    if tied:
        del expected["lm_head.weight"]
    if missing := sorted(expected.keys() - stored.keys()):
        raise BundleError(
            f"{files[0].parent}: {len(missing)} tensors are missing, e.g. {missing[0]}"
        )
    for name, (shape, file) in stored.items():
        if name not in expected:
            raise BundleError(f"{file}: unknown tensor {name}")
        if shape != expected[name]:
            raise BundleError(f"{file}: {name} is {shape}, the configuration says {expected[name]}")
    with no_init_weights(), _parameters_on_meta():
        model = _build(config).eval()
    model.filled_memory = {}  # {name: mmap.mmap} of what `fill` read
    return model


def fill(model: Any, files: list[Path], prefix: str = "") -> None:
    """Read the parameters whose canonical names start with `prefix` in float32; others stay as they are.

    Args:
        model: of `open_model`, with the same files.
        files: the checkpoint's.
        prefix: "visual.", "audio_tower.", "language_model.", "lm_head."; "" for all.
    """
    names = {canonical_name(name): name for name in model.state_dict()}
    for file in files:
        found = {}
        with safe_open(file, framework="pt") as reader:
            for raw in reader.keys():  # noqa: SIM118 (not a mapping)
                name = canonical_name(raw)
                if not name.startswith(prefix) or name not in names or raw.startswith(_OTHER_PARTS):
                    continue
                found[names[name]], memory = _own_memory(reader.get_tensor(raw))
                if memory is not None:
                    model.filled_memory[names[name]] = memory
        model.load_state_dict(found, strict=False, assign=True)
    if model.config.tie_word_embeddings:
        model.tie_weights()


def release(model: Any, prefix: str = "") -> None:
    """Free what `fill` read: the parameters go back to the meta device.

    Their memory goes even where something else still holds the tensors, which then hold zeros: the rules of
    onnxscript's optimiser remember the last graph that they saw, with all its weights.
    """
    filled = {
        name: parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if canonical_name(name).startswith(prefix)
    }
    empty = {name: torch.empty_like(p, device="meta") for name, p in filled.items()}
    model.load_state_dict(empty, strict=False, assign=True)
    for name in filled:
        memory = model.filled_memory.pop(name, None)
        if memory is not None:
            memory.madvise(mmap.MADV_DONTNEED)


def _own_memory(tensor: torch.Tensor) -> tuple[torch.Tensor, mmap.mmap | None]:
    """Copy a tensor in float32 to memory that can be given back whoever holds it.

    A storage cannot: `resize_` refuses it once `numpy()` was asked of it, as exporters do. What is float32
    already stays mapped from its file.
    """
    if tensor.dtype == torch.float32 or not tensor.numel() or sys.platform == "win32":
        return tensor.float(), None
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # pages that are shared, the default, would stay
    memory = mmap.mmap(-1, 4 * tensor.numel(), flags=flags)
    copy = torch.frombuffer(memory, dtype=torch.float32).view(tensor.shape)
    return copy.copy_(tensor), memory


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Register parameters without memory; buffers, which follow from the configuration, are real."""
    register = torch.nn.Module.register_parameter

    def on_meta(module: Any, name: str, parameter: Any) -> None:
        if parameter is not None:
            parameter = torch.nn.Parameter(parameter.to("meta"), parameter.requires_grad)
        register(module, name, parameter)

    torch.nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register


def _build(config: Qwen2_5OmniThinkerConfig) -> Any:
    return Qwen2_5OmniThinkerForConditionalGeneration._from_config(
        config, attn_implementation="sdpa", dtype=torch.float32
    )


def _stored(files: list[Path]) -> dict[str, tuple[tuple[int, ...], Path]]:
    stored: dict[str, tuple[tuple[int, ...], Path]] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as reader:
                for raw in reader.keys():  # noqa: SIM118 (not a mapping)
                    name = canonical_name(raw)
                    if raw.startswith(_OTHER_PARTS) or _DERIVED.search(name):
                        continue
                    if name in stored:
                        raise BundleError(f"{file}: {raw} is there twice")
                    stored[name] = (tuple(reader.get_slice(raw).get_shape()), file)
        except (SafetensorError, OSError) as e:
            raise BundleError(f"{file}: not a safetensors file: {e}") from e
    return stored
