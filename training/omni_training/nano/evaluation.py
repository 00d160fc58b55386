"""What an evaluation of a checkpoint tells and leaves behind: a table, a row for each kind of clips."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from omni_sdk.demo.evaluate import Statistic
from omni_sdk.utils.files import write_json

Row = Mapping[str, float | Statistic]


def write_evaluation(
    folder: Path,
    checkpoint: Path,
    rows: Iterable[tuple[str, Row]],
    *,
    key: str,
    clips: int,
    mp4: bool,
    say: Callable[[str], None],
) -> Path:
    """Write evaluation-NAME-frames.json or -mp4.json.

    Args:
        folder: where to; made if needed.
        checkpoint: that is evaluated; gives NAME.
        rows: their names and measures, evaluated one by one as they are asked for.
        key: of the rows in the file.
        clips: of each family.
        mp4: whether the clips are read from mp4 files.
        say: told a line per row.

    Returns:
        The file.
    """
    start, table = time.perf_counter(), {}
    for name, row in rows:
        table[name] = {measure: _json(value) for measure, value in row.items()}
        say(f"{name:<21}" + "  ".join(f"{k} {_words(value)}" for k, value in row.items()))
    source = "mp4" if mp4 else "frames"
    value = {
        "checkpoint": checkpoint.name,
        "clips_per_family": clips,
        "source": source,
        "seconds": round(time.perf_counter() - start),
        key: table,
    }
    path = folder / f"evaluation-{checkpoint.name}-{source}.json"
    write_json(path, value, allow_nan=True)
    return path


def _json(value: float | Statistic) -> float | dict[str, float]:
    if not isinstance(value, Statistic):
        return value
    return {"mean": round(value.mean, 4), "se": round(value.standard_error, 4), "n": value.count}


def _words(value: float | Statistic) -> str:
    if not isinstance(value, Statistic):
        return f"{value:.4g}"
    return f"{value.mean:.3f}+-{value.standard_error:.3f}"
