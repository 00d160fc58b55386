from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_sdk.media.clock import Clock


def clock(n: int = 16, duration: float = 8.0, virtual_fps: float | None = 2.0) -> Clock:
    indices = np.linspace(0, n * 10 - 1, n).round().astype(np.int64)
    return Clock(indices, indices * duration / (n * 10), duration, virtual_fps)


def test_the_virtual_clock_is_the_authors() -> None:
    """A 60 s clip of 24 frames is shown as 12 s; index = min(int(t * 2), N - 1)."""
    c = clock(24, 60.0)
    assert c.duration_seconds == 12.0
    assert [c.sample_at(t) for t in (0, 0.49, 0.5, 11.9, 12.0, 99.0, -1.0)] == [
        0,
        0,
        1,
        23,
        23,
        23,
        0,
    ]
    assert c.frame_at(12.0) == 239
    assert c.to_real(12.0) == 60.0


@settings(deadline=None)
@given(
    st.integers(1, 24),
    st.floats(0.1, 3600),
    st.sampled_from([2.0, 1.0, None]),
    st.floats(0, 1),
)
def test_both_ways(n: int, duration: float, virtual_fps: float | None, share: float) -> None:
    c = clock(n, duration, virtual_fps)
    for i in range(n):
        told = i / virtual_fps if virtual_fps else float(c.pts_seconds[i])
        assert c.to_real(told) == pytest.approx(c.pts_seconds[i])
        assert c.sample_at(told + 1e-9) == i
    first = c.to_told(float(c.pts_seconds[0]))
    told = first + share * (c.duration_seconds - first)
    assert c.to_told(c.to_real(told)) == pytest.approx(told, abs=1e-6 * max(1, duration))


def test_an_empty_clock_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Clock(np.zeros(0, np.int64), np.zeros(0), 0.0)
