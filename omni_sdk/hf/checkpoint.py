"""A thinker's checkpoint: found on disk or on the hub, read without running anything of it.

Layouts: Omni-R1's thinker-only folder; Qwen2.5-Omni's full folder (`thinker_config`, tensors under
`thinker.`, shards with an index); the project's small thinkers (the thinker-only layout with a
preprocessor_config.json of their own keys).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import Qwen2_5OmniThinkerConfig

from omni_sdk.bundle.hub import resolve
from omni_sdk.bundle.manifest import (
    AudioSpec,
    DecoderSpec,
    GrsSpec,
    SourceSpec,
    TokenSpec,
    VisionSpec,
)
from omni_sdk.errors import BundleError
from omni_sdk.grs.processor import load_tokenizer
from omni_sdk.hf.config import thinker_config
from omni_sdk.hf.presets import NANO, QWEN_OMNI, Preset
from omni_sdk.hf.weights import fill, open_model, release, weight_files

_MAX_JSON_BYTES = 4 << 20
_MAX_NANO_SIDE = 1024
HUB_FILES = ("*.json", "*.safetensors", "README.md")
"""What is fetched of a checkpoint on the hub; nothing of it can run."""
_END_TOKENS = ("<|im_end|>", "<|endoftext|>")
_PAD_TOKENS = ("<|endoftext|>", "<|pad|>")
_LICENSE = re.compile(r"^license(_name)?:[ \t]*['\"]?([A-Za-z0-9. +-]{1,64})", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ThinkerCheckpoint:
    """A thinker, with its weights or able to read them in parts.

    Attributes:
        model: Qwen2_5OmniThinkerForConditionalGeneration, float32, on the CPU, in eval mode.
        spec: all its settings.
        tokenizer: path of its tokenizer.json.
        source: where it came from.
        files: its weights.
    """

    model: Any
    spec: GrsSpec
    tokenizer: Path
    source: SourceSpec
    files: tuple[Path, ...]

    @property
    def num_bytes(self) -> int:
        """Of all weights in float32."""
        return 4 * sum(int(p.numel()) for p in self.model.parameters())

    @contextlib.contextmanager
    def weights(self, *prefixes: str) -> Iterator[None]:
        """Hold some of the weights of a thinker that was opened without: see `omni_sdk.hf.weights.fill`."""
        try:
            for prefix in prefixes:
                fill(self.model, list(self.files), prefix)
            yield
        finally:
            for prefix in prefixes:
                release(self.model, prefix)


def load_thinker(
    source: str | Path, *, revision: str | None = None, local_files_only: bool = False
) -> ThinkerCheckpoint:
    """Read a checkpoint's settings and weights.

    Args:
        source: a directory, or a hub id.
        revision: branch, tag or commit on the hub.
        local_files_only: never use the network.

    Raises:
        BundleError: missing or malformed files, pickled weights, another architecture.
    """
    checkpoint = open_thinker(source, revision=revision, local_files_only=local_files_only)
    fill(checkpoint.model, list(checkpoint.files))
    return checkpoint


def open_thinker(
    source: str | Path, *, revision: str | None = None, local_files_only: bool = False
) -> ThinkerCheckpoint:
    """Read a checkpoint's settings; its model has no weights until `ThinkerCheckpoint.weights` reads some.

    Args and errors as of `load_thinker`.
    """
    directory = resolve(
        source, revision=revision, local_files_only=local_files_only, allow_patterns=HUB_FILES
    )
    spec, config = _read(directory)
    files = weight_files(directory)
    return ThinkerCheckpoint(
        model=open_model(config, files),
        spec=spec,
        tokenizer=directory / "tokenizer.json",
        source=SourceSpec(
            checkpoint=directory.name if Path(source).is_dir() else str(source),
            revision=revision,
            license=license_of(directory),
        ),
        files=tuple(files),
    )


def read_spec(directory: Path) -> GrsSpec:
    """Read a checkpoint's settings, without its weights.

    Raises:
        BundleError: missing or malformed files, or another architecture.
    """
    return _read(directory)[0]


def license_of(directory: Path) -> str:
    """Return what the model card's header says of the licence, or "unknown"."""
    card = directory / "README.md"
    if not card.is_file():
        return "unknown"
    header = card.read_bytes()[:65536].decode("utf-8", "replace").split("---")
    found = {m[1]: m[2].strip() for m in _LICENSE.finditer(header[1])} if len(header) > 2 else {}
    return found.get("_name") or found.get(None) or "unknown"


def _read(directory: Path) -> tuple[GrsSpec, Qwen2_5OmniThinkerConfig]:
    config = thinker_config(_read_json(directory / "config.json"), str(directory / "config.json"))
    path = directory / "preprocessor_config.json"
    value = _read_json(path)
    try:
        nano = "tpatch" in value
        preset, plain = (_nano_preset(value), _from_nano(value)) if nano else (QWEN_OMNI, value)
        vision = _vision(config, plain, preset)
        audio = _audio(config, plain, preset)
    except (KeyError, TypeError, ValueError) as e:
        raise BundleError(f"{path}: missing or malformed setting {e}") from e
    if (plain["patch_size"], plain["merge_size"], plain["temporal_patch_size"]) != (
        config.vision_config.patch_size,
        config.vision_config.spatial_merge_size,
        config.vision_config.temporal_patch_size,
    ) or plain["feature_size"] != config.audio_config.num_mel_bins:
        raise BundleError(f"{path}: patches or mel bins differ from config.json's")
    spec = GrsSpec(
        vision, audio, _tokens(config, directory), _decoder(config), preset.sampling, preset.prompts
    )
    return spec, config


def _from_nano(value: dict[str, Any]) -> dict[str, Any]:
    """Spell the small checkpoints' settings as transformers' processors do."""
    return {
        "patch_size": value["patch"],
        "merge_size": value["merge"],
        "temporal_patch_size": value["tpatch"],
        "image_mean": [value["mean"]] * 3,
        "image_std": [value["std"]] * 3,
        "n_fft": value["n_fft"],
        "hop_length": value["hop"],
        "feature_size": value["mels"],
        "sampling_rate": value["sr"],
        "chunk_length": round(value["frames"] / value["fps"]),
    }


def _nano_preset(value: dict[str, Any]) -> Preset:
    """Return the small checkpoints' preset with the sizes at which this one was trained."""
    low, high = int(value["image_size_lo"]), int(value["image_size_hi"])
    if not (1 <= low <= _MAX_NANO_SIDE and 1 <= high <= _MAX_NANO_SIDE):
        raise ValueError(f"image_size_lo or image_size_hi, expected 1 to {_MAX_NANO_SIDE}")
    # One pixel of slack: with none, rounding in `smart_resize` shrinks some square sources (350 x 350 to
    # 128 instead of 144) by a whole token.
    return dataclasses.replace(
        NANO, video_pixels=(low * low, low * low + 1), image_pixels=(high * high, high * high + 1)
    )


def _vision(config: Any, value: dict[str, Any], preset: Preset) -> VisionSpec:
    mean, std = ([float(x) for x in value[key]] for key in ("image_mean", "image_std"))
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError("image_mean or image_std")
    return VisionSpec(
        patch_size=int(value["patch_size"]),
        merge_size=int(value["merge_size"]),
        temporal_patch_size=int(value["temporal_patch_size"]),
        window_size=int(config.vision_config.window_size),
        image_mean=(mean[0], mean[1], mean[2]),
        image_std=(std[0], std[1], std[2]),
        video_pixels=preset.video_pixels,
        image_pixels=preset.image_pixels,
    )


def _audio(config: Any, value: dict[str, Any], preset: Preset) -> AudioSpec:
    return AudioSpec(
        sampling_rate=int(value["sampling_rate"]),
        n_fft=int(value["n_fft"]),
        hop_length=int(value["hop_length"]),
        num_mel_bins=int(value["feature_size"]),
        chunk_seconds=int(value["chunk_length"]),
        n_window=int(config.audio_config.n_window),
        max_seconds=preset.max_seconds,
    )


def _tokens(config: Any, directory: Path) -> TokenSpec:
    tokenizer = load_tokenizer(directory / "tokenizer.json")
    path = directory / "generation_config.json"
    stated = _read_json(path).get("eos_token_id") if path.is_file() else None
    eos = {i for i in (stated if isinstance(stated, list) else [stated]) if type(i) is int}
    eos |= {i for t in _END_TOKENS if (i := tokenizer.token_to_id(t)) is not None}
    pads = [config.text_config.pad_token_id, *(tokenizer.token_to_id(t) for t in _PAD_TOKENS)]
    pad = next((i for i in pads if i is not None and i >= 0), None)
    if not eos or pad is None:
        raise BundleError(f"{directory}: no end token or no padding token is named")
    media = {
        "image": config.image_token_id,
        "video": config.video_token_id,
        "audio": config.audio_token_id,
        "vision_start": config.vision_start_token_id,
        "vision_end": config.vision_end_token_id,
        "audio_start": config.audio_start_token_id,
        "audio_end": config.audio_end_token_id,
    }
    if max(*eos, pad, *media.values()) >= config.text_config.vocab_size:
        raise BundleError(f"{directory}: a token id exceeds the vocabulary")
    suppress = ({*media.values(), pad}) - eos
    return TokenSpec(pad=pad, eos=tuple(sorted(eos)), suppress=tuple(sorted(suppress)), **media)


def _decoder(config: Any) -> DecoderSpec:
    text = config.text_config
    return DecoderSpec(
        hidden_size=text.hidden_size,
        num_layers=text.num_hidden_layers,
        num_kv_heads=text.num_key_value_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        vocab_size=text.vocab_size,
        max_positions=text.max_position_embeddings,
        position_id_per_seconds=config.position_id_per_seconds,
        seconds_per_chunk=float(config.seconds_per_chunk),
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BundleError(f"{path}: missing")
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise BundleError(f"{path}: larger than {_MAX_JSON_BYTES} bytes")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as e:
        raise BundleError(f"{path}: not JSON ({e})") from e
    if not isinstance(value, dict):
        raise BundleError(f"{path}: expected an object, found {type(value).__name__}")
    return value
