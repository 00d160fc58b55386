"""Warped masks: native equals numpy to the last bit, motion is found, trouble lowers the confidence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from omni_sdk import native
from omni_sdk.dus.flow import points_numpy, warp
from omni_sdk.dus.flow.warp import MaskWarper
from omni_sdk.dus.masks import mask_iou

Clip = tuple[NDArray[np.uint8], NDArray[np.bool_]]


def noise(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float64]:
    """Smooth random grey values, about 128 +- 45, that repeat at the edges."""
    field = np.fft.fft2(rng.normal(size=size))
    fy, fx = np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])
    field = np.fft.ifft2(field / np.maximum(np.hypot(fy, fx), 0.03) ** 1.2).real
    return np.clip(128 + 45 * field / field.std(), 0, 255)


def look(image: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray:
    """Bilinear samples of a picture that repeats itself."""
    h, w = image.shape
    i, j = np.floor(y).astype(int), np.floor(x).astype(int)
    b, a = y - i, x - j
    top = image[i % h, j % w] * (1 - a) + image[i % h, (j + 1) % w] * a
    low = image[(i + 1) % h, j % w] * (1 - a) + image[(i + 1) % h, (j + 1) % w] * a
    return top * (1 - b) + low * b


def make(
    seed: int,
    frames: int,
    size: tuple[int, int] = (144, 192),
    *,
    velocity: tuple[float, float] = (3.3, 1.7),
    spin: float = 0.03,
    growth: float = 0.01,
    wave: float = 0.0,
    radius: float = 26.0,
) -> Clip:
    """A textured, flattened disk that moves before a still texture, and its exact masks."""
    rng = np.random.default_rng(seed)
    ground, skin = noise(rng, size), noise(rng, (128, 128))
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    luma, masks = [], []
    for t in range(frames):
        s, c, k = np.sin(spin * t), np.cos(spin * t), np.exp(growth * t)
        dx = (x - size[1] * 0.4 - velocity[0] * t) / k
        dy = (y - size[0] * 0.4 - velocity[1] * t) / k
        u, v = dx * c + dy * s, dy * c - dx * s
        u = u + wave * np.sin(v / 12 + t / 3)
        mask = u**2 + (1.3 * v) ** 2 < radius**2
        image = np.where(mask, look(skin, u, v), ground) + rng.normal(0, 1.5, size)
        luma.append(np.clip(np.rint(image), 0, 255).astype(np.uint8))
        masks.append(mask)
    return np.stack(luma), np.stack(masks)


@pytest.fixture(scope="module")
def rigid() -> Clip:
    return make(0, 9)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[MaskWarper, MaskWarper]]:
    """Return a maker of two warpers of one anchor: native and numpy."""
    if not native.available():
        pytest.fail("omni_sdk._core is not built, or OMNI_SDK_NO_NATIVE is set")

    def build(*args: object) -> tuple[MaskWarper, MaskWarper]:
        ours = MaskWarper(*args)  # type: ignore[arg-type]
        monkeypatch.setattr(warp, "_kernels", lambda: points_numpy)
        reference = MaskWarper(*args)  # type: ignore[arg-type]
        monkeypatch.undo()
        return ours, reference

    return build


def same(ours: MaskWarper, reference: MaskWarper) -> bool:
    """Whether all that they know is equal, bit for bit."""
    names = ("_start", "_now", "_smooth", "_velocity", "_belief", "_affine", "_mask")
    return all(np.array_equal(getattr(ours, n), getattr(reference, n)) for n in names)


@pytest.mark.parametrize("options", [{}, {"wave": 3.0}, {"velocity": (-9.0, 2.0), "growth": -0.02}])
def test_native_equals_numpy(both, options) -> None:
    luma, masks = make(1, 6, **options)
    ours, reference = both(luma[0], masks[0])
    assert len(ours._start) > 50
    assert same(ours, reference)
    for frame in luma[1:]:
        a, b = ours.step(frame), reference.step(frame)
        np.testing.assert_array_equal(a.mask, b.mask)
        assert a.confidence == b.confidence
        assert same(ours, reference)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    level=st.sampled_from(["noise", "flat", "steps"]),
)
def test_any_frames_and_masks_native_equals_numpy(seed, height, width, level) -> None:
    """Nothing crashes on any size or content; both say the same."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (4, height, width), np.uint8)
    if level != "noise":
        frames = frames // 128 * 90 if level == "steps" else np.full_like(frames, 77)
    mask = rng.random((height, width)) < rng.random() ** 2
    ours = MaskWarper(frames[0], mask)
    reference = MaskWarper(frames[0], mask)
    reference._kernels = points_numpy
    for frame in frames[1:]:
        a, b = ours.step(frame), reference.step(frame)
        np.testing.assert_array_equal(a.mask, b.mask)
        assert a.confidence == b.confidence
        assert 0 <= a.confidence <= 1
        assert same(ours, reference)


PORTABLE_CHECK = """
import numpy as np
from omni_sdk.dus.flow.warp import MaskWarper
rng = np.random.default_rng(3)
scene = np.kron(rng.integers(0, 256, (30, 40)), np.ones((5, 5))).astype(np.uint8)
mask = np.zeros((120, 160), bool)
mask[30:90, 40:110] = True
warper = MaskWarper(scene[10:130, 10:170], mask)
for t in range(1, 4):
    warped = warper.step(scene[10 + t : 130 + t, 10 - 2 * t : 170 - 2 * t])
    print(warped.confidence.hex(), warped.mask.sum(), warper._now.tobytes().hex())
"""


def test_the_portable_windows_give_the_same_bits(outputs_of_paths) -> None:
    text, portable = outputs_of_paths(PORTABLE_CHECK)
    assert text == portable
    assert len(text.split()) == 9


def test_rigid_motion_is_carried(rigid) -> None:
    luma, masks = rigid
    warper = MaskWarper(luma[0], masks[0])
    for t in range(1, 9):
        warped = warper.step(luma[t])
        assert mask_iou(warped.mask, masks[t]) > 0.92
        assert warped.confidence > 0.7
    assert mask_iou(masks[0], masks[8]) < 0.5  # or there was nothing to do


def test_bent_objects_follow_their_wave() -> None:
    luma, masks = make(2, 7, wave=4.0, spin=0.0)
    warper = MaskWarper(luma[0], masks[0])
    ious = [mask_iou(warper.step(luma[t]).mask, masks[t]) for t in range(1, 7)]
    assert min(ious) > 0.91


def test_a_still_frame_returns_the_mask_itself(rigid) -> None:
    luma, masks = rigid
    warped = MaskWarper(luma[0], masks[0]).step(luma[0])
    np.testing.assert_array_equal(warped.mask, masks[0])
    assert warped.confidence > 0.9


def test_an_object_that_goes_loses_confidence(rigid) -> None:
    luma, masks = rigid
    other = make(99, 1)[0][0]
    warper = MaskWarper(luma[0], masks[0])
    there = warper.step(luma[1]).confidence
    gone = warper.step(other)
    assert there > 0.7
    assert gone.confidence < 0.15
    assert warper.step(other).confidence <= gone.confidence + 0.05


def test_what_is_covered_leaves_the_mask(rigid) -> None:
    luma, masks = rigid
    covered = luma[1].copy()
    columns = slice(70, 86)
    covered[:, columns] = np.where(np.arange(144) // 3 % 2, 20, 235).astype(np.uint8)[:, None]
    warped = MaskWarper(luma[0], masks[0]).step(covered)
    seen = masks[1].copy()
    seen[:, columns] = False
    assert masks[1][:, columns].sum() > 400
    assert warped.mask[:, columns].mean() < 0.3 * masks[1][:, columns].mean()
    assert mask_iou(warped.mask, seen) > max(0.8, mask_iou(masks[1], seen) + 0.1)


def test_out_of_the_picture() -> None:
    luma, masks = make(3, 8, velocity=(20.0, 0.0))
    warper = MaskWarper(luma[0], masks[0])
    last = [warper.step(frame) for frame in luma[1:]][-1]
    assert masks[-1].sum() < 0.2 * masks[0].sum()
    assert mask_iou(last.mask, masks[-1]) > 0.3 or last.confidence < 0.3


@pytest.mark.parametrize("size", [(32, 32), (2160, 3840)])
def test_sizes(size) -> None:
    """From thumbnails to 4K."""
    tile = make(4, 3, (32, 32), radius=8.0, velocity=(1.0, 0.5))
    luma = np.stack(
        [np.pad(f, ((0, size[0] - 32), (0, size[1] - 32)), mode="wrap") for f in tile[0]]
    )
    masks = np.zeros(luma.shape, bool)
    masks[:, :32, :32] = tile[1]
    warper = MaskWarper(luma[0], masks[0])
    for t in (1, 2):
        assert mask_iou(warper.step(luma[t]).mask, masks[t]) > 0.8


def test_rows_of_any_stride(rigid) -> None:
    luma, masks = rigid
    wide = np.zeros((luma.shape[0], luma.shape[1], luma.shape[2] + 37), np.uint8)
    view = wide[:, :, 5 : 5 + luma.shape[2]]
    view[:] = luma
    a, b = MaskWarper(luma[0], masks[0]), MaskWarper(view[0], masks[0])
    np.testing.assert_array_equal(a.step(luma[1]).mask, b.step(view[1]).mask)


def test_empty_masks_stay_empty(rigid) -> None:
    luma, masks = rigid
    warped = MaskWarper(luma[0], np.zeros_like(masks[0])).step(luma[1])
    assert not warped.mask.any()
    assert warped.confidence == 0


def test_bad_arguments(rigid) -> None:
    luma, masks = rigid
    with pytest.raises(TypeError, match="uint8"):
        MaskWarper(luma[0].astype(np.float32), masks[0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bool or uint8"):
        MaskWarper(luma[0], masks[0].astype(np.int32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one size"):
        MaskWarper(luma[0], masks[0][:-1])
    with pytest.raises(ValueError, match="keep their size"):
        MaskWarper(luma[0], masks[0]).step(luma[0][:-1])
    with pytest.raises(ValueError, match="sides"):
        MaskWarper(
            np.zeros((1, warp.MAX_SIDE + 1), np.uint8), np.zeros((1, warp.MAX_SIDE + 1), bool)
        )
    with pytest.raises(ValueError, match="points"):
        MaskWarper(luma[0], masks[0], points=0)


def test_the_native_kernels_check_their_arguments(rigid) -> None:
    core = native.core()
    assert core is not None
    luma, masks = rigid
    mask = masks[0].view(np.uint8)
    matches, prior = np.zeros((3, 8)), np.array([[1.0, 0, 0], [0, 1, 0]])
    weights = np.zeros(3)
    box = (0, 0, 10, 10)
    for bad in ((0, 0, 0, 10), (-1, 0, 10, 10), (0, 0, 10_000, 10)):
        with pytest.raises(ValueError, match="box"):
            core.flow_select(luma[0], mask, bad, 10)
    two, one = np.zeros((2, 2)), np.zeros((1, 2))
    with pytest.raises(ValueError, match="one guess"):
        core.flow_match(luma[0], luma[1], mask, box, two, two, one, np.ones(2), 3, 5)
    with pytest.raises(ValueError, match="one weight"):
        core.flow_smooth(matches, prior, weights[:2], 5.0, box, (10, 10))
    with pytest.raises(ValueError, match="inverted"):
        core.flow_warp(mask, luma[0], luma[1], matches, prior * 0, weights, 5.0, box, 8)
    with pytest.raises(ValueError, match="cell"):
        core.flow_warp(mask, luma[0], luma[1], matches, prior, weights, 5.0, box, 0)
