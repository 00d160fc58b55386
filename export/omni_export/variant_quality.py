"""What a variant costs in answers: tokens that it would choose otherwise, masks that move."""

from __future__ import annotations

from operator import ne
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omni_sdk.bundle.bundle import Bundle
from omni_sdk.bundle.manifest import ParityRow
from omni_sdk.config import TrackingConfig
from omni_sdk.dus.masks import rle_decode
from omni_sdk.dus.sam2.graphs import Sam2Graphs
from omni_sdk.dus.sam2.tracker import Sam2Tracker
from omni_sdk.engines.base import EngineLoader
from omni_sdk.grs.cache import empty_cache, next_cache
from omni_sdk.grs.embedding import open_embedding
from omni_sdk.stages import KeyframePrompt

from omni_export.calibration import DECODER, Arrays, choices
from omni_export.clips import ArrayFrameSource, moving_square
from omni_export.samples import Sample, make_request

PROMPTS = 4
STEPS = 16
REFERENCE = "the float32 graphs"
MIN_IOU = 0.98


def token_row(
    bundle: Bundle, variant: Bundle, name: str, loader: EngineLoader, allowed: float
) -> ParityRow:
    """Compare the greedy choices of two decoders, both fed the reference's tokens.

    Fed their own, one early difference would count for all that follow. `allowed` is the share of tokens
    that may differ.
    """
    completions, reference = _complete(loader, bundle)
    found = choices(loader, variant, completions)
    different, total = sum(map(ne, reference, found)), len(reference)
    return ParityRow(
        subject=f"grs/decoder@{name}: tokens",
        reference=REFERENCE,
        measure=f"greedy tokens that differ of {total}, fed the reference's",
        value=float(different),
        tolerance=float(int(allowed * total)),
    )


def _complete(loader: EngineLoader, bundle: Bundle) -> tuple[list[list[Arrays]], list[int]]:
    """Complete `PROMPTS` prompts by `STEPS` tokens each, whatever ends them.

    Returns:
        The decoder's calls of each, without the cache, and the tokens chosen, in a row.
    """
    embed, engine = open_embedding(loader, bundle), loader.load(bundle, DECODER)
    completions: list[list[Arrays]] = []
    chosen: list[int] = []
    for seed in range(PROMPTS):
        request = make_request(bundle.grs, Sample(text=24, seed=seed))
        ids, positions = request.input_ids[None], request.position_ids[:, None]
        past, length = empty_cache(bundle.graph(DECODER)), ids.shape[1]
        calls: list[Arrays] = []
        for _ in range(STEPS):
            calls.append(
                {
                    "inputs_embeds": embed.run({"input_ids": ids})["embeds"],
                    "attention_mask": np.ones((1, length), np.int64),
                    "position_ids": positions,
                }
            )
            out = engine.run(calls[-1] | past)
            past = next_cache(past, out)
            chosen.append(int(out["logits"][0, 0].argmax()))
            ids = np.array([[chosen[-1]]], np.int64)
            positions = np.full((3, 1, 1), positions.max() + 1)
            length += 1
        completions.append(calls)
    return completions, chosen


def track_row(bundle: Bundle, variant: Bundle, name: str, loader: EngineLoader) -> ParityRow:
    """Compare the masks of a clip tracked both ways from its second frame."""
    side = bundle.dus.image_size
    images, boxes = moving_square(8 if side <= 256 else 4, side)
    prompt = KeyframePrompt(1, boxes[1][None])
    masks = [_track(loader, b, images, prompt) for b in (bundle, variant)]
    worst = min(mask_iou(a, b) for a, b in zip(*masks, strict=True))
    return ParityRow(
        subject=f"tracked clip@{name}",
        reference=REFERENCE,
        measure="1 - least mask IoU",
        value=1 - worst,
        tolerance=1 - MIN_IOU,
    )


def _track(
    loader: EngineLoader, bundle: Bundle, images: NDArray[np.uint8], prompt: KeyframePrompt
) -> list[NDArray[Any]]:
    frames = ArrayFrameSource(images)
    run = Sam2Tracker(Sam2Graphs.open(loader, bundle)).track(frames, [prompt], TrackingConfig())
    done = sorted(run, key=lambda f: f.frame_index)
    return [rle_decode(f.masks[0].counts, (frames.height, frames.width)) for f in done]


def mask_iou(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the IoU of two boolean masks; 1 where both are empty."""
    union = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / union) if union else 1.0
