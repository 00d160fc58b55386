"""The only importer of the native module `omni_sdk._core`.

Each kernel's Python face (`omni_sdk.dus.masks`, `omni_sdk.media.pixels.resize`, ...) asks `core()` and falls
back to its numpy reference, which gives the same bytes, when the module was not built.
"""

from __future__ import annotations

import functools
import os
from typing import Any


@functools.lru_cache(maxsize=1)
def _load() -> Any | None:
    if os.environ.get("OMNI_SDK_NO_NATIVE"):
        return None
    try:
        from omni_sdk import _core
    except ImportError:
        return None
    return _core


def core() -> Any | None:
    """Return the native module, or None where it is absent or OMNI_SDK_NO_NATIVE is set."""
    return _load()


def available() -> bool:
    """Tell whether the native kernels are in use."""
    return _load() is not None
