"""`omni-sdk ask VIDEO QUESTION`: plain question answering."""

from __future__ import annotations

import argparse

from omni_sdk.cli import common
from omni_sdk.cli.options import declare_options, read_pipeline
from omni_sdk.config import GenerationConfig, SamplingConfig


def declare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("video", help="path of a video or image")
    parser.add_argument("question", help="the question, in words")
    declare_options(parser, SamplingConfig)
    declare_options(parser, GenerationConfig)
    common.declare_model(parser)
    common.declare_limits(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    config = read_pipeline(arguments)
    pipeline = common.load_pipeline(arguments)
    if pipeline.bundle.name == "nano":
        common.say(common.NANO_WARNING)
    reply = pipeline.ask(arguments.video, arguments.question, config=config)
    if reply.thinking.strip():
        common.say(f"thinking: {reply.thinking.strip()}")
    print(reply.answer.strip() or reply.text.strip())
    return 0
