"""What an evaluation of a checkpoint leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_evaluation(
    folder: Path, checkpoint: Path, *, clips: int, mp4: bool, seconds: float, **tables: Any
) -> Path:
    """Write evaluation-NAME-frames.json or -mp4.json into a folder, which is made if needed.

    Args:
        folder: where to.
        checkpoint: that was evaluated; gives NAME.
        clips: of each family.
        mp4: whether the clips were read from mp4 files.
        seconds: that it took.
        **tables: what was measured, by name.

    Returns:
        The file.
    """
    source = "mp4" if mp4 else "frames"
    value = {
        "checkpoint": checkpoint.name,
        "clips_per_family": clips,
        "source": source,
        "seconds": round(seconds),
        **tables,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"evaluation-{checkpoint.name}-{source}.json"
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    return path
