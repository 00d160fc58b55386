"""Predictions on disk as the official evaluators want them: <root>/<video>/<expression>/<frame>.png.

Source: `tools/eval_mevis.py` (henghuiding/MeViS) and `tools/eval_revos.py` (cilinyan/VISA), which read grey
PNGs; any value but 0 is the object for J and F (for A and R see `omni_sdk.metrics.revos`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omni_sdk.datasets import images
from omni_sdk.datasets.records import Sample
from omni_sdk.output.png import encode_png


def prediction_path(root: str | os.PathLike[str], sample: Sample, frame: int) -> Path:
    """Return where the prediction of a frame lies."""
    name = f"{sample.video.frame_names[frame]}.png"
    return Path(root) / sample.video.video_id / sample.expression_id / name


def read_predictions(
    root: str | os.PathLike[str], sample: Sample
) -> Iterator[NDArray[np.bool_] | None]:
    """Yield the predicted mask of every frame in order, (H, W) bool, None where the file is missing.

    Raises:
        DatasetError: a file is there but damaged.
        LimitError: a file has more than 2^26 pixels.
    """
    for frame in range(len(sample.video)):
        path = prediction_path(root, sample, frame)
        yield images.read_mask(path) if path.is_file() else None


def write_prediction(path: str | os.PathLike[str], mask: NDArray[np.bool_], value: int) -> None:
    """Write the predicted mask of a frame as an 8-bit grey PNG; its folder must exist.

    Args:
        path: as from `prediction_path`.
        mask: (H, W) bool.
        value: of the object's pixels, 1 to 255; the background is 0.
    """
    Path(path).write_bytes(encode_png(mask.astype(np.uint8) * np.uint8(value)))
