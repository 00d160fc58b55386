"""SAM 2's session with gradients: the model's own modules, over many objects and all their candidates.

Letters as in `omni_sdk.hf.sam2_modules`: S side of the input, C hidden and M memory channels, h = w = S / 16,
B clips, N objects, L frames. The rules are those of `omni_sdk.dus.sam2.memory` at stride 1; memories are
rounded to bfloat16 as the session keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from omni_sdk.hf.sam2_modules import MaskDecoder, MemoryEncoder
from torch import Tensor
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import NO_OBJ_SCORE, get_1d_sine_pe

BOX_LABELS = (2, 3)


@dataclass(frozen=True)
class Features:
    """Frames as the decoder reads them: (F, C/8, 4h, 4w), (F, C/4, 2h, 2w) and (F, C, h, w)."""

    feat_s0: Tensor
    feat_s1: Tensor
    pix_feat: Tensor

    def take(self, rows: Tensor) -> Features:
        """Return the features of some frames, (N,) int64, repeats allowed."""
        return Features(self.feat_s0[rows], self.feat_s1[rows], self.pix_feat[rows])


@dataclass(frozen=True)
class FrameOutput:
    """What was found on one frame, with gradients.

    Attributes:
        masks: (N, 4, 4h, 4w) logits of all candidates: the one that answers boxes, then the three that
            compete otherwise.
        ious: (N, 4) their predicted IoU.
        scores: (N,) logit of being present.
        prompted: whether the frame was prompted.
    """

    masks: Tensor
    ious: Tensor
    scores: Tensor
    prompted: bool


class TrackerUnroll:
    """Runs a model in training; holds no weights of its own."""

    def __init__(self, model: Sam2VideoModel) -> None:
        """Wrap a model on any device."""
        self.model = model
        self._decoder, self._memory = MaskDecoder(model), MemoryEncoder(model)
        self._decoder.to(model.device)
        _remember_positions(model.vision_encoder.neck.position_encoding)
        channels, side = model.config.memory_attention_hidden_size, self._memory.size // 16
        like = model.no_memory_embedding
        self._image_position, self._memory_position = (
            encoding((1, count, side, side), like.device, like.dtype).flatten(2).permute(2, 0, 1)
            for encoding, count in (
                (model.vision_encoder.neck.position_encoding, channels),
                (model.memory_encoder.position_encoding, model.mem_dim),
            )
        )

    def encode(self, pixels: Tensor) -> Features:
        """Return the features of (F, 3, S, S) normalised images."""
        levels = self.model.vision_encoder(pixels, return_dict=True).fpn_hidden_states
        decoder = self.model.mask_decoder
        return Features(decoder.conv_s0(levels[0]), decoder.conv_s1(levels[1]), levels[2])

    def prompt(self, features: Features, boxes: Tensor) -> Decoded:
        """Find N objects, one per row of `features`, from boxes (N, 4) in pixels of the input."""
        labels = torch.tensor(BOX_LABELS, device=boxes.device).expand(len(boxes), 2)
        pixels = features.pix_feat + self.model.no_memory_embedding.view(1, -1, 1, 1)
        return self._decode(features, pixels, boxes.reshape(-1, 2, 2), labels, prompted=True)

    def run(
        self,
        features: Features,
        clip_of: Tensor,
        boxes: Mapping[int, Tensor],
        *,
        present: Tensor | None = None,
        max_pointers: int = 16,
    ) -> list[FrameOutput]:
        """Find N objects in clips of L frames: forward from the first prompt, then back to frame 0.

        Args:
            features: of B * L frames, clip by clip.
            clip_of: (N,) int64, the clip of each object.
            boxes: {frame: (N, 4) pixels of the input}; one frame at least.
            present: (N, L) bool, the truth that memories are told; None: they believe the score.
            max_pointers: greatest number of recent pointers plus one.

        Returns:
            L outputs in the order of time.
        """
        length = len(features.pix_feat) // (int(clip_of.max()) + 1)
        first = min(boxes)
        outputs: dict[int, FrameOutput] = {}
        memories: dict[int, Tensor] = {}
        pointers: dict[int, Tensor] = {}
        for t in (*range(first, length), *range(first - 1, -1, -1)):
            frame = features.take(clip_of * length + t)
            if t in boxes:
                found = self.prompt(frame, boxes[t])
            else:
                seen = [c for c in boxes if c in memories]
                pixels = self._attend(frame.pix_feat, t, seen, memories, pointers, max_pointers)
                nowhere = torch.zeros(len(pixels), 1, 2, device=pixels.device)
                labels = torch.full((len(pixels), 1), -1, device=pixels.device)
                found = self._decode(frame, pixels, nowhere, labels, prompted=False)
            outputs[t] = found.output
            here = found.output.scores > 0 if present is None else present[:, t]
            memories[t], pointers[t] = self._memorise(frame, found, here)
        return [outputs[t] for t in range(length)]

    def _decode(
        self, features: Features, pixels: Tensor, points: Tensor, labels: Tensor, *, prompted: bool
    ) -> Decoded:
        masks, ious, tokens, scores = self._decoder.candidates(
            pixels, features.feat_s0, features.feat_s1, points, labels
        )
        several = torch.full((len(masks),), not prompted, device=masks.device)
        choice, token = self._decoder.choose(masks, ious, several)
        rows = torch.arange(len(masks), device=masks.device)
        return Decoded(
            FrameOutput(masks, ious, scores[:, 0], prompted),
            masks[rows, choice[:, 0]],
            tokens[rows, token[:, 0]],
        )

    def _memorise(
        self, features: Features, found: Decoded, present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the memory (hw, N, M) and the pointer (N, C) of a frame."""
        logits = torch.where(present[:, None, None], found.mask, NO_OBJ_SCORE)
        sign = present.to(logits.dtype) * 2 - 1
        prompted = torch.full((len(logits),), found.output.prompted, device=logits.device)
        memory = self._memory(features.pix_feat, logits[:, None], sign[:, None], prompted)
        pointer = self.model.object_pointer_proj(found.token)
        pointer = torch.where(present[:, None], pointer, self.model.no_object_pointer)
        return memory.transpose(0, 1), pointer

    def _attend(
        self,
        pixels: Tensor,
        t: int,
        prompted: list[int],
        memories: Mapping[int, Tensor],
        pointers: Mapping[int, Tensor],
        max_pointers: int,
    ) -> Tensor:
        """Condition (N, C, h, w) features of frame `t` on memories."""
        model, (count, channels, height, width) = self.model, pixels.shape
        table = model.memory_temporal_positional_encoding
        tracked = [i for i in memories if i not in prompted]
        slots = [(i, len(table) - 1) for i in prompted]
        slots += [(i, abs(t - i) - 1) for i in tracked if abs(t - i) < len(table)]
        keys = [memories[i] for i, _ in slots]
        places = [(self._memory_position + table[slot]).expand_as(keys[0]) for _, slot in slots]
        near = [*prompted, *(i for i in tracked if abs(t - i) < max_pointers)]
        distances = torch.tensor([float(abs(t - i)) for i in near], device=pixels.device)
        times = model.temporal_positional_encoding_projection_layer(
            get_1d_sine_pe(distances / max(max_pointers - 1, 1), dim=channels)
        )
        splits = channels // model.mem_dim  # a pointer is read as C / M tokens
        rows = torch.stack([pointers[i] for i in near]).reshape(-1, count, splits, model.mem_dim)
        keys.append(rows.permute(0, 2, 1, 3).flatten(0, 1))
        places.append(times[:, None].expand(-1, count, -1).repeat_interleave(splits, 0))
        conditioned = model.memory_attention(
            current_vision_features=pixels.flatten(2).permute(2, 0, 1),
            memory=torch.cat(keys),
            current_vision_position_embeddings=self._image_position.expand(-1, count, -1),
            memory_posision_embeddings=torch.cat(places),
            num_object_pointer_tokens=len(near) * splits,
        )
        tokens = conditioned.reshape(count, height * width, channels)
        return tokens.transpose(1, 2).reshape(count, channels, height, width)


@dataclass(frozen=True)
class Decoded:
    """A frame's output, and what the memory is made of: the chosen mask (N, 4h, 4w), its token (N, C)."""

    output: FrameOutput
    mask: Tensor
    token: Tensor


def _remember_positions(encoding: torch.nn.Module) -> None:
    """Compute sine maps once for a batch of one: upstream does it for every batch (10 % of its time)."""
    compute, known = encoding.forward, {}

    def forward(shape, device, dtype, mask=None):  # type: ignore[no-untyped-def]
        key = (*shape[1:], device, dtype)
        if key not in known:
            known[key] = compute((1, *shape[1:]), device, dtype, mask)
        return known[key]

    encoding.forward = forward
