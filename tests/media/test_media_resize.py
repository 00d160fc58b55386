"""The native resize equals torch's, and its numpy reference equals it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from omni_sdk.media.pixels import resize_numpy
from omni_sdk.media.pixels.resize import resize
from omni_sdk.native import core

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(core() is None, reason="the native module was not built")


def by_torch(images: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    tensor = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    out = torch.nn.functional.interpolate(tensor, size, mode=mode, antialias=True)
    return out.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("seed", range(40))
def test_equal_to_torch_and_numpy_on_random_shapes(mode, seed) -> None:
    rng = np.random.default_rng(seed)
    height, width, new_height, new_width = (int(v) for v in rng.integers(1, 120, 4))
    images = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    if seed % 2:  # saturated edges overshoot
        images = np.where(images > 127, 255, 0).astype(np.uint8)
    ours = resize(images, (new_height, new_width), mode)
    np.testing.assert_array_equal(ours, by_torch(images, (new_height, new_width), mode))
    reference = resize_numpy.resize(images, new_height, new_width, mode)
    np.testing.assert_array_equal(ours, reference)


@pytest.mark.parametrize(
    ("source", "target"),
    [((1080, 1920), (252, 448)), ((90, 160), (720, 1280)), ((1, 1), (9, 5)), ((500, 3), (2, 700))],
)
def test_equal_to_torch_on_real_sizes(source, target) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, *source, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize(images, target), by_torch(images, target, "bicubic"))
    np.testing.assert_array_equal(resize(images[0], target), resize(images, target)[0])


@settings(deadline=None, max_examples=60)
@given(
    images=arrays(
        np.uint8, st.tuples(st.just(1), st.integers(1, 40), st.integers(1, 40), st.just(3))
    ),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    mode=st.sampled_from(["bicubic", "bilinear"]),
)
def test_all_three_agree_on_anything(images, height, width, mode) -> None:
    ours = resize(images, (height, width), mode)
    np.testing.assert_array_equal(ours, resize_numpy.resize(images, height, width, mode))
    if (
        min(*images.shape[1:3], height, width) > 1
    ):  # torch fails an assertion of its own on some one-pixel images
        np.testing.assert_array_equal(ours, by_torch(images, (height, width), mode))


def test_a_view_and_the_same_size() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 31, 40, 3), dtype=np.uint8)
    flipped = images[:, ::-1, ::2]
    np.testing.assert_array_equal(
        resize(flipped, (9, 9)), resize(np.ascontiguousarray(flipped), (9, 9))
    )
    np.testing.assert_array_equal(resize(images, (31, 40)), images)
    np.testing.assert_array_equal(
        resize(images, (31, 13)), resize_numpy.resize(images, 31, 13, "bicubic")
    )


@pytest.mark.parametrize(
    ("images", "size", "mode"),
    [
        (np.zeros((4, 4), np.uint8), (2, 2), "bicubic"),
        (np.zeros((4, 4, 3), np.float32), (2, 2), "bicubic"),
        (np.zeros((4, 4, 4), np.uint8), (2, 2), "bicubic"),
        (np.zeros((4, 0, 3), np.uint8), (2, 2), "bicubic"),
        (np.zeros((4, 4, 3), np.uint8), (0, 2), "bicubic"),
        (np.zeros((4, 4, 3), np.uint8), (2, 1 << 21), "bicubic"),
        (np.zeros((4, 4, 3), np.uint8), (2, 2), "lanczos"),
    ],
)
def test_bad_arguments(images, size, mode) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 images|filter must be|sides must be"):
        resize(images, size, mode)


def test_the_native_function_checks_for_itself() -> None:
    native = core()
    good = np.zeros((1, 4, 4, 3), np.uint8)
    for arguments in (
        (good[0], 2, 2, "bicubic"),
        (good, 0, 2, "bicubic"),
        (good, 2, -1, "bicubic"),
        (good, 1 << 21, 2, "bicubic"),
        (good, 2, 2, "area"),
        (np.zeros((1, 0, 4, 3), np.uint8), 2, 2, "bicubic"),
    ):
        with pytest.raises(ValueError, match=r"shape|range|filter"):
            native.resize(*arguments)
    with pytest.raises(TypeError):
        native.resize(good.astype(np.float32), 2, 2, "bicubic")
    assert native.resize(np.zeros((0, 4, 4, 3), np.uint8), 2, 2, "bicubic").shape == (0, 2, 2, 3)


def test_without_the_native_module(monkeypatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    expected = resize(images, (7, 40))
    monkeypatch.setattr("omni_sdk.media.pixels.resize.core", lambda: None)
    np.testing.assert_array_equal(resize(images, (7, 40)), expected)


def test_the_portable_passes_give_the_same_bytes(outputs_of_paths) -> None:
    program = (
        "import hashlib, numpy as np; from omni_sdk.native import core\n"
        "random = np.random.default_rng(5); digest = hashlib.sha256()\n"
        "for sizes in ((61, 83, 20, 17), (33, 40, 70, 95), (16, 48, 16, 30), (40, 34, 9, 34)):\n"
        "    h, w, nh, nw = sizes\n"
        "    images = random.integers(0, 256, (1, h, w, 3), dtype=np.uint8)\n"
        "    digest.update(core().resize(images, nh, nw, 'bicubic').tobytes())\n"
        "    y, u, v = (random.integers(0, 256, n, dtype=np.uint8) for n in (48 * 36, 432, 432))\n"
        "    inverse = (117489, 138438, 13975, 34925)\n"
        "    for to in ((36, 48), (nh, nw)):\n"
        "        rgb = core().yuv_to_rgb([y, u, v], [48, 24, 24], (36, 48), to, 'bicubic', inverse, 0)\n"
        "        digest.update(rgb.tobytes())\n"
        "print(digest.hexdigest())\n"
    )
    digest, portable = outputs_of_paths(program)
    assert digest == portable
    assert len(digest) == 65
