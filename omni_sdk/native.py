"""The only importer of the native module `omni_sdk._core`.

Each kernel's Python face (`omni_sdk.dus.masks`, `omni_sdk.media.pixels.resize`, ...) asks `core()` and falls
back to its numpy reference, which gives the same bytes. A module that was not built is silent; one that is
there and does not load is one warning with the reason.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from typing import Any

IN_USE = "in use"
ABSENT = "absent"
SWITCHED_OFF = "switched off by OMNI_SDK_NO_NATIVE"

logger = logging.getLogger(__name__)


@functools.lru_cache(maxsize=1)
def _load() -> tuple[Any | None, str]:
    """Return the module, if it loads, and the state."""
    if os.environ.get("OMNI_SDK_NO_NATIVE"):
        return None, SWITCHED_OFF
    if importlib.util.find_spec("omni_sdk._core") is None:
        logger.info("omni_sdk._core was not built: numpy references are used (slower, same bytes)")
        return None, ABSENT
    try:
        from omni_sdk import _core
    except Exception as e:  # a wrong platform or ABI, a missing library: each raises its own kind
        reason = f"{type(e).__name__}: {e}"
        logger.warning(
            "the native module omni_sdk._core does not load (%s); numpy references are used (slower, same "
            "bytes); install the wheel of this Python and platform, or build it again",
            reason,
        )
        return None, f"failed: {reason}"
    return _core, IN_USE


def core() -> Any | None:
    """Return the native module, or None where it is not in use."""
    return _load()[0]


def available() -> bool:
    """Tell whether the native kernels are in use."""
    return core() is not None


def state() -> str:
    """Return "in use", "absent", "switched off by OMNI_SDK_NO_NATIVE" or "failed: REASON"."""
    return _load()[1]
