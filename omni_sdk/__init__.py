"""omni-sdk: ask a video, with its sound, a question; get reasoning, keyframes and mask tracks.

Names are loaded on first use (PEP 562): `import omni_sdk` itself loads neither numpy, PyAV, torch nor an
inference engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from omni_sdk._version import __version__

if TYPE_CHECKING:
    from omni_sdk.config import (
        GenerationConfig,
        ModelOptions,
        PipelineConfig,
        SamplingConfig,
        TrackingConfig,
    )
    from omni_sdk.dus.tracks import MaskTrack
    from omni_sdk.errors import (
        BackendUnavailableError,
        BundleError,
        EngineError,
        LimitError,
        MediaError,
        MemoryBudgetError,
        ModelOutputError,
        OmniError,
        OptionError,
        ParityError,
        PromptError,
        QueryError,
        ResultError,
    )
    from omni_sdk.events import Event, Finished, Frame, Grounded, Reasoned
    from omni_sdk.media.frames import VideoInfo
    from omni_sdk.media.limits import MediaLimits
    from omni_sdk.media.source import Source, open_source
    from omni_sdk.pipeline import Pipeline
    from omni_sdk.results import BundleInfo, Result
    from omni_sdk.stages import (
        GroundedBox,
        GroundedObject,
        Keyframe,
        KeyframePrompt,
        Reasoning,
        Segment,
    )
    from omni_sdk.utils.timing import StageTimings

_LAZY = {
    "PipelineConfig": "omni_sdk.config",
    "SamplingConfig": "omni_sdk.config",
    "GenerationConfig": "omni_sdk.config",
    "TrackingConfig": "omni_sdk.config",
    "ModelOptions": "omni_sdk.config",
    "MediaLimits": "omni_sdk.media.limits",
    "Source": "omni_sdk.media.source",
    "open_source": "omni_sdk.media.source",
    "VideoInfo": "omni_sdk.media.frames",
    "Event": "omni_sdk.events",
    "Finished": "omni_sdk.events",
    "Frame": "omni_sdk.events",
    "Grounded": "omni_sdk.events",
    "Reasoned": "omni_sdk.events",
    "Pipeline": "omni_sdk.pipeline",
    "BundleInfo": "omni_sdk.results",
    "Result": "omni_sdk.results",
    "GroundedBox": "omni_sdk.stages",
    "GroundedObject": "omni_sdk.stages",
    "Keyframe": "omni_sdk.stages",
    "KeyframePrompt": "omni_sdk.stages",
    "Reasoning": "omni_sdk.stages",
    "Segment": "omni_sdk.stages",
    "MaskTrack": "omni_sdk.dus.tracks",
    "StageTimings": "omni_sdk.utils.timing",
    "BackendUnavailableError": "omni_sdk.errors",
    "BundleError": "omni_sdk.errors",
    "EngineError": "omni_sdk.errors",
    "LimitError": "omni_sdk.errors",
    "MediaError": "omni_sdk.errors",
    "MemoryBudgetError": "omni_sdk.errors",
    "ModelOutputError": "omni_sdk.errors",
    "OmniError": "omni_sdk.errors",
    "OptionError": "omni_sdk.errors",
    "ParityError": "omni_sdk.errors",
    "PromptError": "omni_sdk.errors",
    "QueryError": "omni_sdk.errors",
    "ResultError": "omni_sdk.errors",
}

__all__ = [  # noqa: RUF022 - by their modules
    "PipelineConfig",
    "SamplingConfig",
    "GenerationConfig",
    "TrackingConfig",
    "ModelOptions",
    "MediaLimits",
    "Source",
    "open_source",
    "VideoInfo",
    "Event",
    "Finished",
    "Frame",
    "Grounded",
    "Reasoned",
    "Pipeline",
    "BundleInfo",
    "Result",
    "GroundedBox",
    "GroundedObject",
    "Keyframe",
    "KeyframePrompt",
    "Reasoning",
    "Segment",
    "MaskTrack",
    "StageTimings",
    "BackendUnavailableError",
    "BundleError",
    "EngineError",
    "LimitError",
    "MediaError",
    "MemoryBudgetError",
    "ModelOutputError",
    "OmniError",
    "OptionError",
    "ParityError",
    "PromptError",
    "QueryError",
    "ResultError",
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
