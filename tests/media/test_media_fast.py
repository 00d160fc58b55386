"""The fast pixel path: native equals numpy to the bit, colours are right, the rest is left alone."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_sdk.media.pixels import fast, fast_numpy
from omni_sdk.media.pixels.convert import Orientation, RgbConverter
from omni_sdk.media.pixels.fast import FORMATS, FastConverter, colour_matrix
from omni_sdk.media.pixels.patch_layout import PatchLayout
from omni_sdk.media.source import open_source
from omni_sdk.native import core

needs_native = pytest.mark.skipif(core() is None, reason="the native module was not built")
LAYOUT = PatchLayout(4, 2, 2, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
TURNS = [(t, x, y) for t in (False, True) for x in (False, True) for y in (False, True)]


def noise(height: int, width: int, format: str, seed: int = 0) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, format)
    random = np.random.default_rng(seed)
    layout = FORMATS.get(format)
    for plane in frame.planes:
        if layout is None or layout.bits == 8:
            memory = np.frombuffer(plane, np.uint8)
            memory[:] = random.integers(0, 256, len(memory), dtype=np.uint8)
        else:
            words = np.frombuffer(plane, np.uint16)
            words[:] = random.integers(0, 1 << layout.bits, len(words)) << layout.padding_bits
    return frame


def flat(
    format: str, values: tuple[int, int, int], size: tuple[int, int] = (32, 48)
) -> av.VideoFrame:
    """Return a frame of one colour, `values` in steps of an 8-bit sample."""
    frame, layout = av.VideoFrame(size[1], size[0], format), FORMATS[format]
    dtype = np.uint8 if layout.bits == 8 else np.uint16
    y, u, v = ((value << (layout.bits - 8)) << layout.padding_bits for value in values)
    np.frombuffer(frame.planes[0], dtype)[:] = y
    if layout.is_interleaved:
        pairs = np.frombuffer(frame.planes[1], dtype)
        pairs[0::2], pairs[1::2] = u, v
    else:
        np.frombuffer(frame.planes[1], dtype)[:] = u
        np.frombuffer(frame.planes[2], dtype)[:] = v
    return frame


def both(frame: av.VideoFrame, size, filter="bicubic", turn=(False, False, False)):
    """Return the picture with the native and with the numpy kernel."""
    native = FastConverter(size, filter)(frame, turn)
    layout = FORMATS[frame.format.name]
    stored = size[::-1] if turn[0] else size
    reference = fast_numpy.PlanePixels(
        layout.subsampling,
        layout.bits,
        layout.padding_bits,
        layout.is_interleaved,
        layout.offsets(None),
        (frame.height, frame.width),
        stored,
        filter,
    )
    return native, fast.PlanePicture(frame, reference, native.matrix, turn, size)


def patches_of(picture, dtype: str) -> np.ndarray:
    layout = PatchLayout(*LAYOUT.sides, LAYOUT.image_mean, LAYOUT.image_std, dtype)
    values = layout.empty(layout.grid(2, picture.size))
    values[:] = 9
    picture.patches(layout, values, 1)
    return values


@needs_native
@pytest.mark.parametrize("format", sorted(FORMATS))
def test_native_equals_numpy_in_every_format(format) -> None:
    frame = noise(37, 171, format)
    native, reference = both(frame, (16, 72))
    np.testing.assert_array_equal(native.rgb(), reference.rgb())
    for dtype in ("float32", "float16"):
        found, expected = patches_of(native, dtype), patches_of(reference, dtype)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)


@needs_native
@settings(deadline=None, max_examples=60)
@given(
    format=st.sampled_from(
        ["yuv420p", "yuv422p", "yuv444p", "nv12", "yuv420p10le", "p010le", "yuv444p14le"]
    ),
    source=st.tuples(st.integers(1, 70), st.integers(1, 200)),
    blocks=st.tuples(st.integers(1, 6), st.integers(1, 9)),
    filter=st.sampled_from(["bicubic", "bilinear"]),
    turn=st.sampled_from(TURNS),
    seed=st.integers(0, 99),
)
def test_native_equals_numpy_at_every_size(format, source, blocks, filter, turn, seed) -> None:
    frame = noise(*source, format, seed)
    size = (8 * blocks[0], 8 * blocks[1])
    native, reference = both(frame, size, filter, turn)
    np.testing.assert_array_equal(native.rgb(), reference.rgb())
    np.testing.assert_array_equal(patches_of(native, "float16"), patches_of(reference, "float16"))


@needs_native
def test_the_portable_passes_give_the_same(outputs_of_paths) -> None:
    program = (
        f"import sys, numpy as np; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_media_fast as t\n"
        "for f in ('yuv420p', 'nv12', 'yuv422p10le', 'p010le'):\n"
        "    rgb = t.FastConverter((40, 88), 'bicubic')(t.noise(90, 333, f, 5)).rgb()\n"
        "    print(np.ascontiguousarray(rgb).tobytes().hex())\n"
    )
    pixels, portable = outputs_of_paths(program)
    assert pixels == portable
    assert len(pixels) == 4 * (2 * 40 * 88 * 3 + 1)


@pytest.mark.parametrize("space", [1, 5, 6, 7, 9])
@pytest.mark.parametrize("is_full", [False, True])
def test_the_matrix_inverts_the_standard(space, is_full) -> None:
    """RGB -> YUV as the standard defines it, and back."""
    red, blue = fast._LUMA_SHARES[space]
    for bits in (8, 10):
        for rgb in (
            [255, 0, 0],
            [0, 255, 0],
            [0, 0, 255],
            [255, 255, 255],
            [0, 0, 0],
            [30, 99, 200],
        ):
            r, g, b = np.array(rgb) / 255
            y = red * r + (1 - red - blue) * g + blue * b
            u, v = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
            step = 2 ** (bits - 8)
            if is_full:
                y, u, v = (
                    np.array([y, u, v]) * (2**bits - 1) + np.array([0, 128, 128]) * step
                ) / step
            else:
                y, u, v = 219 * y + 16, 224 * u + 128, 224 * v + 128
            m = colour_matrix(space, is_full, bits)
            y, u, v = (value * 2**20 for value in (y, u, v))
            found = [
                y * m[0] + v * m[1] + m[5],
                y * m[0] + u * m[2] + v * m[3] + m[6],
                y * m[0] + u * m[4] + m[7],
            ]
            np.testing.assert_allclose(found, rgb, atol=1e-3)


@pytest.mark.parametrize(
    "format", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "nv12", "yuv420p10le", "p010le"]
)
@pytest.mark.parametrize("space", [1, 5, 9])
@pytest.mark.parametrize("color_range", [1, 2])
def test_flat_colours_are_swscales(format, space, color_range) -> None:
    for values in ((16, 128, 128), (235, 128, 128), (81, 90, 240), (145, 54, 34), (120, 140, 100)):
        frame = flat(format, values)
        frame.colorspace, frame.color_range = space, color_range
        found = FastConverter((16, 24), "bicubic")(frame).rgb()
        assert (found == found[0, 0]).all()
        expected = frame.to_ndarray(format="rgb24")[0, 0].astype(int)
        # libswscale's general scaler (NV12, 10 bit ..) is up to 3 off the standard; another matrix is 10 off
        assert np.abs(found[0, 0] - expected).max() <= 3


def ramp(format: str, position: float, axis: int) -> av.VideoFrame:
    """Return a frame whose chroma is a ramp along an axis, as sampled at `position` in its luma pair."""
    frame = flat(format, (128, 128, 128), (16, 128) if axis else (128, 16))
    step = 1 << FORMATS[format].subsampling[axis]
    v = np.round(28 + (np.arange(128 // step) * step + position) * 1.5).astype(np.uint8)
    plane = np.frombuffer(frame.planes[2], np.uint8).reshape(-1, frame.planes[2].line_size)
    plane[:, : frame.planes[2].width] = v if axis else v[:, None]
    return frame


@pytest.mark.parametrize(
    ("format", "siting", "axis", "position"),
    [
        ("yuv420p", None, 1, 0.0),
        ("yuv420p", None, 0, 0.5),
        ("yuv420p", "centre", 1, 0.5),
        ("yuv420p", "topleft", 1, 0.0),
        ("yuv420p", "topleft", 0, 0.0),
        ("yuvj420p", None, 1, 0.5),
        ("yuv422p", None, 1, 0.0),
        ("yuv422p", "topleft", 0, 0.0),
        ("yuv444p", None, 1, 0.0),
        ("yuv444p", "topleft", 0, 0.0),
    ],
)
def test_chroma_siting(format, siting, axis, position) -> None:
    """A ramp sampled where the format's chroma lies comes out in its place, at every scale."""
    for length in (32, 64, 96):
        frame = ramp(format, position, axis)
        frame.colorspace, frame.color_range = 5, 1
        size = (8, length) if axis else (length, 8)
        image = FastConverter(size, "bicubic", siting)(frame).rgb()
        red = (image[4] if axis else image[:, 4])[8:-8, 0]
        scale = 128 / length
        places = scale * (np.arange(length)[8:-8] + 0.5) - 0.5  # in luma samples
        v = 28 + places * 1.5
        full = 128 + 1.402 * (v - 128)
        limited = (128 - 16) * 255 / 219 + 1.402 * 255 / 224 * (v - 128)
        expected = full if "j" in format else limited
        inside = (expected > 8) & (expected < 247)
        assert np.abs(red[inside] - expected[inside]).mean() < 0.5  # half a sample off is 1.2


@pytest.mark.parametrize("turn", TURNS)
def test_turns(turn) -> None:
    """A turned picture is the picture, turned."""
    frame = noise(30, 50, "yuv420p")
    size = (24, 16) if turn[0] else (16, 24)
    upright = FastConverter((16, 24), "bicubic")(frame).rgb()
    found = FastConverter(size, "bicubic")(frame, turn)
    expected = Orientation(*turn).apply(upright)
    np.testing.assert_array_equal(found.rgb(), expected)
    layout = PatchLayout(4, 2, 1, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
    values = layout.empty(layout.grid(1, size))
    found.patches(layout, values, 0)
    by_hand = layout.empty(layout.grid(1, size))
    layout.write(np.ascontiguousarray(expected)[None], by_hand, 0)
    np.testing.assert_allclose(values, by_hand, atol=0.501)  # the image is rounded to bytes


@pytest.mark.parametrize(
    "format", ["gray", "gbrp", "rgb24", "yuv420p16le", "yuva420p", "yuv411p", "nv21"]
)
def test_formats_that_are_left_to_the_exact_path(format) -> None:
    frame = noise(32, 64, format)
    assert FastConverter((16, 24), "bicubic")(frame) is None
    exact = RgbConverter((32, 64), (16, 24))(frame)
    np.testing.assert_array_equal(RgbConverter((32, 64), (16, 24), pixels="fast")(frame), exact)


@pytest.mark.parametrize("space", [0, 8, 10, 14])
def test_colour_spaces_that_are_left_to_the_exact_path(space) -> None:
    frame = noise(32, 64, "yuv420p")
    frame.colorspace = space
    assert FastConverter((16, 24), "bicubic")(frame) is None


def test_what_hardly_shrinks_is_exact() -> None:
    frame = noise(32, 64, "yuv420p")
    for size in (None, (32, 64), (32, 40), (40, 80)):
        exact = RgbConverter((32, 64), size)(frame)
        np.testing.assert_array_equal(RgbConverter((32, 64), size, pixels="fast")(frame), exact)


def test_a_change_of_size_within_the_stream_is_exact() -> None:
    frame = noise(40, 64, "yuv420p")
    fast_rgb = RgbConverter((32, 64), (16, 24), pixels="fast")(frame)
    np.testing.assert_array_equal(fast_rgb, RgbConverter((32, 64), (16, 24))(frame))


def test_without_the_native_module(monkeypatch) -> None:
    frame = noise(33, 65, "nv12")
    expected = FastConverter((16, 24), "bicubic")(frame)
    monkeypatch.setattr(fast, "core", lambda: None)
    found = FastConverter((16, 24), "bicubic")(frame)
    assert isinstance(found.pixels, fast_numpy.PlanePixels)
    np.testing.assert_array_equal(found.rgb(), expected.rgb())


REFUSED = (
    r"no such|side|filter|bytes|missing|expected|multiples|shape|tables|convertible|incompatible"
)


def refuses(function, arguments: tuple, changes: list[tuple[int, object]]) -> None:
    """Check that each change of one argument is refused."""
    function(*arguments)
    for at, value in changes:
        wrong = list(arguments)
        wrong[at] = value
        with pytest.raises((ValueError, TypeError, BufferError), match=REFUSED):
            function(*wrong)


@needs_native
def test_the_native_class_checks_its_format() -> None:
    good = ((1, 1), 8, 0, False, (0.0, 0.25), (8, 8), (8, 16), "bicubic")
    changes = [(0, (3, 1)), (0, (-1, 0)), (1, 7), (1, 16), (2, 1), (4, (0.0, 9.0))]
    changes += [(4, (0.0, float("nan"))), (5, (0, 8)), (5, (8, 1 << 21)), (6, (8, 0)), (7, "area")]
    refuses(core().PlanePixels, good, changes)


@needs_native
def test_the_native_class_checks_its_memory() -> None:
    pixels = core().PlanePixels((1, 1), 8, 0, False, (0.0, 0.25), (8, 8), (8, 16), "bicubic")
    y, c = np.zeros(64, np.uint8), np.zeros(16, np.uint8)
    matrix, turn, out = colour_matrix(1, False, 8), (False,) * 3, np.zeros((8, 16, 3), np.uint8)
    call = ([y, c, c], [8, 4, 4], matrix, turn, out)
    planes = [[y[:-1], c, c], [y, c], [y, c, c[:-1]], [y[::-1], c, c]]
    strides = [[7, 4, 4], [8, 4, -4], [8, 4], [1 << 60, 4, 4]]
    outs = [out[:7], out[:, ::-1], out.astype(np.float32)]
    changes = [*((0, v) for v in planes), *((1, v) for v in strides), *((4, v) for v in outs)]
    refuses(pixels.rgb, call, changes)
    assert (out == (0, 77, 0)).all()  # luma and chroma 0: red and blue are clamped

    values, ones = np.zeros((8, 96), np.float32), np.ones(3, np.float32)
    changes = [(4, (3, 2, 2)), (4, (0, 2, 2)), (4, (4, 2, 0)), (7, values[:4]), (8, 2), (8, -1)]
    changes += [(7, values.astype(np.float64)), (7, np.zeros((8, 95), np.float32))]
    refuses(pixels.patches, (*call[:4], (4, 2, 2), ones, ones, values, 1), changes)


@needs_native
def test_the_native_patchify_checks_for_itself() -> None:
    images, tables = np.zeros((2, 8, 16, 3), np.uint8), LAYOUT.tables()
    values = np.zeros((8, 96), np.float32)
    changes = [
        (0, images[:, :7]),
        (0, images[..., :2]),
        (1, (5, 2, 2)),
        (2, tables[:2]),
        (4, 1),
        (4, -1),
    ]
    changes += [(2, tables.astype(np.float16)), (3, values[:4])]
    refuses(core().patchify, (images, (4, 2, 2), tables, values, 0), changes)


def test_half_precision_is_rounded_to_nearest_even() -> None:
    """Through the whole range of values, the least ones included."""
    frame = noise(64, 64, "yuv444p")
    for scale in (1.0, 1e-3, 1e-6, 3e-8):
        layout = PatchLayout(4, 2, 1, (0.5, 0.5, 0.5), (1 / scale / 255,) * 3)
        half = PatchLayout(*layout.sides, layout.image_mean, layout.image_std, "float16")
        picture = FastConverter((56, 56), "bicubic")(frame)
        values, halves = layout.empty(layout.grid(1, (56, 56))), half.empty(half.grid(1, (56, 56)))
        picture.patches(layout, values, 0)
        picture.patches(half, halves, 0)
        np.testing.assert_array_equal(halves, values.astype(np.float16))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def test_a_file_as_fast_images_and_patches(clip) -> None:
    with open_source(clip) as video:
        exact = video.sample(num_frames=5, size=(24, 32))
    with open_source(clip) as video:
        video.pixels = "fast"
        images = video.sample(num_frames=5, size=(24, 32))
        batch = video.sample(num_frames=5, size=(24, 32), patches=LAYOUT)
        walked = next(video.forward(0, 1, size=(24, 32), filter="bicubic"))
    assert (
        psnr(images.frames, exact.frames) > 30
    )  # the pattern is noise-like; 40 and more on pictures
    assert not np.array_equal(images.frames, exact.frames)
    np.testing.assert_array_equal(walked.image, images.frames[0])
    assert batch.frames.shape == (0, 24, 32, 3)
    assert batch.patches.grid == (3, 6, 8)
    by_hand = LAYOUT.empty(batch.patches.grid)
    LAYOUT.write(images.frames[[0, 1, 2, 3, 4, 4]], by_hand, 0)
    assert np.abs(batch.patches.values - by_hand).max() <= 0.501 / 255 / 0.26
    np.testing.assert_array_equal(batch.frame_indices, exact.frame_indices)


def test_exact_patches_are_those_of_the_images(clip) -> None:
    with open_source(clip) as video:
        images = video.sample(indices=[3, 1, 1], size=(16, 24))
        batch = video.sample(indices=[3, 1, 1], size=(16, 24), patches=LAYOUT)
        with pytest.raises(ValueError, match="multiples of 8"):
            video.sample(indices=[0], size=(20, 24), patches=LAYOUT)
    by_hand = LAYOUT.empty(batch.patches.grid)
    LAYOUT.write(images.frames[[0, 1, 2, 2]], by_hand, 0)
    np.testing.assert_array_equal(batch.patches.values, by_hand)


@pytest.mark.parametrize("kept", [[0, 1, 2, 3, 4], [1, 2, 4], [4], [0, 3]])
def test_gaps_among_patches_are_closed(kept) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 16, 3), np.uint8)
    grid = LAYOUT.grid(5, (8, 16))
    values = LAYOUT.empty(grid)
    LAYOUT.write(images, values, 0)
    found = LAYOUT.finish(values, grid, np.array(kept))
    repeated = [*kept, kept[-1]] if len(kept) % 2 else kept
    expected = LAYOUT.empty(LAYOUT.grid(len(kept), (8, 16)))
    LAYOUT.write(images[repeated], expected, 0)
    assert found.grid == (len(repeated) // 2, 2, 4)
    np.testing.assert_array_equal(found.values, expected)


def test_interlaced_frames_are_exact(make_video) -> None:
    path = make_video(frames=4, size=(64, 64), options={"x264-params": "tff=1"})
    with open_source(path) as video:
        exact = video.sample(num_frames=2, size=(16, 16))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    with open_source(path) as video:
        video.pixels = "fast"
        np.testing.assert_array_equal(
            video.sample(num_frames=2, size=(16, 16)).frames, exact.frames
        )
