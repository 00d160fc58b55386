from __future__ import annotations

import pytest

from omni_sdk.utils.text import format_time


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "00:00.00"), (7.5, "00:07.50"), (61.25, "01:01.25"), (600, "10:00.00")),
        *((1.996, "00:02.00"), (59.999, "01:00.00"), (0.994, "00:00.99")),
    ],
)
def test_times_are_rounded_before_they_are_split(seconds: float, text: str) -> None:
    assert format_time(seconds) == text
