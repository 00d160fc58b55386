"""SAM 2.1 video cut into four stateless modules: the graphs of a bundle, and what `HfTracker` runs.

Each module holds sub-modules of one `Sam2VideoModel` (transformers) and does what one step of its
session does, for N objects at once and without the session. Letters: S side of the input in pixels,
C hidden channels, M memory channels, h = w = S / 16, N objects, T memories, P pointers, K points.

Note [Exact rewrites of memory attention]
    - Memories and pointers are separate inputs, so that only memories are rotated.
    - RoPE rotates neighbouring channels; permuting the output channels of q and k alike (even ones
      first) leaves q.k as it is and makes the rotation two halves: slices instead of a gather.
    - There is one head and the rows of a softmax sum to 1, so softmax(qk)(V W + b) is
      (softmax(qk) V) W + b: attention reads the raw M-channel memories and projects once per query, and
      that projection and the one after it are one matrix.
    - A key's bias would add the same to all scores of a query, but for the rotation: it stays. Queries are
      scaled in their weights.
    - Queries are cut into blocks where the scores would not fit a cache; each row stands alone.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import NO_OBJ_SCORE, get_1d_sine_pe

from omni_sdk.errors import BundleError
from omni_sdk.hf.hiera import HieraBlock

SCORE_BLOCK_BYTES = 32 << 20
"""Most bytes of attention scores per query block and object, counted at 7 memories (measured: 16 blocks
at 1024 px are 1.3 times as fast as one on a CPU and need a quarter of the memory; at 512 px one block is
fastest)."""


class ImageEncoder(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """image f[1,3,S,S], normalised -> feat_s0 f[1,C/8,4h,4w], feat_s1 f[1,C/4,2h,2w], pix_feat f[1,C,h,w]."""

    def __init__(self, model: Sam2VideoModel) -> None:
        super().__init__()
        self.vision = copy.deepcopy(model.vision_encoder)
        self.conv_s0, self.conv_s1 = model.mask_decoder.conv_s0, model.mask_decoder.conv_s1
        # A constant of the image size; upstream resizes it (bicubic) for every image.
        backbone = self.vision.backbone
        side = image_size(model) // backbone.config.patch_stride[0]
        with torch.no_grad():
            position = backbone._get_pos_embed((side, side)).clone()
        self.register_buffer("position", position, persistent=False)
        backbone._get_pos_embed = lambda hw: self.position
        backbone.blocks = nn.ModuleList(HieraBlock(block) for block in backbone.blocks)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three feature maps."""
        levels = self.vision(image, return_dict=True).fpn_hidden_states
        return self.conv_s0(levels[0]), self.conv_s1(levels[1]), levels[2]


class MaskDecoder(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Prompt encoder, two-way decoder and choice of the mask.

    pix_feat_mem f[N,C,h,w]; feat_s0, feat_s1 of one image; point_coords f[N,K,2] xy pixels of the S x S
    image; point_labels i64[N,K] (1 on, 0 off the object, 2 and 3 the corners of a box, -1 no point);
    multimask b[N] -> low_res_masks f[N,1,4h,4w] (logits; -1024 where the object is absent), iou f[N,1],
    obj_ptr f[N,C], score f[N,1] (logit; > 0: present).
    """

    def __init__(self, model: Sam2VideoModel) -> None:
        super().__init__()
        self.prompt, self.decoder = model.prompt_encoder, model.mask_decoder
        self.pointer_projection = model.object_pointer_proj
        self.no_pointer = model.no_object_pointer
        grid = model.get_image_wide_positional_embeddings().detach().clone()
        self.register_buffer("grid", grid, persistent=False)

    def forward(
        self,
        pix_feat_mem: Tensor,
        feat_s0: Tensor,
        feat_s1: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        multimask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return low_res_masks, iou, obj_ptr and score."""
        masks, ious, tokens, score = self.candidates(
            pix_feat_mem, feat_s0, feat_s1, point_coords, point_labels
        )
        choice, token = self.choose(masks, ious, multimask)
        size = masks.shape[-2:]
        chosen = torch.gather(masks, 1, choice[:, :, None, None].expand(-1, 1, size[0], size[1]))
        present = score > 0
        chosen = torch.where(
            present[:, :, None, None], chosen, torch.full_like(chosen, NO_OBJ_SCORE)
        )
        pointer = self.pointer_projection(
            torch.gather(tokens, 1, token[:, :, None].expand(-1, 1, tokens.shape[-1]))[:, 0]
        )
        pointer = torch.where(present, pointer, self.no_pointer)
        return chosen, torch.gather(ious, 1, choice), pointer, score

    def candidates(
        self, pix: Tensor, feat_s0: Tensor, feat_s1: Tensor, coords: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All four masks (N,4,4h,4w), their predicted IoU (N,4), tokens (N,4,C) and score (N,1)."""
        decoder = self.decoder
        batch, channels, height, width = pix.shape
        sparse = self.prompt._embed_points(coords.unsqueeze(1), labels.unsqueeze(1), pad=True)
        output = torch.cat(
            [decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight]
        )
        points, image = decoder.transformer(
            point_embeddings=torch.cat([output[None, None].expand(batch, 1, -1, -1), sparse], 2),
            image_embeddings=pix + self.prompt.no_mask_embed.weight.reshape(1, -1, 1, 1),
            image_positional_embeddings=self.grid.expand(batch, -1, -1, -1),
            attention_similarity=None,
            target_embedding=None,
        )
        tokens = points[:, 0, 2 : 2 + decoder.num_mask_tokens]
        image = image.transpose(2, 3).reshape(batch, channels, height, width)
        up = decoder.upscale_layer_norm(decoder.upscale_conv1(image) + feat_s1)
        up = decoder.activation(decoder.upscale_conv2(decoder.activation(up)) + feat_s0)
        weights = torch.stack(
            [mlp(tokens[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], 1
        )
        # 16 = the two transposed convolutions' upscaling of height and width
        masks = (weights @ up.flatten(2)).reshape(batch, -1, 4 * height, 4 * width)
        ious = decoder.iou_prediction_head(points[:, 0, 1])
        return masks, ious, tokens, decoder.pred_obj_score_head(points[:, 0, 0])

    def choose(self, masks: Tensor, ious: Tensor, multimask: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (N,1) of the mask and of the pointer's token.

        Of several masks the one with the best predicted IoU, with its token. Otherwise mask 0, or the
        best of the others where mask 0 is not stable, with token 0 always (upstream:
        `_dynamic_multimask_via_stability`).
        """
        decoder = self.decoder
        best = torch.argmax(ious[:, 1:], -1, keepdim=True) + 1
        zero = torch.zeros_like(best)
        single = zero
        if decoder.dynamic_multimask_via_stability:
            delta = decoder.dynamic_multimask_stability_delta
            logits = masks[:, 0].flatten(1)
            inner = (logits > delta).to(logits.dtype).sum(-1, keepdim=True)
            outer = (logits > -delta).to(logits.dtype).sum(-1, keepdim=True)
            stability = torch.where(outer > 0, inner / outer.clamp(min=1), torch.ones_like(outer))
            stable = stability >= decoder.dynamic_multimask_stability_thresh
            single = torch.where(stable, zero, best)
        several = multimask[:, None]
        return torch.where(several, best, single), torch.where(several, best, zero)


class MemoryEncoder(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Turn a mask into a memory.

    pix_feat f[1,C,h,w]; low_res_masks f[N,1,4h,4w]; score f[N,1]; binarize b[N] (masks of prompted
    frames) -> mem_feat f[N,hw,M], rounded through bfloat16 as upstream stores it.
    """

    def __init__(self, model: Sam2VideoModel) -> None:
        super().__init__()
        self.encoder = model.memory_encoder
        self.occlusion = model.occlusion_spatial_embedding_parameter  # None in SAM 2.0
        self.size = image_size(model)
        self.scale = model.config.sigmoid_scale_for_mem_enc
        self.bias = model.config.sigmoid_bias_for_mem_enc

    def forward(
        self, pix_feat: Tensor, low_res_masks: Tensor, score: Tensor, binarize: Tensor
    ) -> Tensor:
        """Return mem_feat."""
        size = (self.size, self.size)
        logits = F.interpolate(low_res_masks, size=size, mode="bilinear", align_corners=False)
        mask = torch.where(
            binarize[:, None, None, None], (logits > 0).to(logits.dtype), torch.sigmoid(logits)
        )
        features = self.encoder.feature_projection(pix_feat)
        features = features + self.encoder.mask_downsampler(mask * self.scale + self.bias)
        features = self.encoder.projection(self.encoder.memory_fuser(features))
        if self.occlusion is not None:
            absent = (score <= 0).to(features.dtype)
            features = features + absent[:, :, None, None] * self.occlusion[:, :, None, None]
        return features.flatten(2).transpose(1, 2).to(torch.bfloat16).to(torch.float32)


class MemoryAttention(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Condition a frame's features on memories. See Note [Exact rewrites of memory attention].

    pix_feat f[1,C,h,w]; mem_feat f[N,T,hw,M]; mem_tpos i64[T] rows of the temporal table (a prompted
    frame: the last; a frame k steps away: k - 1); obj_ptr f[N,P,C]; ptr_dt f[P] distances over the
    greatest one (max pointers - 1) -> pix_feat_mem f[N,C,h,w].

    Args:
        model: holds the weights.
        value_trick: attend over raw memories, see the note; off only to be compared with.
        blocks: into how many blocks queries are cut, a divisor of h * w; None: `query_blocks`.
    """

    def __init__(
        self, model: Sam2VideoModel, *, value_trick: bool = True, blocks: int | None = None
    ) -> None:
        super().__init__()
        config = model.config
        if config.memory_attention_num_attention_heads != 1 or (
            config.memory_attention_downsample_rate != 1
        ):
            raise BundleError(
                "memory attention: expected one head and no downsampling, as every published SAM 2 "
                f"has; found {config.memory_attention_num_attention_heads} heads and rate "
                f"{config.memory_attention_downsample_rate}"
            )
        attention = model.memory_attention
        self.channels, self.memory = config.memory_attention_hidden_size, model.mem_dim
        self.height, self.width = model.backbone_feature_sizes[-1]
        self.layers, self.norm = copy.deepcopy(attention.layers), attention.layer_norm
        self.temporal_pointers = config.enable_temporal_pos_encoding_for_object_pointers
        self.pointer_time = model.temporal_positional_encoding_projection_layer
        self.value_trick = value_trick
        self.blocks = blocks or query_blocks(self.height * self.width)
        halves = torch.cat([torch.arange(0, self.channels, 2), torch.arange(1, self.channels, 2)])
        with torch.no_grad():
            for layer in self.layers:
                for part in (layer.self_attn, layer.cross_attn_image):
                    for projection in (part.q_proj, part.k_proj):
                        projection.weight.copy_(projection.weight[halves].clone())
                        projection.bias.copy_(projection.bias[halves].clone())
                    for tensor in (part.q_proj.weight, part.q_proj.bias):
                        tensor.mul_(self.channels**-0.5)
                    if value_trick:
                        part.o_proj = _after(part.v_proj, part.o_proj)
            zero = torch.zeros(1)
            cos, sin = attention.rotary_emb(zero, attention.position_ids)
            # the sign of rotate-half is folded into the first half of the sines
            sign = torch.cat([-torch.ones(self.channels // 2), torch.ones(self.channels // 2)])
            self.register_buffer("cos", cos[0][:, halves].clone(), persistent=False)
            self.register_buffer("sin", (sin[0][:, halves] * sign).clone(), persistent=False)
            shape = (1, self.channels, self.height, self.width)
            image = model.vision_encoder.neck.position_encoding(shape, zero.device, zero.dtype)
            self.register_buffer("image_position", _tokens(image).clone(), persistent=False)
            shape = (1, self.memory, self.height, self.width)
            memory = model.memory_encoder.position_encoding(shape, zero.device, zero.dtype)
            self.register_buffer("memory_position", _tokens(memory).clone(), persistent=False)
            times = model.memory_temporal_positional_encoding[:, 0, 0].clone()
            self.register_buffer("times", times, persistent=False)

    def forward(
        self, pix_feat: Tensor, mem_feat: Tensor, mem_tpos: Tensor, obj_ptr: Tensor, ptr_dt: Tensor
    ) -> Tensor:
        """Return pix_feat_mem."""
        batch, pointers = obj_ptr.shape[:2]
        splits = self.channels // self.memory  # a pointer is read as C / M tokens
        keys = mem_feat + (self.memory_position[:, None] + self.times[mem_tpos][None, :, None])
        pointer_tokens = obj_ptr.reshape(batch, pointers * splits, self.memory)
        pointer_keys = pointer_tokens
        if self.temporal_pointers:
            times = self.pointer_time(get_1d_sine_pe(ptr_dt, dim=self.channels))
            times = times[:, None].expand(-1, splits, -1).reshape(1, pointers * splits, self.memory)
            pointer_keys = pointer_tokens + times
        values = torch.cat([mem_feat.flatten(1, 2), pointer_tokens], 1)
        x = _tokens(pix_feat) + 0.1 * self.image_position
        for layer in self.layers:
            own, cross = layer.self_attn, layer.cross_attn_image
            y = layer.layer_norm1(x)
            own_values = y if self.value_trick else own.v_proj(y)
            q, k = self._rotate(_apply(own.q_proj, y)), self._rotate(_apply(own.k_proj, y))
            x = x + _apply(own.o_proj, self._attend(q, k, own_values))
            y = layer.layer_norm2(x)
            rotated = self._rotate(_apply(cross.k_proj, keys)).flatten(1, 2)
            k = torch.cat([rotated, cross.k_proj(pointer_keys)], 1)
            cross_values = values if self.value_trick else cross.v_proj(values)
            mixed = self._attend(self._rotate(_apply(cross.q_proj, y)), k, cross_values)
            x = x + _apply(cross.o_proj, mixed)
            y = layer.activation(_apply(layer.linear1, layer.layer_norm3(x)))
            x = x + _apply(layer.linear2, y)
        x = self.norm(x).transpose(1, 2)
        return x.reshape(-1, self.channels, self.height, self.width)

    @property
    def form(self) -> str:
        """What was chosen for this image size, for the manifest."""
        values = "raw memories as values" if self.value_trick else "projected values"
        blocks = "all queries at once" if self.blocks == 1 else f"{self.blocks} query blocks"
        return f"{values}, {blocks}"

    def _rotate(self, x: Tensor) -> Tensor:
        half = self.channels // 2
        return x * self.cos + torch.cat([x[..., half:], x[..., :half]], -1) * self.sin

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k = k.transpose(-1, -2)
        step = self.height * self.width // self.blocks
        rows = [q[:, i * step : (i + 1) * step] for i in range(self.blocks)]
        return torch.cat([torch.softmax(row @ k, -1) @ v for row in rows], 1)


def image_size(model: Sam2VideoModel) -> int:
    """Return the side S in pixels; BundleError if the model's input is not square."""
    size = model.config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    if height != width or height != model.config.prompt_encoder_config.image_size:
        raise BundleError(f"expected one square image size, found {size!r}")
    return int(height)


def query_blocks(tokens: int) -> int:
    """Return into how many equal blocks `tokens` queries are cut, a divisor of `tokens`."""
    wanted = math.ceil(7 * 4 * tokens**2 / SCORE_BLOCK_BYTES)
    return next(blocks for blocks in range(wanted, tokens + 1) if tokens % blocks == 0)


def _apply(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear map to rows of a matrix: engines then add the bias in the product."""
    return layer(x.reshape(-1, layer.in_features)).reshape(*x.shape[:-1], layer.out_features)


def _after(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """Return the one linear map that is `second` after `first`."""
    both = nn.Linear(first.in_features, second.out_features)
    both.weight.copy_(second.weight @ first.weight)
    both.bias.copy_(second.weight @ first.bias + second.bias)
    return both


def _tokens(feature_map: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, hw, C)."""
    return feature_map.flatten(2).transpose(1, 2)
