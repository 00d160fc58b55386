"""Upsampling, threshold and encoding in one pass: equal to torch's interpolate and to numpy."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from omni_sdk.dus import masks, masks_numpy

pytestmark = pytest.mark.usefixtures("built")

SIDES = st.tuples(st.integers(1, 24), st.integers(1, 40))
SIZES = st.tuples(st.integers(1, 90), st.integers(1, 150))
NUMBERS = [0.0, -0.0, 1e-45, -1e-45, 3e38, -3e38, np.nan, np.inf, -np.inf, 1.0, 0.99999994]
SPECIAL = np.array(NUMBERS, np.float32).tolist()  # as float32 has them
VALUES = st.one_of(st.floats(-8, 8, width=32), st.sampled_from(SPECIAL))


def smooth_logits(seed: int, height: int, width: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    hill = 3 - 12 * np.hypot(x - 0.5, (y - 0.4) * 1.3)
    return (hill + rng.normal(0, 0.7, (height, width))).astype(np.float32)


@settings(max_examples=200, deadline=None)
@given(st.data(), SIDES, SIZES, st.one_of(st.just(0.0), st.sampled_from(SPECIAL[:6]), VALUES))
def test_equals_numpy(
    data: st.DataObject, side: tuple[int, int], size: tuple[int, int], threshold: float
) -> None:
    """Bit for bit, also where logits are equal to the threshold, subnormal or not finite."""
    if not np.isfinite(np.float32(threshold)):
        threshold = 0.0
    logits = data.draw(hnp.arrays(np.float32, side, elements=VALUES, fill=VALUES))
    mask = masks_numpy.logits_to_mask(logits, size, threshold)
    assert masks.logits_to_rle(logits, size, threshold) == masks_numpy.rle_encode(mask)


@pytest.mark.parametrize("threshold", [0.0, 0.7, -3.25])
@pytest.mark.parametrize(
    ("side", "size"),
    [
        ((256, 256), (1080, 1920)),
        ((256, 256), (480, 854)),
        ((32, 32), (128, 128)),
        ((33, 47), (100, 999)),
        ((64, 64), (64, 65)),
        ((100, 80), (50, 90)),
    ],
)
def test_equals_numpy_at_real_sizes(
    side: tuple[int, int], size: tuple[int, int], threshold: float
) -> None:
    logits = smooth_logits(3, *side)
    mask = masks_numpy.logits_to_mask(logits, size, threshold)
    assert masks.logits_to_rle(logits, size, threshold) == masks_numpy.rle_encode(mask)


PORTABLE_CHECK = """
import numpy as np
from omni_sdk.dus import masks
rng = np.random.default_rng(7)
for side, size in [((64, 64), (240, 427)), ((33, 47), (100, 299)), ((100, 80), (50, 90))]:
    logits = rng.normal(0, 4, side).astype(np.float32)
    logits[:, : side[1] // 2] += 9
    print(masks.logits_to_rle(logits, size).hex())
"""


def test_the_portable_loops_give_the_same_bytes(outputs_of_paths) -> None:
    text, portable = outputs_of_paths(PORTABLE_CHECK)
    assert text == portable
    assert len(text.split()) == 3


TORCH_CHECK = """
import numpy as np, torch
from omni_sdk.dus import masks, masks_numpy
torch.set_num_threads(1)
rng = np.random.default_rng(5)
exact = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
for side, size in [((256, 256), (1080, 1920)), ((256, 256), (480, 854)), ((32, 32), (128, 128)),
                   ((64, 64), (300, 173)), ((33, 47), (100, 999)), ((100, 80), (90, 50)),
                   ((20, 30), (37, 61))]:
    logits = rng.normal(0, 4, side).astype(np.float32)
    values = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None, None], size=size, mode="bilinear", align_corners=False
    )[0, 0].numpy()
    for threshold in (0.0, float(values.flat[values.size // 3])):
        mask = masks.rle_decode(masks.logits_to_rle(logits, size, threshold), size)
        differ = mask != (values > np.float32(threshold))
        if exact and sum(size) > 128:
            assert not differ.any(), (side, size, threshold, differ.sum())
        # coordinates may differ by an ulp of the side, values by a few ulps of the largest logit
        slack = np.abs(logits).max() * (2.0**-20 + max(side) * 2.0**-22)
        assert (np.abs(values[differ] - threshold) <= slack).all(), (side, size, threshold)
        assert differ.mean() < 0.01
print(torch.backends.cpu.get_cpu_capability(), "ok")
"""


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_equals_torch(capability: str) -> None:
    """Exactly where torch runs its fused kernel, within rounding of the threshold elsewhere."""
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-c", TORCH_CHECK],
        env={**os.environ, "ATEN_CPU_CAPABILITY": capability},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_batch_and_layouts() -> None:
    logits = np.stack([smooth_logits(seed, 40, 30) for seed in range(3)])
    expected = [masks.logits_to_rle(one, (77, 131)) for one in logits]
    assert masks.logits_to_rles(logits, (77, 131)) == expected
    fortran = np.asfortranarray(logits)
    assert masks.logits_to_rles(fortran, (77, 131)) == expected
    assert masks.logits_to_rle(logits[1].T, (131, 77)) == masks_numpy.rle_encode(
        masks.rle_decode(expected[1], (77, 131)).T
    )
    assert masks.logits_to_rles(logits[:0], (77, 131)) == []


@pytest.mark.parametrize(
    ("logits", "threshold", "error"),
    [
        (np.zeros((4, 4)), 0.0, TypeError),
        (np.zeros((4, 4), np.float16), 0.0, TypeError),
        (np.zeros(4, np.float32), 0.0, ValueError),
        (np.zeros((0, 4), np.float32), 0.0, ValueError),
        (np.zeros((4, 4), np.float32), np.nan, ValueError),
        (np.zeros((4, 4), np.float32), np.inf, ValueError),
        (np.zeros((4, 4), np.float32), 1e300, ValueError),
    ],
)
def test_bad_arguments(
    logits: NDArray[np.float32], threshold: float, error: type[Exception]
) -> None:
    with pytest.raises(error):
        masks.logits_to_rle(logits, (8, 8), threshold)
