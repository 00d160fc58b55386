from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_sdk.datasets import images
from omni_sdk.errors import DatasetError, LimitError, OmniError

image = pytest.importorskip("PIL.Image")


def _chunk(kind: bytes, body: bytes) -> bytes:
    crc = zlib.crc32(body, zlib.crc32(kind))
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def _png(
    width: int = 4,
    height: int = 3,
    *,
    depth: int = 8,
    colour: int = 0,
    interlace: int = 0,
    pixels: bytes | None = None,
) -> bytes:
    if pixels is None:
        pixels = bytes(height * (width + 1))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(pixels))
        + _chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_indices_as_stored(tmp_path: Path, bits: int) -> None:
    labels = np.random.default_rng(bits).integers(0, 2**bits, (9, 13)).astype(np.uint8)
    picture = image.fromarray(labels, "P")
    picture.putpalette([0, 0, 0] + [k % 200 + 1 for k in range(3 * (2**bits - 1))])
    picture.save(tmp_path / "a.png", bits=bits)
    assert (images.read_labels(tmp_path / "a.png") == labels).all()
    assert (images.read_mask(tmp_path / "a.png") == (labels != 0)).all()


@pytest.mark.parametrize("value", [1, 255])
def test_grey(tmp_path: Path, value: int) -> None:
    mask = np.random.default_rng(0).random((31, 40)) < 0.5
    image.fromarray(mask.astype(np.uint8) * np.uint8(value)).save(tmp_path / "a.png")
    assert (images.read_labels(tmp_path / "a.png") == mask * value).all()
    assert (images.read_mask(tmp_path / "a.png") == mask).all()
    image.fromarray(mask).save(tmp_path / "bit.png")
    assert (images.read_mask(tmp_path / "bit.png") == mask).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16"])
def test_other_kinds_as_masks(tmp_path: Path, mode: str) -> None:
    grey = np.zeros((6, 7), np.uint8)
    grey[2:4, 1:5] = 200
    picture = (
        image.fromarray(grey.astype(np.uint16) * 256)
        if mode == "I;16"
        else image.fromarray(grey).convert(mode)
    )
    picture.save(tmp_path / "a.png")
    assert (images.read_mask(tmp_path / "a.png") == (grey != 0)).all()
    with pytest.raises(DatasetError, match="indexed or grey"):
        images.read_labels(tmp_path / "a.png")


def test_black_palette_entries_are_background(tmp_path: Path) -> None:
    picture = image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([9, 0, 0, 0, 0, 0, 0, 0, 5])
    picture.save(tmp_path / "a.png")
    assert images.read_mask(tmp_path / "a.png").tolist() == [[True, False, True]]


def test_pictures(tmp_path: Path) -> None:
    rgb = np.zeros((24, 36, 3), np.uint8)
    rgb[:, :18] = (200, 40, 40)
    image.fromarray(rgb).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    image.fromarray(rgb).save(tmp_path / "b.jpg", subsampling=0, progressive=True)
    image.fromarray(rgb).save(tmp_path / "c.png")
    for name in ("a.jpg", "b.jpg", "c.png"):
        assert images.image_size(tmp_path / name) == (24, 36)
        picture = images.read_image(tmp_path / name)
        reference = np.asarray(image.open(tmp_path / name).convert("RGB")).astype(int)
        assert np.abs(picture - reference).max() <= 6


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "neither|not a PNG"),
        (b"GIF89a", "neither|not a PNG"),
        (_png()[:-12], "cut short"),
        (_png()[:40], "cut short"),
        (_png()[:-1] + b"\0", "wrong checksum"),
        (_png().replace(b"IDAT", b"IDAX", 1), "wrong checksum"),
        (_png(pixels=bytes(7)), "expected 15 bytes of pixels"),
        (_png(pixels=bytes(1000)), "expected 15 bytes of pixels"),
        (_png(interlace=1), "without interlacing"),
        (_png(depth=3), "plain grey"),
        (_png(depth=4, pixels=bytes(9)), "plain grey"),
        (_png(width=0), "not valid"),
        (b"\x89PNG\r\n\x1a\n" + _chunk(b"IEND", b""), "without a header"),
    ],
)
def test_broken_png(tmp_path: Path, data: bytes, match: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for read in (images.read_labels, images.read_mask, images.read_image):
        with pytest.raises(DatasetError, match=match) as caught:
            read(path)
        assert "a.png" in str(caught.value)


def test_size_is_limited_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(_png(1 << 15, 1 << 15, pixels=b""))
    with pytest.raises(LimitError, match="32768x32768"):
        images.read_mask(path)
    jpeg = io.BytesIO()
    image.new("RGB", (8, 8)).save(jpeg, "JPEG")
    data = bytearray(jpeg.getvalue())
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = b"\xff\xff\xff\xff"
    path.with_suffix(".jpg").write_bytes(data)
    with pytest.raises(LimitError, match="65535x65535"):
        images.read_image(path.with_suffix(".jpg"))


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_jpeg_cut_short_is_no_picture(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    image.fromarray(noise).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DatasetError, match=r"a\.jpg: cannot be decoded"):
        images.read_image(tmp_path / "a.jpg")


def test_missing_files(tmp_path: Path) -> None:
    for read in (images.read_labels, images.read_mask, images.read_image, images.image_size):
        with pytest.raises(DatasetError, match="cannot be read"):
            read(tmp_path / "none.png")
        with pytest.raises(DatasetError, match="cannot be read"):
            read(tmp_path)


def _encoded(kind: str) -> bytes:
    rng = np.random.default_rng(1)
    grey = image.fromarray((rng.random((20, 30)) < 0.3).astype(np.uint8) * np.uint8(255))
    file = io.BytesIO()
    (grey.convert("P") if kind == "P" else grey).save(file, "JPEG" if kind == "J" else "PNG")
    return file.getvalue()


_FILES = {kind: _encoded(kind) for kind in "LPJ"}


@given(st.data())
@settings(deadline=None, max_examples=120)
def test_damage_ends_in_a_typed_error(tmp_path_factory: Any, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from("LPJ"))
    content = bytearray(_FILES[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    path = tmp_path_factory.mktemp("fuzz") / "a"
    path.write_bytes(content)
    messages = []
    for read in (images.image_size, images.read_image, images.read_mask, images.read_labels):
        try:
            read(path)
        except OmniError as e:
            messages.append(str(e))
    assert all(str(path) in message for message in messages)
