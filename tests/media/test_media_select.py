"""Which frames are chosen."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_sdk.media.file_video import share_out, split_evenly
from omni_sdk.media.select import bin_indices, frames_at, linspace_indices, select_frames


@settings(deadline=None, max_examples=200)
@given(total=st.integers(1, 20_000), count=st.integers(1, 800))
def test_linspace_is_exact_and_torchs_but_for_ties(total, count) -> None:
    torch = pytest.importorskip("torch")
    ours = linspace_indices(total, count)
    exact = [Fraction(k * (total - 1), max(count - 1, 1)) for k in range(count)]
    assert ours.tolist() == [round(value) for value in exact]
    theirs = torch.linspace(0, total - 1, count).round().long().numpy()
    resolution = Fraction(total, 1 << 23)  # of torch's float32
    for value, a, b in zip(exact, ours, theirs, strict=True):
        assert a == b or abs(value % 1 - Fraction(1, 2)) <= resolution


def test_bins_are_equal_in_time() -> None:
    seconds = np.arange(80) / 8
    assert bin_indices(seconds, 10.0, 20).tolist() == list(range(0, 80, 4))
    assert bin_indices(seconds, 10.0, 3).tolist() == [0, 27, 54]  # 3.33 s -> 3.375, 6.67 -> 6.75
    uneven = np.array([0.0, 0.1, 0.2, 3.0])  # two spans have no frame of their own
    assert bin_indices(uneven, 4.0, 4).tolist() == [0, 2, 2, 3]


def test_frame_on_screen() -> None:
    seconds = np.array([0.0, 0.04, 0.08, 1.0])
    found = frames_at(seconds, np.array([-1, 0, 0.039, 0.0400000001, 0.5, 9]))
    assert found.tolist() == [0, 0, 0, 1, 2, 3]


def test_ways_of_naming_frames() -> None:
    seconds = np.arange(100) / 25
    assert select_frames(seconds, 4.0, num_frames=24).tolist()[:3] == [0, 4, 9]
    assert select_frames(seconds, 4.0, fps=2).tolist() == [0, 12, 25, 37, 50, 62, 75, 87]
    assert select_frames(seconds, 4.0, fps=1000).tolist() == list(range(100))
    assert select_frames(seconds, 4.0, times_seconds=[4.0, 0.0, 0.05]).tolist() == [99, 0, 1]
    assert select_frames(seconds, 4.0, indices=[5, 5, 2]).tolist() == [5, 5, 2]
    assert select_frames(seconds[:3], 0.12, num_frames=24).tolist() == [0, 1, 2]
    assert select_frames(seconds[:3], 0.12, num_frames=24, strategy="bins").tolist() == [0, 1, 2]


@settings(deadline=None, max_examples=100)
@given(
    steps=st.lists(st.floats(0, 5), min_size=1, max_size=40),
    count=st.integers(1, 60),
    strategy=st.sampled_from(["linspace", "bins"]),
)
def test_choices_are_in_range_and_ascend(steps, count, strategy) -> None:
    seconds = np.cumsum([0.0, *steps])
    chosen = select_frames(seconds, seconds[-1] + 0.04, num_frames=count, strategy=strategy)
    assert len(chosen) == min(count, len(seconds))
    assert chosen[0] == 0 or strategy == "bins"
    assert chosen.min() >= 0
    assert chosen.max() < len(seconds)
    assert (np.diff(chosen) >= 0).all()


@pytest.mark.parametrize("count", [1, 2, 4, 7, 40, 100])
@pytest.mark.parametrize("shares", [1, 2, 4])
def test_groups_are_shared_out_evenly(count, shares) -> None:
    sizes = np.random.default_rng(count).integers(1, 40, count)
    groups = [(50 * n, 50 * n + int(size) - 1, [n]) for n, size in enumerate(sizes)]
    parts = split_evenly(groups, shares)
    assert sorted(g for part in parts for g in part) == groups
    assert len(parts) == min(count, shares)
    assert all(part == sorted(part) for part in parts)
    loads = [sum(last - first + 1 for first, last, _ in part) for part in parts]
    if count >= shares:
        assert max(loads) - min(loads) <= 2 * max(sizes)


def test_containers_for_many_groups_and_threads_for_a_large_one() -> None:
    even = [(30 * n, 30 * n + 20, [n]) for n in range(8)]
    large = [(0, 242, [0]), (250, 290, [1])]
    for groups, cpus, most, can_thread, expected in (
        (even, 2, 4, True, (2, 1)),
        (even, 8, 4, True, (4, 2)),
        (even, 2, 1, True, (1, 2)),
        (even, 1, 4, True, (1, 1)),
        (large, 2, 4, True, (1, 2)),
        (large, 2, 4, False, (2, 1)),
        (large[:1], 2, 4, True, (1, 2)),
    ):
        shares, threads = share_out(groups, cpus, most, can_thread=can_thread)
        assert (len(shares), threads) == expected
        assert sorted(g for share in shares for g in share) == groups
