"""Runs `omni-train nano`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from omni_sdk.errors import BundleError

from omni_training.nano.evaluation import Row, write_evaluation
from omni_training.nano.loop import Task, train
from omni_training.nano.provenance import write_record
from omni_training.nano.thinker.config import ThinkerConfig
from omni_training.nano.thinker.evaluate import evaluate_thinker
from omni_training.nano.thinker.task import ThinkerTask
from omni_training.nano.tracker.config import TrackerConfig
from omni_training.nano.tracker.evaluate import evaluate_tracker
from omni_training.nano.tracker.task import TrackerTask

DESCRIPTION = (
    "Coloured shapes and tones: the real architectures with few weights, for demo and tests"
)


def run(arguments: argparse.Namespace) -> int:
    """Train and export, or evaluate; see `omni_training.nano.arguments`.

    Raises:
        OmniError: the folder belongs to another training, a loss diverged, a checkpoint cannot be read, the
            export failed.
    """
    default_threads = torch.get_num_threads()
    torch.set_num_threads(arguments.threads)
    if arguments.evaluate is not None:
        print(_evaluate(arguments))
        return 0
    scale, device, out = arguments.minutes_scale, arguments.device, arguments.out
    if arguments.only != "tracker":
        thinker = ThinkerConfig(seed=arguments.seed).scaled(scale)
        if not _train(ThinkerTask(thinker, out, device), arguments, until=arguments.stage):
            print(f"stopped after stage {arguments.stage}")
            return 0
    if arguments.only != "thinker":
        tracker = TrackerConfig(seed=arguments.seed).scaled(scale)
        _train(TrackerTask(tracker, device), arguments)
    if arguments.only is None:
        torch.set_num_threads(default_threads)  # records the parity that `omni-export` would
        print(export(out))
    return 0


def _train(task: Task, arguments: argparse.Namespace, until: str | None = None) -> bool:
    """Return whether it came to its end."""
    made = train(task, arguments.out, until=until, say=_tell)
    if made is not None:
        stages = {name: stage.steps for name, stage in task.config.stages.items()}
        write_record(made, task.config.seed, arguments.minutes_scale, stages)
        print(made)
    return made is not None


def export(out: Path) -> Path:
    """Make DIR/bundle of DIR/thinker and DIR/tracker.

    Raises:
        BundleError: a checkpoint is incomplete.
        ParityError: a graph is not what torch computes.
    """
    from omni_export.bundle_writer import ExportOptions, export_bundle

    options = ExportOptions(
        grs=str(out / "thinker"),
        dus=str(out / "tracker"),
        name="nano",
        description=DESCRIPTION,
        licenses={"grs": "Apache-2.0", "dus": "Apache-2.0"},
        compact=True,
        force=True,
    )
    for row in export_bundle(out / "bundle", options, _tell).parity:
        print(f"{row.subject}: {row.measure} {row.value:.2g} (allowed {row.tolerance:.2g})")
    return out / "bundle"


def _evaluate(arguments: argparse.Namespace) -> Path:
    checkpoint: Path = arguments.evaluate
    try:
        kind = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise BundleError(
            f"{checkpoint}: no checkpoint of a thinker or tracker, its config.json cannot be read ({e})"
        ) from e
    clips, mp4, device = arguments.clips, arguments.mp4, arguments.device
    rows: Iterable[tuple[str, Row]]
    if kind == "sam2_video":
        key, rows = "table", evaluate_tracker(checkpoint, clips=clips, mp4=mp4, device=device)
    else:
        key, rows = "families", evaluate_thinker(checkpoint, clips=clips, mp4=mp4, device=device)
    return write_evaluation(
        arguments.out, checkpoint, rows, key=key, clips=clips, mp4=mp4, say=_show
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _show(line: str) -> None:
    print(line, flush=True)
