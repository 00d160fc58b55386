"""Functions that configurations name as "module:function": samples of a run, scorers of a worker.

Nothing is unpickled: a name is looked up in the installed code. Names that configurations of earlier
versions carry go on working.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

MOVED = {
    f"omni_training.{name}": f"omni_training.{home}.{name}"
    for name, home in {
        "image_samples": "data",
        "mixed_samples": "data",
        "video_samples": "data",
        "world": "data",
        "world_samples": "data",
        "tiny": "grpo",
    }.items()
}
"""Module as configurations before 0.2.0 name it -> where it is now."""


def find_factory(name: str) -> Callable[..., Any]:
    """Return the function that "module:function" names.

    Raises:
        ValueError: not "module:function", or there is no such function.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ValueError(f"expected 'module:function', got {name!r}")
    try:
        found = getattr(importlib.import_module(MOVED.get(module, module)), attribute)
    except (ImportError, AttributeError) as e:
        raise ValueError(f"cannot import {name!r}: {e}") from e
    if not callable(found):
        raise ValueError(f"{name!r} is a {type(found).__name__}, expected a function")
    return found  # type: ignore[no-any-return]
