"""The command `omni-sdk`: results on stdout, progress on stderr.

Exit codes: 0 done, 1 an `OmniError` (one line on stderr; --traceback shows all), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from omni_sdk._version import __version__

COMMANDS = {
    "run": "find what a question asks for, and its mask in every frame",
    "ask": "answer a plain question about a video in words",
    "eval": "run a benchmark, score predictions, check a data set",
    "demo": "watch generated clips with the shipped models and score the answers",
    "verify": "check every file and graph of a bundle without running it",
    "inspect": "show what a bundle or a video holds",
    "bench": "time every stage on this machine, or compare two such results",
    "doctor": "run a small graph on every engine here and compare the results",
}


def build_parser() -> argparse.ArgumentParser:
    """Return the argument parser; command modules are imported only when their command is used."""
    parser = argparse.ArgumentParser(prog="omni-sdk", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"omni-sdk {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show the whole error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        module = importlib.import_module(f"omni_sdk.cli.{name}")
        module.declare_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; None: the process's.

    Returns:
        The exit code.
    """
    from omni_sdk.errors import OmniError

    arguments = build_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except OmniError as e:
        if arguments.traceback:
            raise
        print(f"omni-sdk: {' '.join(str(e).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("omni-sdk: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone; nothing is left to say
        return 0
