"""omni-sdk: ask a video, with its sound, a question; get reasoning, keyframes and mask tracks.

Names are loaded on first use (PEP 562): `import omni_sdk` itself loads neither numpy, PyAV, torch nor an
inference engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from omni_sdk._version import __version__

if TYPE_CHECKING:
    from omni_sdk.config import GenerationConfig, SamplingConfig, TrackingConfig
    from omni_sdk.dus.tracks import MaskTrack
    from omni_sdk.errors import OmniError
    from omni_sdk.media.frames import VideoInfo
    from omni_sdk.pipeline import Pipeline
    from omni_sdk.results import Result
    from omni_sdk.stages import GroundedObject, Keyframe
    from omni_sdk.utils.timing import StageTimings

_LAZY = {
    "Pipeline": "omni_sdk.pipeline",
    "SamplingConfig": "omni_sdk.config",
    "GenerationConfig": "omni_sdk.config",
    "TrackingConfig": "omni_sdk.config",
    "Result": "omni_sdk.results",
    "Keyframe": "omni_sdk.stages",
    "GroundedObject": "omni_sdk.stages",
    "MaskTrack": "omni_sdk.dus.tracks",
    "VideoInfo": "omni_sdk.media.frames",
    "StageTimings": "omni_sdk.utils.timing",
    "OmniError": "omni_sdk.errors",
}

__all__ = [  # noqa: RUF022 - in the order of use
    "Pipeline",
    "SamplingConfig",
    "GenerationConfig",
    "TrackingConfig",
    "Result",
    "Keyframe",
    "GroundedObject",
    "MaskTrack",
    "VideoInfo",
    "StageTimings",
    "OmniError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'omni_sdk' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
