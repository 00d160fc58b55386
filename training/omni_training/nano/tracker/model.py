"""A small SAM 2.1 video model of transformers' own class, and weights from which it can learn.

Note [Start]
    transformers' start (N(0, 0.02), layer scales 0) is made for checkpoints: from there a model of 2 M
    parameters stays at "all background". What gets it going, measured in single runs:
    - the decoder's cross attentions start with the same matrix for queries and keys, and position codes
      are smooth (frequencies of deviation 0.5), so a query looks where it is: a box's corners find their
      cells of the image before anything is learnt (with balanced losses: IoU 0.40 after 120 steps, against
      0.20 without);
    - image features are scaled down, so that they do not drown the position code that is added to them;
    - queries and keys of the memory's cross attention have the same bias, which under rotary positions
      looks at the same place in the memory;
    - the prompt encoder and the image have one table of frequencies (two buffers in transformers).
"""

from __future__ import annotations

import copy
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Sam2VideoConfig, Sam2VideoModel

from omni_training.nano.tracker.config import TrackerSizes

_DAMPED = ("attn.proj", "mlp.proj_out", "o_proj", "linear2")  # the last layers of residual branches
_SMALL_TABLES = (
    "no_memory_embedding",
    "no_object_pointer",
    "occlusion_spatial_embedding_parameter",
    "memory_temporal_positional_encoding",
)
_CROSS_ATTENTION = (
    "cross_attn_token_to_image",
    "cross_attn_image_to_token",
    "final_attn_token_to_image",
)


def model_config(sizes: TrackerSizes) -> Sam2VideoConfig:
    """Return the settings of a model of these sizes, as transformers reads them."""
    side, channels = sizes.image_size, sizes.channels
    first = sum(sizes.blocks[:2])  # of the third stage, whose later blocks see the whole image
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": sizes.widths[0],
        "num_attention_heads": sizes.heads[0],
        "image_size": [side, side],
        "blocks_per_stage": list(sizes.blocks),
        "embed_dim_per_stage": list(sizes.widths),
        "num_attention_heads_per_stage": list(sizes.heads),
        "window_size_per_stage": [8, 4, 8, 4],
        "global_attention_blocks": list(range(first + 1, first + sizes.blocks[2])),
        "window_positional_embedding_background_size": [8, 8],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": list(reversed(sizes.widths)),
        "backbone_feature_sizes": [[side // cell] * 2 for cell in (4, 8, 16)],
        "fpn_hidden_size": channels,
        "fpn_top_down_levels": [2, 3],
    }
    return Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": channels, "image_size": side},
        mask_decoder_config={
            "hidden_size": channels,
            "num_attention_heads": 4,
            "mlp_dim": 2 * channels,
            "iou_head_hidden_dim": channels,
        },
        image_size=side,
        memory_attention_hidden_size=channels,
        memory_attention_num_layers=sizes.attention_layers,
        memory_attention_feed_forward_hidden_size=2 * channels,
        memory_attention_dropout=0.0,
        memory_attention_rope_dropout=0.0,
        memory_attention_rope_feat_sizes=[side // 16] * 2,
        memory_encoder_hidden_size=channels,
        mask_downsampler_embed_dim=channels,
        memory_fuser_embed_dim=channels,
        memory_fuser_intermediate_dim=channels,
    )


def new_model(sizes: TrackerSizes, seed: int) -> Sam2VideoModel:
    """Return an untrained float32 model on the CPU; see Note [Start].

    The generator of torch is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Sam2VideoModel(model_config(sizes))
        initialise(model)
    return model


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is not followed by mypy
def initialise(model: Sam2VideoModel) -> None:
    """Draw all weights from torch's generator; see Note [Start]."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            _initialise_weights(module, damped=name.endswith(_DAMPED))
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(0, 1.0)  # as in Meta's code
        elif type(module).__name__ == "Sam2VideoMemoryFuserCXBlock":
            module.scale.fill_(0.1)
    for name, value in model.named_parameters():
        if name.endswith("pos_embed_window") or name in _SMALL_TABLES:
            value.normal_(0, 0.1)
        elif name.endswith("pos_embed"):
            value.copy_(_waves(*value.shape[1:]))
    decoder, prompt = model.mask_decoder, model.prompt_encoder
    for convolution in model.vision_encoder.neck.convs:
        convolution.weight.mul_(0.4)
    tables = [decoder.mask_tokens, decoder.iou_token, decoder.obj_score_token]
    tables += [prompt.point_embed, prompt.not_a_point_embed, prompt.no_mask_embed]
    for table in tables:
        table.weight.mul_(0.5)
    for name, module in decoder.transformer.named_modules():
        if name.endswith(_CROSS_ATTENTION):
            nn.init.orthogonal_(module.q_proj.weight, gain=1.5)
            module.k_proj.weight.copy_(module.q_proj.weight)
    for layer in model.memory_attention.layers:
        cross = layer.cross_attn_image
        cross.q_proj.bias.normal_(0, 0.6)
        cross.k_proj.bias.copy_(cross.q_proj.bias)
    frequencies = model.shared_image_embedding.positional_embedding
    frequencies.normal_(0, 0.5)
    prompt.shared_embedding.positional_embedding.copy_(frequencies)


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is not followed by mypy
def open_memory(model: Sam2VideoModel, pixels: Tensor) -> None:
    """Fit the memory to an image encoder that learnt without it, between the first two stages.

    - Memory attention ends in a normalisation; its gain and offset are set to those of the features which
      the decoder knows, so that attending starts as about the identity.
    - In the memory encoder the features are scaled to deviation 0.5, or they would drown the mask.

    Args:
        model: changed in place.
        pixels: (B, 3, S, S) float32, normalised: some pictures, the more the better.
    """
    features = model.vision_encoder(pixels, return_dict=True).fpn_hidden_states[2]
    tokens = features.flatten(2).transpose(1, 2)
    norm = model.memory_attention.layer_norm
    norm.weight.fill_(float(tokens.std(-1).mean()))
    norm.bias.fill_(float(tokens.mean()))
    projection = model.memory_encoder.feature_projection
    spread = float(F.linear(tokens, projection.weight[:, :, 0, 0]).std())
    projection.weight.mul_(0.5 / spread)
    projection.bias.mul_(0.5 / spread)


def save_model(model: Sam2VideoModel, folder: Path) -> None:
    """Write config.json and model.safetensors in transformers' layout, weights rounded to float16."""
    copy.deepcopy(model).half().save_pretrained(folder, safe_serialization=True)


def _initialise_weights(
    module: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, *, damped: bool
) -> None:
    weight = module.weight
    fan_in = weight.shape[0] if isinstance(module, nn.ConvTranspose2d) else weight[0].numel()
    weight.normal_(0, (0.5 if damped else 1.0) / math.sqrt(fan_in))
    if module.bias is not None:
        module.bias.zero_()


def _waves(channels: int, height: int, width: int) -> Tensor:
    """(1, channels, height, width) sines and cosines of x and y at six frequencies."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    turns = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
    waves = [
        (torch.sin, torch.cos)[c // 2 % 2](math.pi * turns[c // 4 % 6] * (x, y)[c % 2])
        for c in range(channels)
    ]
    return torch.stack(waves)[None]
