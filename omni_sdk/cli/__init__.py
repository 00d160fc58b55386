"""The command `omni-sdk`: results on stdout, progress on stderr.

Exit codes: 0 done, 1 an error (one line on stderr; --traceback shows all), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

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


class Parser(argparse.ArgumentParser):
    """A parser with the options that every command takes, before or behind its name.

    Args:
        module: declares the other arguments when they are asked for, so that only the module of the command
            that is used is ever imported.
    """

    def __init__(self, *args: Any, module: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._undeclared = module
        self.add_argument(
            "-v",
            "--verbose",
            action="count",
            default=argparse.SUPPRESS,
            help="show on stderr what the parts log; -vv: more of it",
        )
        self.add_argument(
            "--traceback",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show the whole error",
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Declare the arguments, then do what every parser does."""
        self.declare()
        return super().parse_known_args(args, namespace)

    def declare(self) -> None:
        """Declare the command's arguments, once."""
        if self._undeclared is not None:
            module = importlib.import_module(self._undeclared)
            self._undeclared = None
            module.declare_arguments(self)
            self.set_defaults(run=module.run)


def build_parser() -> Parser:
    """Return the argument parser; command modules are imported only when their command is used."""
    parser = Parser(prog="omni-sdk", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"omni-sdk {__version__}")
    parser.set_defaults(verbose=0, traceback=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        module = f"omni_sdk.cli.{name}"
        commands.add_parser(name, help=purpose, description=purpose, module=module)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; None: the process's.

    Returns:
        The exit code.
    """
    from omni_sdk.cli.logs import shown_logs
    from omni_sdk.errors import OmniError

    arguments = build_parser().parse_args(argv)
    try:
        with shown_logs(arguments.verbose):
            return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print("omni-sdk: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone; nothing is left to say
        return 0
    except (OmniError, OSError) as e:
        if arguments.traceback:
            raise
        print(f"omni-sdk: {' '.join(str(e).split())}", file=sys.stderr)
        return 1
