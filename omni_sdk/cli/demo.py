"""`omni-sdk demo`: generated clips with sound, real mp4 files, exact ground truth."""

from __future__ import annotations

import argparse


def declare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    raise NotImplementedError
