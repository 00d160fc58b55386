"""A tracker's checkpoint on held-out clips, from true boxes, wrong ones, and backward in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from omni_sdk.demo.world import FAMILIES
from omni_sdk.hf.sam2_checkpoint import load_model

from omni_training.nano.evaluation import write_evaluation
from omni_training.nano.tracker.evaluate import (
    WRONG_BOX_ERROR,
    evaluate_boxes,
    evaluate_clips,
    evaluate_files,
)

PROMPTS: dict[str, dict[str, float | bool]] = {
    "true_boxes": {},
    "wrong_boxes": {"error": WRONG_BOX_ERROR},
    "true_boxes_backward": {"last": True},
}


def evaluate_tracker_into(
    folder: Path,
    checkpoint: Path,
    *,
    clips: int,
    mp4: bool = False,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Evaluate a tracker.

    Args:
        folder: gets evaluation-NAME-frames.json or -mp4.json; made if needed.
        checkpoint: folder in transformers' layout.
        clips: of each family.
        mp4: read the clips from mp4 files of 8 frames/s; else 16 frames of each, never encoded.
        device: torch's name.
        say: told a line per row of the table.

    Returns:
        The JSON file; its measures are those of `evaluate_boxes` and `summarise_tracks`.

    Raises:
        BundleError: the checkpoint is incomplete, or not of a known layout.
    """
    model = load_model(checkpoint).to(device)
    judge, count = evaluate_files if mp4 else evaluate_clips, clips * len(FAMILIES)
    start = time.perf_counter()
    table = {"boxes": evaluate_boxes(model, clips=count)}
    say(_row("boxes", table["boxes"]))
    for name, options in PROMPTS.items():
        table[name] = judge(model, clips=count, **options)  # type: ignore[arg-type]
        say(_row(name, table[name]))
    seconds = time.perf_counter() - start
    return write_evaluation(folder, checkpoint, clips=clips, mp4=mp4, seconds=seconds, table=table)


def _row(name: str, values: dict[str, float]) -> str:
    return f"{name:<20}" + "  ".join(f"{key} {value:.4g}" for key, value in values.items())
