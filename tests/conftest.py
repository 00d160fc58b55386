"""What several parts test with: the real material, and a small random SAM 2.1 in the published layout."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from transformers import Sam2VideoConfig, Sam2VideoModel

    from omni_sdk import Pipeline
    from omni_sdk.demo.clip import SceneTruth

SIDE = 128

os.environ["OMP_NUM_THREADS"] = "1"
"""Read by torch when it is imported, in child processes too: pins the order of float sums, and leaves the
other core to others."""


def tiny_config(side: int) -> Sam2VideoConfig:
    """1.4 M parameters; 128 channels, so that a pointer is split into two tokens as in real ones (four)."""
    from transformers import Sam2VideoConfig

    channels = 128
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 16,
        "num_attention_heads": 1,
        "image_size": [side, side],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 48, 64],
        "num_attention_heads_per_stage": [1, 2, 3, 4],
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [4, 4],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [64, 48, 32, 16],
        "backbone_feature_sizes": [[side // 4] * 2, [side // 8] * 2, [side // 16] * 2],
        "fpn_hidden_size": channels,
        "fpn_top_down_levels": [2, 3],
    }
    decoder = {
        "hidden_size": channels,
        "num_attention_heads": 4,
        "mlp_dim": 128,
        "iou_head_hidden_dim": channels,
    }
    return Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": channels, "image_size": side},
        mask_decoder_config=decoder,
        image_size=side,
        memory_attention_hidden_size=channels,
        memory_attention_num_layers=2,
        memory_attention_feed_forward_hidden_size=128,
        memory_attention_rope_feat_sizes=[side // 16] * 2,
        memory_encoder_hidden_size=channels,
        mask_downsampler_embed_dim=channels,
        memory_fuser_embed_dim=channels,
        memory_fuser_intermediate_dim=128,
    )


def random_model(side: int = SIDE, seed: int = 0) -> Sam2VideoModel:
    """A model whose every weight matters: upstream starts many at zero or at a scale near zero."""
    import torch
    from transformers import Sam2VideoModel

    torch.manual_seed(seed)
    model = Sam2VideoModel(tiny_config(side)).eval()
    draw = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("scale"):
                weight.fill_(0.2)
            elif weight.ndim >= 2 and (not weight.any() or "no_object_pointer" in name):
                weight.normal_(0, 0.1, generator=draw)
            elif weight.ndim == 1 and name.endswith("bias"):
                weight.normal_(0, 0.02, generator=draw)
            elif weight.ndim >= 2:
                weight.normal_(0, 1 / math.sqrt(weight[0].numel()), generator=draw)
        fourier = torch.randn(
            model.shared_image_embedding.positional_embedding.shape, generator=draw
        )
        model.shared_image_embedding.positional_embedding.copy_(fourier)
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(fourier)
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(1.0)
    return model


@pytest.fixture(scope="session")
def outputs_of_paths() -> Callable[[str], list[str]]:
    """Run a program as this processor does and as one without AVX2 would, and return what both print.

    The native core reads the variable once, hence the processes of their own.
    """

    def run(program: str) -> list[str]:
        return [
            subprocess.run(
                [sys.executable, "-c", program],
                env={**os.environ, **extra},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for extra in ({}, {"OMNI_SDK_NO_AVX2": "1"})
        ]

    return run


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real clips, masks and checkpoints: beside the checkout on some machines, or named by OMNI_SHARED."""
    path = Path(os.environ.get("OMNI_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    if not path.is_dir():
        pytest.skip(f"no real material at {path} (set OMNI_SHARED to its folder)")
    return path


@pytest.fixture(scope="session")
def cuda_device() -> str:
    """A GPU that ONNX Runtime really runs on; without one the test is skipped, or fails where one must be.

    OMNI_REQUIRE_CUDA=1 is for machines with a GPU: there a test that did not run must not look like one that
    passed.
    """
    from omni_sdk.bundle.bundle import Bundle, embedded
    from omni_sdk.engines.onnx import OnnxLoader
    from omni_sdk.errors import OmniError

    try:
        OnnxLoader("cuda").load(Bundle.open(embedded("nano") or ""), "grs/embed")
    except OmniError as e:
        if os.environ.get("OMNI_REQUIRE_CUDA") == "1":
            pytest.fail(f"OMNI_REQUIRE_CUDA=1, but there is no working GPU: {e}")
        pytest.skip("needs a GPU that onnxruntime runs on")
    return "cuda:0"


@pytest.fixture(scope="session")
def ray() -> ModuleType:
    """Ray; where it is not installed the test is skipped, or fails with OMNI_REQUIRE_RAY=1 (in .ci/run)."""
    try:
        return importlib.import_module("ray")
    except ImportError as e:
        if os.environ.get("OMNI_REQUIRE_RAY") == "1":
            pytest.fail(f"OMNI_REQUIRE_RAY=1, but there is no Ray: {e}")
        pytest.skip('needs ray: pip install "omni-sdk[ray]"')


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Sam2VideoModel]:
    return random_model


@pytest.fixture(scope="session")
def sam2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """transformers' layout of facebook/sam2.1-hiera-*: config.json and model.safetensors."""
    directory = tmp_path_factory.mktemp("checkpoints") / "sam2.1-tiny"
    random_model().save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def pipe() -> Pipeline:
    """The shipped bundle on the CPU."""
    from omni_sdk import Pipeline

    return Pipeline.from_pretrained("nano", device="cpu")


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, SceneTruth]]:
    """One held-out clip per family, a real mp4 file with sound: 192 x 192 pixels, 8 frames per second."""
    from omni_sdk.demo.clip import write_clip
    from omni_sdk.demo.scene import make_scene
    from omni_sdk.demo.world import FAMILIES, held_out_seed

    folder = tmp_path_factory.mktemp("clips")
    made = {}
    for family in FAMILIES:
        path = folder / f"{family}.mp4"
        scene = make_scene(held_out_seed(family, 0), family)
        made[family] = path, write_clip(scene, path, size=(192, 192), fps=8.0)
    return made
