"""Options of a wrong type are refused where they are made, by name."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from omni_sdk.config import (
    GenerationConfig,
    ModelOptions,
    PipelineConfig,
    SamplingConfig,
    TrackingConfig,
)
from omni_sdk.errors import LimitError, OptionError
from omni_sdk.evaluation.plan import Options as EvaluationOptions
from omni_sdk.media.limits import MediaLimits


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (SamplingConfig, {"num_frames": "3"}, "num_frames must be an integer or None, got '3' (str)"),
        (SamplingConfig, {"num_frames": True}, "an integer or None, got True (bool)"),
        (SamplingConfig, {"audio": "no"}, "audio must be True or False, got 'no' (str)"),
        (SamplingConfig, {"pixels": ["fast"]}, "pixels must be 'exact' or 'fast', got ['fast'] (list)"),
        (SamplingConfig, {"parity": ["fast"]}, "parity must be 'hf' or 'fast', got ['fast']"),
        (GenerationConfig, {"max_new_tokens": 3.0}, "max_new_tokens must be an integer or None, got 3.0"),
        (GenerationConfig, {"temperature": None}, "temperature must be a number, got None (NoneType)"),
        (GenerationConfig, {"top_p": 1j}, "top_p must be a number, got 1j (complex)"),
        (GenerationConfig, {"seed": 1.5}, "seed must be an integer, got 1.5 (float)"),
        (GenerationConfig, {"stop": "end"}, "stop must be a tuple (each a text), got 'end' (str)"),
        (GenerationConfig, {"stop": ("end", 3)}, "stop must be a tuple (each a text), got ('end', 3)"),
        (TrackingConfig, {"max_keyframes": 2.5}, "max_keyframes must be an integer, got 2.5 (float)"),
        (TrackingConfig, {"stride": True}, "stride must be an integer or 'auto', got True (bool)"),
        (TrackingConfig, {"stride": "often"}, "stride must be an integer or 'auto', got 'often' (str)"),
        (TrackingConfig, {"match_iou": "1"}, "match_iou must be a number, got '1' (str)"),
        (PipelineConfig, {"sampling": {"num_frames": 3}}, "sampling must be a SamplingConfig, got {"),
        (PipelineConfig, {"tracking": None}, "tracking must be a TrackingConfig, got None (NoneType)"),
        (PipelineConfig, {"on_parse_error": 0}, "on_parse_error must be a text, got 0 (int)"),
        (ModelOptions, {"device": 0}, "device must be a text, got 0 (int)"),
        (ModelOptions, {"threads": "2"}, "threads must be an integer or None, got '2' (str)"),
        (ModelOptions, {"variant": "fp16"}, "variant must be a tuple (each a text), got 'fp16' (str)"),
        (ModelOptions, {"providers": ("X", 3)}, "providers must be a tuple (each a text or"),
        (ModelOptions, {"providers": (("X", {}, 3),)}, "each a text or a tuple (a text, a Mapping)"),
        (ModelOptions, {"memory_budget": b"8GB"}, "an integer or a number or a text or None, got b'8GB'"),
        (EvaluationOptions, {"fps": "6"}, "fps must be a number or None, got '6' (str)"),
    ],
)  # fmt: skip
def test_values_of_another_type(
    make: Callable[..., object], options: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        make(**options)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_frames": "3"}, "max_frames must be a number, got '3' (str)"),
        ({"max_pixels": True}, "max_pixels must be a number, got True (bool)"),
        ({"max_wall_seconds": None}, "max_wall_seconds must be a number, got None (NoneType)"),
        ({"protocols": "https"}, "protocols must be a tuple (each a text), got 'https' (str)"),
    ],
)
def test_limits_of_another_type(limits: dict[str, object], message: str) -> None:
    """`"http" in "https"` is true: a text would allow what it does not name."""
    with pytest.raises(LimitError, match=re.escape(message)):
        MediaLimits(**limits)


def test_values_that_pass_for_the_type() -> None:
    """NumPy's numbers, whole numbers for fractions, lists of texts, and providers with their options."""
    assert TrackingConfig(np.int64(2), stride=np.uint8(3)) == TrackingConfig(2, stride=3)
    assert GenerationConfig(temperature=1, top_p=np.float32(0.5)) == GenerationConfig(
        None, 1.0, 0.5
    )
    assert GenerationConfig(stop=["a"]).stop == ["a"]  # type: ignore[arg-type]
    assert ModelOptions(providers=("A", ("B", {"k": 1}))).providers == ("A", ("B", {"k": 1}))
    assert MediaLimits(max_file_bytes=8e9, max_frames=np.int64(3)).max_frames == 3
    assert ModelOptions(memory_budget=8e9).memory_budget == 8e9
