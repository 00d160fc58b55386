"""Compare exported tracker graphs with transformers: each graph, then a clip tracked both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from omni_sdk.bundle.manifest import ParityRow
from omni_sdk.config import TrackingConfig
from omni_sdk.dus.masks import rle_decode
from omni_sdk.dus.sam2.graphs import Features, Sam2Graphs
from omni_sdk.dus.sam2.tracker import Sam2Tracker
from omni_sdk.stages import KeyframePrompt
from torch.nn import functional as F
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import (
    Sam2VideoInferenceSession,
    get_1d_sine_pe,
)

from omni_export.clips import ArrayFrameSource, moving_square
from omni_export.draft import check_parity

REFERENCE = "transformers Sam2VideoModel"
GRAPH_TOLERANCE = 1e-3
"""Greatest difference over the greatest reference value: float32 sums in another order."""
MEMORY_TOLERANCE = 2**-7
"""Memories are rounded to bfloat16: one unit in the last of 8 bits."""
MIN_IOU = 0.99
"""A memory next to a rounding boundary flips by one unit and moves logits by up to 0.05 with trained
weights (reference: measured), which moves a few pixels on a boundary."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SessionPrompt:
    """One object's prompt on a frame: (K, 2) float32 pixels of the S x S image, (K,) labels."""

    frame_index: int
    points: Array
    labels: NDArray[np.int64]


def session_track(
    model: Sam2VideoModel,
    pixel_values: torch.Tensor,
    prompts: Sequence[SessionPrompt],
    *,
    backward: bool = True,
) -> dict[int, tuple[Array, float]]:
    """Track one object with transformers' own session.

    Each prompt is given before its frame is propagated, so that it becomes a conditioning frame; with
    `backward` the session then propagates in reverse from the first prompt.

    Args:
        model: float32, in eval mode.
        pixel_values: (T, 3, S, S) normalised frames.
        prompts: in time order, each on a frame of its own.
        backward: also fill the frames before the first prompt.

    Returns:
        Per frame the (4h, 4w) mask logits and the object score.
    """
    side = model.config.image_size
    session = Sam2VideoInferenceSession(
        video=pixel_values, video_height=side, video_width=side, dtype=torch.float32
    )
    found: dict[int, tuple[Array, float]] = {}

    def keep(output: object) -> None:
        masks, scores = output.pred_masks, output.object_score_logits  # type: ignore[attr-defined]
        index = int(output.frame_idx)  # type: ignore[attr-defined]
        found.setdefault(index, (masks[0, 0].numpy().copy(), float(scores.reshape(-1)[0])))

    stops = [p.frame_index for p in prompts[1:]] + [len(pixel_values)]
    for prompt, stop in zip(prompts, stops, strict=True):
        index = session.obj_id_to_idx(1)
        inputs = {
            "point_coords": torch.from_numpy(np.float32(prompt.points))[None, None],
            "point_labels": torch.from_numpy(np.int32(prompt.labels))[None, None],
        }
        session.add_point_inputs(index, prompt.frame_index, inputs)
        session.obj_with_new_inputs.append(1)
        for frame_index in range(prompt.frame_index, stop):
            keep(model(session, frame_idx=frame_index))
    if backward:
        for frame_index in range(prompts[0].frame_index - 1, -1, -1):
            keep(model(session, frame_idx=frame_index, reverse=True))
    return found


def tracker_parity(model: Sam2VideoModel, graphs: Sam2Graphs) -> list[ParityRow]:
    """Compare the four graphs and a tracked clip with transformers.

    Raises:
        ParityError: a difference beyond its tolerance.
    """
    rng = np.random.default_rng(0)
    side = graphs.spec.image_size
    clip, boxes = moving_square(8 if side <= 256 else 4, side)
    with torch.inference_mode():
        rows, features = _encoder_row(model, graphs, clip[0])
        rows += [
            *_decoder_rows(model, graphs, features, boxes[0]),
            _attention_row(model, graphs, features, rng),
            _memory_row(model, graphs, features, rng),
            _clip_row(model, graphs, clip, boxes),
        ]
    check_parity(rows)
    return rows


def normalise(graphs: Sam2Graphs, images: NDArray[np.uint8]) -> torch.Tensor:
    """(T, S, S, 3) uint8 -> (T, 3, S, S) normalised, as upstream's processor does."""
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (graphs.spec.image_mean, graphs.spec.image_std)
    )
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std


def _encoder_row(
    model: Sam2VideoModel, graphs: Sam2Graphs, image: NDArray[np.uint8]
) -> tuple[list[ParityRow], Features]:
    features = graphs.encode(image)
    outputs = model.get_image_features(normalise(graphs, image[None]), return_dict=True)
    ours = (features.feat_s0, features.feat_s1, features.pix_feat)
    worst = max(
        _relative(a.reshape(a.shape[1], -1).T, b[:, 0].numpy())
        for a, b in zip(ours, outputs.fpn_hidden_states, strict=True)
    )
    return [_row("dus/image_encoder", worst, GRAPH_TOLERANCE)], features


def _decoder_rows(
    model: Sam2VideoModel, graphs: Sam2Graphs, features: Features, box: Array
) -> list[ParityRow]:
    pix = graphs.without_memory(features, 1)
    rows = []
    for what, points, labels in (
        ("box", box.reshape(1, 2, 2), np.array([[2, 3]])),
        ("no prompt", np.zeros((1, 1, 2), np.float32), np.array([[-1]])),
    ):
        ours = graphs.decode(features, pix, points, labels)
        reference = model._single_frame_forward(
            input_points=torch.from_numpy(points)[None],
            input_labels=torch.from_numpy(labels)[None].int(),
            image_embeddings=[
                torch.from_numpy(a) for a in (features.feat_s0, features.feat_s1, pix)
            ],
            multimask_output=labels.shape[1] == 1,
        )
        worst = max(
            _relative(ours.logits[0], reference.pred_masks.numpy().reshape(ours.logits[0].shape)),
            _relative(ours.pointers[0], reference.object_pointer.numpy().reshape(-1)),
            _relative(ours.scores, reference.object_score_logits.numpy().reshape(-1)),
        )
        rows.append(_row(f"dus/mask_decoder ({what})", worst, GRAPH_TOLERANCE))
    return rows


def _attention_row(
    model: Sam2VideoModel, graphs: Sam2Graphs, features: Features, rng: np.random.Generator
) -> ParityRow:
    spec = graphs.spec
    side = spec.image_size // 16
    tokens, splits = side * side, spec.hidden_size // spec.memory_size
    slots = np.array([spec.num_memories - 1, 1, 0])
    memories = rng.standard_normal((1, len(slots), tokens, spec.memory_size), np.float32)
    pointers = rng.standard_normal((1, 2, spec.hidden_size), np.float32)
    distances = np.array([0.4, 1 / 15], np.float32)
    ours = graphs.attend(features, memories, slots, pointers, distances)
    shape = (1, spec.memory_size, side, side)
    place = model.memory_encoder.position_encoding(shape, torch.device("cpu"), torch.float32)
    place = place.flatten(2).permute(2, 0, 1)
    times = model.memory_temporal_positional_encoding
    times_of_pointers = torch.zeros(2, spec.memory_size)
    if model.config.enable_temporal_pos_encoding_for_object_pointers:
        sines = get_1d_sine_pe(torch.from_numpy(distances), dim=spec.hidden_size)
        times_of_pointers = model.temporal_positional_encoding_projection_layer(sines)
    pix = torch.from_numpy(features.pix_feat)
    reference = model.memory_attention(
        current_vision_features=pix.flatten(2).permute(2, 0, 1),
        current_vision_position_embeddings=model.vision_encoder.neck.position_encoding(
            pix.shape, pix.device, pix.dtype
        )
        .flatten(2)
        .permute(2, 0, 1),
        memory=torch.cat(
            [
                torch.from_numpy(memories[0]).reshape(-1, 1, spec.memory_size),
                torch.from_numpy(pointers).reshape(-1, 1, spec.memory_size),
            ]
        ),
        memory_posision_embeddings=torch.cat(
            [
                *(place + times[slot] for slot in slots),
                times_of_pointers.repeat_interleave(splits, 0)[:, None],
            ]
        ),
        num_object_pointer_tokens=2 * splits,
    )
    worst = _relative(
        ours[0].reshape(spec.hidden_size, -1).T, reference.numpy().reshape(-1, spec.hidden_size)
    )
    return _row("dus/memory_attention", worst, GRAPH_TOLERANCE)


def _memory_row(
    model: Sam2VideoModel, graphs: Sam2Graphs, features: Features, rng: np.random.Generator
) -> ParityRow:
    low = features.feat_s0.shape[-1]
    logits = 4 * rng.standard_normal((2, low, low)).astype(np.float32)
    scores = np.array([1.0, -1.0], np.float32)
    size = (model.config.image_size,) * 2
    pix = torch.from_numpy(features.pix_feat).flatten(2).permute(2, 0, 1)
    worst = 0.0
    for prompted in (False, True):
        ours = graphs.memorise(features, logits, scores, np.full(2, prompted))
        reference, _ = model._encode_new_memory(
            current_vision_feats=pix.expand(-1, 2, -1),
            pred_masks_high_res=F.interpolate(
                torch.from_numpy(logits)[:, None], size, mode="bilinear", align_corners=False
            ),
            object_score_logits=torch.from_numpy(scores)[:, None, None],
            is_mask_from_pts=prompted,
        )
        worst = max(worst, _relative(ours, reference.float().permute(1, 0, 2).numpy()))
    return _row("dus/memory_encoder", worst, MEMORY_TOLERANCE)


def _clip_row(
    model: Sam2VideoModel, graphs: Sam2Graphs, clip: NDArray[np.uint8], boxes: Array
) -> ParityRow:
    start = 1  # frame 0 is reached backward
    frames = ArrayFrameSource(clip)
    run = Sam2Tracker(graphs).track(
        frames, [KeyframePrompt(start, boxes[start][None])], TrackingConfig()
    )
    size = (frames.height, frames.width)
    ours = {f.frame_index: rle_decode(f.masks[0].counts, size) for f in run}
    prompt = SessionPrompt(start, boxes[start].reshape(2, 2), np.array([2, 3]))
    reference = session_track(model, normalise(graphs, clip), [prompt])
    worst = min(
        _iou(ours[i], upsample(reference[i][0], size) > 0) for i in range(frames.num_frames)
    )
    return ParityRow("tracked clip", REFERENCE, "1 - least mask IoU", 1 - worst, 1 - MIN_IOU)


def upsample(logits: Array, size: tuple[int, int]) -> Array:
    """(h, w) -> size, bilinear."""
    tensor = torch.from_numpy(logits)[None, None]
    return np.asarray(F.interpolate(tensor, size, mode="bilinear", align_corners=False)[0, 0])


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / union) if union else 1.0


def _relative(a: Array, b: Array) -> float:
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6))


def _row(subject: str, value: float, tolerance: float) -> ParityRow:
    measure = "greatest difference over greatest value"
    return ParityRow(subject, REFERENCE, measure, value, tolerance)
