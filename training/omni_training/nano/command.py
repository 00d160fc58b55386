"""Runs `omni-train nano`."""

from __future__ import annotations

import argparse
import sys

import torch

from omni_training.nano.config import NanoConfig
from omni_training.nano.train import train


def run(arguments: argparse.Namespace) -> int:
    """Train or evaluate; see `omni_training.nano.arguments`.

    Raises:
        OmniError: the folder belongs to another training, a loss diverged, a checkpoint cannot be read.
    """
    torch.set_num_threads(arguments.threads)
    if arguments.evaluate is not None:
        from omni_training.nano.evaluate import evaluate_into

        path = evaluate_into(
            arguments.out,
            arguments.evaluate,
            clips=arguments.clips,
            mp4=arguments.mp4,
            device=arguments.device,
            say=lambda line: print(line, flush=True),
        )
        print(path)
        return 0
    config = NanoConfig(seed=arguments.seed).scaled(arguments.minutes_scale)
    final = train(
        arguments.out,
        config,
        until=arguments.stage,
        device=arguments.device,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(final if final is not None else f"stopped after stage {arguments.stage}")
    return 0
