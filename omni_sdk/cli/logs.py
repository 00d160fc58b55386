"""The loggers of omni_sdk on stderr, while a command runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_LEVELS = (logging.NOTSET, logging.INFO, logging.DEBUG)


@contextmanager
def shown_logs(verbose: int) -> Iterator[None]:
    """Write warnings to stderr, with verbose 1 what is at level INFO as well, with 2 all."""
    handler = logging.StreamHandler()
    if verbose:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("omni_sdk")
    logger.addHandler(handler)
    try:
        with at_level(logger, _LEVELS[min(verbose, 2)]):
            yield
    finally:
        logger.removeHandler(handler)


@contextmanager
def at_level(logger: logging.Logger, level: int) -> Iterator[None]:
    """Let a logger speak from a level on, if it is not more talkative anyway; NOTSET changes nothing."""
    before = logger.level
    if level != logging.NOTSET and level < logger.getEffectiveLevel():
        logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
