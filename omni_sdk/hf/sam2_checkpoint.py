"""Read a SAM 2 video checkpoint in transformers' layout: config.json and safetensors, nothing executed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import Sam2VideoConfig, Sam2VideoModel

from omni_sdk.bundle.manifest import DusSpec
from omni_sdk.errors import BundleError
from omni_sdk.hf.sam2_modules import image_size
from omni_sdk.hf.weights import weight_files

MAX_CONFIG_BYTES = 1 << 20
MODEL_TYPES = ("sam2_video", "sam2")  # both hold all weights of the video model
# Keys that choose code rather than describe the model.
DROPPED_KEYS = ("auto_map", "quantization_config", "trust_remote_code", "use_kernels")
DROPPED_PREFIXES = tuple(
    f"{underscore}{key}"
    for underscore in ("", "_")
    for key in ("attn_implementation", "experts_implementation", "kernel")
)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def load_config(directory: str | os.PathLike[str]) -> Sam2VideoConfig:
    """Read and check config.json.

    Raises:
        BundleError: no such file, not JSON, too large, not a SAM 2, or settings that the tracker's rules
            do not cover.
    """
    path = Path(directory) / "config.json"
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise BundleError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes")
        value = json.loads(path.read_bytes())
    except OSError as e:
        raise BundleError(
            f"{path}: cannot be read ({e}); expected a transformers checkpoint"
        ) from e
    except (ValueError, RecursionError) as e:
        raise BundleError(f"{path}: not JSON ({e})") from e
    model_type = value.get("model_type") if isinstance(value, dict) else None
    if model_type not in MODEL_TYPES:
        raise BundleError(f"{path}: model_type {model_type!r}, expected one of {MODEL_TYPES}")
    try:
        config = Sam2VideoConfig.from_dict(_clean(value) | {"model_type": "sam2_video"})
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError) as e:
        raise BundleError(f"{path}: not a SAM 2 video configuration ({e})") from e
    _check_rules(path, config)
    return config


def load_model(directory: str | os.PathLike[str]) -> Sam2VideoModel:
    """Load a checkpoint as a float32 model on the CPU, ready for inference.

    Raises:
        BundleError: what `load_config` raises, no safetensors, or weights that do not fit.
    """
    root = Path(directory)
    config = load_config(root)
    if not any(root.glob("*.safetensors")):
        raise BundleError(f"{root}: no .safetensors file (other formats can hold code)")
    weight_files(root)  # shards lie inside
    if (root / "adapter_config.json").exists():  # from_pretrained would follow it to another model
        raise BundleError(f"{root}: holds adapter_config.json; merge the adapter into the weights")
    try:
        # float32 said aloud: a float16 checkpoint otherwise gives a float16 model.
        model, report = Sam2VideoModel.from_pretrained(
            root,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as e:
        raise BundleError(f"{root}: not a SAM 2 video checkpoint ({e})") from e
    if missing := sorted(report["missing_keys"]):
        raise BundleError(
            f"{root}: {len(missing)} weights of the video model are missing, e.g. {missing[0]!r}; an "
            "image-only checkpoint cannot track"
        )
    return model.eval()


def dus_spec(model: Sam2VideoModel, directory: str | os.PathLike[str]) -> DusSpec:
    """Describe a model for the manifest.

    The mean and deviation of pixels are read from the checkpoint's processor file, if there is one, else
    ImageNet's, with which every SAM 2 was trained.
    """
    config = model.config
    processor = _processor(Path(directory))
    mean = processor.get("image_mean", IMAGENET_MEAN)
    std = processor.get("image_std", IMAGENET_STD)
    return DusSpec(
        image_size=image_size(model),
        image_mean=(float(mean[0]), float(mean[1]), float(mean[2])),
        image_std=(float(std[0]), float(std[1]), float(std[2])),
        hidden_size=config.vision_config.fpn_hidden_size,
        memory_size=config.memory_encoder_output_channels,
        num_memories=config.num_maskmem,
        max_object_pointers=config.max_object_pointers_in_encoder,
        no_memory_embedding="dus/no_memory_embedding.npy",
    )


def _check_rules(path: Path, config: Sam2VideoConfig) -> None:
    """Settings that every published checkpoint shares and the tracker's rules assume."""
    expected = {
        "multimask_output_in_sam": True,
        "multimask_output_for_tracking": True,
        "multimask_min_pt_num": 0,
        "multimask_max_pt_num": 1,
    }
    for name, value in expected.items():
        if getattr(config, name) != value:
            raise BundleError(f"{path}: {name} is {getattr(config, name)!r}, expected {value!r}")
    if not 2 <= config.num_maskmem <= 64 or not 2 <= config.max_object_pointers_in_encoder <= 1024:
        raise BundleError(
            f"{path}: num_maskmem {config.num_maskmem} or max_object_pointers_in_encoder "
            f"{config.max_object_pointers_in_encoder} out of range"
        )


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            k: _clean(v)
            for k, v in value.items()
            if k not in DROPPED_KEYS and not k.startswith(DROPPED_PREFIXES)
        }
    return value


def _processor(directory: Path) -> dict[str, Any]:
    for name in ("video_preprocessor_config.json", "preprocessor_config.json"):
        path = directory / name
        if path.is_file() and path.stat().st_size <= MAX_CONFIG_BYTES:
            try:
                value = json.loads(path.read_bytes())
            except (ValueError, RecursionError) as e:
                raise BundleError(f"{path}: not JSON ({e})") from e
            if isinstance(value, dict):
                return value
    return {}
