"""Trains or judges a nano tracker: `python -m omni_training.nano.tracker_command`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import torch
from omni_sdk.errors import OmniError
from omni_sdk.hf.sam2_checkpoint import load_model
from transformers import Sam2VideoModel

from omni_training.nano.tracker import STAGES, train_tracker
from omni_training.nano.tracker_checkpoint import FILE, load_progress
from omni_training.nano.tracker_config import TrackerConfig
from omni_training.nano.tracker_evaluate import (
    WRONG_BOX_ERROR,
    evaluate_boxes,
    evaluate_clips,
    evaluate_files,
)
from omni_training.nano.tracker_model import new_model

EVALUATIONS: dict[str, dict[str, float | bool]] = {
    "true_boxes": {},
    "wrong_boxes": {"error": WRONG_BOX_ERROR},
    "true_boxes_backward": {"last": True},
}


def add_tracker_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser."""
    parser.description = (
        "Train the nano tracker (SAM 2.1, 2 M weights) on the procedural world from random weights; the same "
        "seed gives the same training."
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, required=True, help="checkpoint, log and model"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in DIR")
    parser.add_argument("--seed", type=int, default=0, help="of weights and clips (0)")
    for stage in STAGES:
        parser.add_argument(
            f"--{stage}-steps", metavar="N", type=int, help=f"of stage {stage!r}, not the default"
        )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (cpu)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (1)")
    parser.add_argument(
        "--evaluate", action="store_true", help="train nothing: judge what is in DIR, print JSON"
    )
    parser.add_argument("--rules", default="next", help="of the held-out clips (next)")
    parser.add_argument("--clips", type=int, default=33, help="to be judged on (33)")
    parser.add_argument("--mp4", action="store_true", help="judge on mp4 files of 8 frames/s")


def run(arguments: argparse.Namespace) -> int:
    """Train or judge.

    Raises:
        OmniError: a checkpoint cannot be read or belongs to other settings, or a loss is no number.
    """
    torch.set_num_threads(arguments.threads)
    config = settings(arguments)
    if arguments.evaluate:
        model = read_model(arguments.out, config).to(arguments.device)
        values = evaluate(model, arguments.rules, arguments.clips, mp4=arguments.mp4)
        sys.stdout.write(json.dumps(values, indent=1) + "\n")
        return 0
    train_tracker(
        config,
        arguments.out,
        resume=arguments.resume,
        device=arguments.device,
        say=_tell,
    )
    return 0


def settings(arguments: argparse.Namespace) -> TrackerConfig:
    """Return the settings that the options ask for."""
    config = TrackerConfig(seed=arguments.seed)
    for name in STAGES:
        steps = getattr(arguments, f"{name}_steps")
        if steps is not None:
            stage = dataclasses.replace(getattr(config, name), steps=steps)
            config = dataclasses.replace(config, **{name: stage})
    return config


def read_model(folder: Path, config: TrackerConfig) -> Sam2VideoModel:
    """Return the model of a training, finished or not, or of a checkpoint folder of transformers.

    Raises:
        BundleError: there is none, or it belongs to other settings.
    """
    if (folder / "config.json").exists():
        return load_model(folder)
    if not (folder / FILE).exists():
        return load_model(folder / "tracker")
    progress = load_progress(folder, config)
    assert progress is not None
    model = new_model(config.sizes, config.seed)
    model.load_state_dict(progress.model)
    return model.eval()


def evaluate(
    model: Sam2VideoModel, rules: str, clips: int, *, mp4: bool
) -> dict[str, dict[str, float]]:
    """Judge a model from true and wrong boxes and backward in time; see `tracker_evaluate`."""
    judge = evaluate_files if mp4 else evaluate_clips
    results = {"boxes": evaluate_boxes(model, rules=rules, clips=4 * clips)}
    for name, options in EVALUATIONS.items():
        results[name] = judge(model, rules=rules, clips=clips, **options)  # type: ignore[arg-type]
    return results


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main(argv: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m omni_training.nano.tracker_command")
    add_tracker_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except (OmniError, OSError) as e:
        sys.stderr.write(f"nano tracker: {' '.join(str(e).split())}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
