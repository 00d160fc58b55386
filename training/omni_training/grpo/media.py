"""Media for the thinker: the towers run once per prompt, their outputs serve every rollout and pass.

Note [Encoded media]
    With frozen towers the G rollouts of a prompt, the reference pass and the policy pass all need the
    same embeddings. transformers can take precomputed ones for images and videos, not for sound, and
    TRL's generate call carries tensors only. So the thinker's three `get_*_features` methods accept one
    more form, for both: a feature tensor *without* its grid or mask is already encoded, shape (tokens,
    hidden). The stock methods raise on that form, so nothing that worked changes meaning.

    Raw media (towers that train) take the stock form: patches with grids, mel frames with a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any

import torch
from omni_sdk.grs.request import ThinkerRequest
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling


@dataclass(frozen=True, slots=True, eq=False)
class PromptMedia:
    """One prompt's positions and media; rollouts of a group share the object.

    Attributes:
        position_ids: (3, P) int64 time, height, width positions of the prompt.
        pixels: "image" and "video" -> (patches, dim) raw, or (tokens, hidden) encoded.
        grids: "image" and "video" -> (count, 3) int64 patches along time, height and width.
        mel: (bins, frames) float32 of each sound; empty once encoded.
        sounds: (tokens, hidden) encoded sounds; None while raw or without sound.
        encoded: whether the towers have run.
    """

    position_ids: Tensor
    pixels: dict[str, Tensor]
    grids: dict[str, Tensor]
    mel: tuple[Tensor, ...] = ()
    sounds: Tensor | None = None
    encoded: bool = False

    @classmethod
    def of(cls, request: ThinkerRequest) -> PromptMedia:
        """Take a request's media.

        Raises:
            ValueError: the prompt does not end in text, so that the completion's positions are undefined.
        """
        positions = torch.from_numpy(request.position_ids)
        last = positions[:, -1]
        if not bool((last == positions.max()).all()):
            raise ValueError("a prompt must end in text: its last position is not the largest")
        pixels, grids = {}, {}
        for kind in ("image", "video"):
            inputs = [v for v in request.vision if v.kind == kind]
            if inputs:
                pixels[kind] = torch.cat([torch.from_numpy(v.pixel_values) for v in inputs])
                grids[kind] = torch.tensor([v.grid_thw for v in inputs])
        return cls(positions, pixels, grids, tuple(torch.from_numpy(m) for m in request.mel))


def accept_encoded(thinker: nn.Module) -> None:
    """Let a thinker take encoded media; see Note [Encoded media].

    Args:
        thinker: a Qwen2_5OmniThinkerForConditionalGeneration (not wrapped).
    """
    inner: Any = thinker.model

    def image(
        self: Any, pixel_values: Tensor, image_grid_thw: Tensor | None = None, **kwargs: Any
    ) -> Any:
        if image_grid_thw is None:
            return BaseModelOutputWithPooling(pooler_output=(pixel_values,))
        return type(self).get_image_features(self, pixel_values, image_grid_thw, **kwargs)

    def video(
        self: Any, pixel_values_videos: Tensor, video_grid_thw: Tensor | None = None, **kwargs: Any
    ) -> Any:
        if video_grid_thw is None:
            return BaseModelOutputWithPooling(pooler_output=(pixel_values_videos,))
        return type(self).get_video_features(self, pixel_values_videos, video_grid_thw, **kwargs)

    def audio(
        self: Any,
        input_features: Tensor,
        feature_attention_mask: Tensor | None = None,
        audio_feature_lengths: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if feature_attention_mask is None:
            return BaseModelOutputWithPooling(last_hidden_state=input_features)
        return type(self).get_audio_features(
            self, input_features, feature_attention_mask, audio_feature_lengths, **kwargs
        )

    inner.get_image_features = MethodType(image, inner)
    inner.get_video_features = MethodType(video, inner)
    inner.get_audio_features = MethodType(audio, inner)


def encode(
    thinker: nn.Module, media: Sequence[PromptMedia], *, same_calls: bool = False
) -> list[PromptMedia]:
    """Run the frozen towers once over several prompts.

    Args:
        thinker: the model whose towers are used.
        media: raw media of distinct prompts.
        same_calls: run both towers even without media for them, on a blank, so that every process of a
            sharded model makes the same calls (ZeRO-3 hangs otherwise).

    Returns:
        The same prompts with encoded media.
    """
    with torch.no_grad():
        pixels = _encode_pixels(thinker, media, same_calls)
        sounds = _encode_sounds(thinker, media, same_calls)
    return [
        replace(m, pixels=p, mel=(), sounds=torch.cat(s) if s else None, encoded=True)
        for m, p, s in zip(media, pixels, sounds, strict=True)
    ]


def _encode_pixels(
    thinker: Any, media: Sequence[PromptMedia], same_calls: bool
) -> list[dict[str, Tensor]]:
    """Return "image" and "video" -> (tokens, hidden) of each prompt."""
    visual, v = thinker.model.visual, thinker.config.vision_config
    parameter = next(visual.parameters())
    device, dtype = parameter.device, parameter.dtype
    merge = v.spatial_merge_size
    inputs = [(i, kind, m) for i, m in enumerate(media) for kind in sorted(m.pixels)]
    pixels: list[dict[str, Tensor]] = [{} for _ in media]
    if inputs:
        patches = torch.cat([m.pixels[kind] for _, kind, m in inputs]).to(device, dtype)
        grids = torch.cat([m.grids[kind] for _, kind, m in inputs]).to(device)
        features = visual(patches, grid_thw=grids).pooler_output
        sizes = [int(m.grids[kind].prod(-1).sum()) // merge**2 for _, kind, m in inputs]
        for (i, kind, _), part in zip(inputs, features.split(sizes), strict=True):
            pixels[i][kind] = part
    elif same_calls:
        dim = v.in_channels * v.temporal_patch_size * v.patch_size**2
        blank = torch.zeros(merge**2, dim, device=device, dtype=dtype)
        visual(blank, grid_thw=torch.tensor([[1, merge, merge]], device=device))
    return pixels


def _encode_sounds(
    thinker: Any, media: Sequence[PromptMedia], same_calls: bool
) -> list[list[Tensor]]:
    """Return (tokens, hidden) of each sound of each prompt."""
    inner = thinker.model
    parameter = next(inner.visual.parameters())
    inputs = [(i, mel) for i, m in enumerate(media) for mel in m.mel]
    sounds: list[list[Tensor]] = [[] for _ in media]
    if not inputs and not same_calls:
        return sounds
    mel = [mel for _, mel in inputs] or [torch.zeros(thinker.config.audio_config.num_mel_bins, 4)]
    batch = sound_batch(mel, parameter.device, parameter.dtype)
    # The class's own method: `accept_encoded` has put another in its place on the object.
    features = type(inner).get_audio_features(inner, **batch, return_dict=True)
    lengths = batch["feature_attention_mask"].sum(-1)
    _, sizes = inner.audio_tower._get_feat_extract_output_lengths(lengths)
    parts = features.last_hidden_state.split(sizes.tolist())
    for (i, _), part in zip(inputs, parts, strict=bool(inputs)):  # a blank is nobody's
        sounds[i].append(part)
    return sounds


def sound_batch(
    mel: Sequence[Tensor], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return (N, bins, L) features, zero-padded on the right, and their (N, L) mask."""
    longest = max(m.shape[-1] for m in mel)
    features = torch.stack([nn.functional.pad(m, (0, longest - m.shape[-1])) for m in mel])
    lengths = torch.tensor([m.shape[-1] for m in mel])
    mask = (torch.arange(longest) < lengths[:, None]).long()
    return {
        "input_features": features.to(device, dtype),
        "feature_attention_mask": mask.to(device),
    }


def collate(
    media: Sequence[PromptMedia],
    prompt_length: int,
    completion_length: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Batch prompts for the thinker's forward or generate: everything but ids and attention mask.

    Args:
        media: one per row, all encoded or all raw.
        prompt_length: columns of the left-padded prompts.
        completion_length: columns after them; a completion counts on from its prompt's last position.
        device: where the tensors go.
        dtype: of raw sounds (the tower's own; patches are cast by the model).

    Returns:
        Keyword arguments: position_ids (3, B, prompt + completion) int64, and the media of all rows in
        order.
    """
    total = prompt_length + completion_length
    positions = torch.zeros(3, len(media), total, dtype=torch.long)
    steps = torch.arange(1, completion_length + 1)
    for row, m in enumerate(media):
        length = m.position_ids.shape[1]
        positions[:, row, prompt_length - length : prompt_length] = m.position_ids
        positions[:, row, prompt_length:] = m.position_ids[:, -1:] + steps
    batch = {"position_ids": positions.to(device)}
    for kind, name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        present = [m for m in media if kind in m.pixels]
        if present:
            batch[name] = torch.cat([m.pixels[kind] for m in present]).to(device)
            if not media[0].encoded:
                batch[f"{kind}_grid_thw"] = torch.cat([m.grids[kind] for m in present]).to(device)
    if media[0].encoded:
        sounds = [m.sounds for m in media if m.sounds is not None]
        if sounds:
            batch["input_features"] = torch.cat(sounds).to(device)
    else:
        mel = [sound for m in media for sound in m.mel]
        if mel:
            batch |= sound_batch(mel, device, dtype)
    return batch
