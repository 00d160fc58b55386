"""The index from an MP4 header equals the demux's, or declines."""

from __future__ import annotations

import struct
from dataclasses import fields
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni_sdk.errors import OmniError
from omni_sdk.media import file_video
from omni_sdk.media.demux import index as index_module
from omni_sdk.media.demux.decode import decode_groups
from omni_sdk.media.demux.index import IndexedFile, index_file
from omni_sdk.media.demux.mp4_index import read_mp4_index
from omni_sdk.media.demux.packets import PacketTable
from omni_sdk.media.limits import MediaLimits, WallClock
from omni_sdk.media.source import open_source

X264 = {"g": "10", "bf": "3", "threads": "1"}
LIMITS = MediaLimits(max_wall_seconds=30)
FAST = {"movflags": "faststart"}

PLAIN: dict[str, dict] = {
    "b_frames": {"options": X264},
    "no_b_frames": {"options": {"g": "7", "bf": "0"}},
    "faststart_with_sound": {"options": X264, "container_options": FAST, "audio_seconds": 1.6},
    "one_group": {"options": {"g": "250"}},
    "intra_only": {"options": {"g": "1"}},
    "intra_refresh": {"options": {"g": "10", "x264-params": "intra-refresh=1"}},
    "open_gop": {"options": {**X264, "x264-params": "open-gop=1:b-adapt=0"}},
    "interlaced": {"options": {**X264, "x264-params": "tff=1"}},
    "late_start": {"options": X264, "ticks": range(100, 140)},
    "uneven": {
        "options": X264,
        "ticks": [int(v) for v in np.cumsum(np.random.default_rng(0).integers(1, 9, 40))],
        "time_base": Fraction(1, 100),
    },
    "without_edit_list": {
        "options": X264,
        "ticks": range(-7, 33),
        "container_options": {"avoid_negative_ts": "disabled", "use_editlist": "0"},
    },
    "rotated": {"options": X264, "rotation": 90},
    "hevc": {"codec": "libx265", "options": {"x265-params": "keyint=10:log-level=none"}},
    "vp9": {"codec": "libvpx-vp9", "options": {"g": "10", "deadline": "realtime"}},
    "ntsc": {"options": X264, "rate": Fraction(30000, 1001)},
}
LEFT_TO_THE_DEMUX: dict[str, tuple[str, dict]] = {
    "fragmented": ("a.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "negative_offsets": ("a.mp4", {"container_options": {"movflags": "negative_cts_offsets"}}),
    "matroska": ("a.mkv", {}),
    "transport_stream": ("a.ts", {}),
}


def both(path, monkeypatch) -> tuple[IndexedFile | None, IndexedFile | None]:
    """Return what the header says and what the demux says; None for an error."""
    results = []
    for reader in (read_mp4_index, lambda *_: None):
        monkeypatch.setattr(index_module, "read_mp4_index", reader)
        try:
            results.append(index_file(path, LIMITS))
        except OmniError:
            results.append(None)
    return results[0], results[1]


def assert_same(ours: IndexedFile, theirs: IndexedFile) -> None:
    for field in fields(PacketTable):
        np.testing.assert_array_equal(
            getattr(ours.table, field.name), getattr(theirs.table, field.name), field.name
        )
    for field in fields(ours.index):
        np.testing.assert_array_equal(
            getattr(ours.index, field.name), getattr(theirs.index, field.name), field.name
        )
    assert (ours.first_seconds, ours.has_audio) == (theirs.first_seconds, theirs.has_audio)
    assert ours.orientation == theirs.orientation


def assert_same_times(ours: IndexedFile, theirs: IndexedFile) -> None:
    """For a damaged list of sync frames: all else is the same, and none is a sync frame that is not."""
    for name in ("pts", "dts", "size", "is_shown"):
        np.testing.assert_array_equal(getattr(ours.table, name), getattr(theirs.table, name), name)
    assert not (ours.table.is_sync & ~theirs.table.is_sync).any()
    for field in fields(ours.index):
        if field.name != "sync_frames":
            np.testing.assert_array_equal(
                getattr(ours.index, field.name), getattr(theirs.index, field.name), field.name
            )
    assert (ours.first_seconds, ours.has_audio) == (theirs.first_seconds, theirs.has_audio)


def is_plain(path) -> bool:
    return read_mp4_index(path, LIMITS, WallClock(LIMITS, "reading")) is not None


@pytest.mark.parametrize("case", PLAIN)
@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_equal_to_the_demux(case, name, make_video, monkeypatch) -> None:
    if name == "a.mov" and case == "vp9":
        pytest.skip("VP9 has no place in a QuickTime file")
    path = make_video(name, **PLAIN[case])
    assert is_plain(path)
    ours, theirs = both(path, monkeypatch)
    assert ours is not None
    assert theirs is not None
    assert ours.is_quick
    assert_same(ours, theirs)


@pytest.mark.parametrize("case", LEFT_TO_THE_DEMUX)
def test_what_is_odd_is_left_to_the_demux(case, make_video) -> None:
    name, options = LEFT_TO_THE_DEMUX[case]
    path = make_video(name, options=X264, **options)
    assert not is_plain(path)
    with open_source(path) as video:
        assert len(video) == 40


def test_real_clips(shared_media, monkeypatch) -> None:
    for name in ("02_cups.mp4", "refavs_demo.mp4"):
        ours, theirs = both(shared_media / name, monkeypatch)
        assert ours is not None
        assert theirs is not None
        assert ours.is_quick
        assert_same(ours, theirs)


def _edited(path, change) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4
    duration, media_time = struct.unpack_from(">Ii", data, at + 8)
    struct.pack_into(">Ii", data, at + 8, *change(duration, media_time))
    path.write_bytes(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda duration, start: (duration - 300, start),
        lambda duration, start: (duration, start + 1024),
        lambda duration, start: (duration, start - 100),
        lambda duration, start: (duration + 5000, start),
        lambda duration, start: (0, start),
        lambda duration, start: (duration, -1),
    ],
)
def test_edit_lists_that_are_not_plain(change, make_video, monkeypatch) -> None:
    path = make_video(options=X264)
    _edited(path, change)
    assert not is_plain(path)
    ours, theirs = both(path, monkeypatch)
    assert (ours is None) == (theirs is None)


def test_samples_beyond_the_end_are_left_to_the_demux(make_video) -> None:
    path = make_video(options=X264, container_options=FAST)
    path.write_bytes(path.read_bytes()[:-10])
    assert not is_plain(path)
    with open_source(path) as video:
        assert video.info.truncated


def _without_usability_information(path) -> None:
    """Cut the VUI, and with it the reordering depth, out of the only SPS of an x264 file."""
    data = bytearray(path.read_bytes())
    at = data.index(b"avcC") + 4 + 6
    (size,) = struct.unpack_from(">H", data, at)
    sps = data[at + 2 : at + 2 + size]
    bits = "".join(f"{byte:08b}" for byte in sps)
    place = 8

    def fixed(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    def golomb() -> int:
        zeros = bits.index("1", place) - place
        return fixed(2 * zeros + 1) - 1

    assert fixed(8) == 100  # High: with the chroma format
    fixed(16)
    for _ in range(4):  # SPS id, chroma format, bit depths
        golomb()
    assert fixed(2) == 0  # no scaling lists
    golomb()
    assert golomb() == 0  # picture order count by its lowest bits
    golomb(), golomb(), fixed(1), golomb(), golomb()
    if not fixed(1):
        fixed(1)
    fixed(1)
    if fixed(1):
        for _ in range(4):
            golomb()
    assert bits[place] == "1"  # there is a VUI
    bits = (bits[:place] + "01").ljust(len(bits), "0")
    data[at + 2 : at + 2 + size] = int(bits, 2).to_bytes(size, "big")
    path.write_bytes(data)


def test_a_stream_that_hides_its_reordering_depth(make_video, decode_all) -> None:
    """Opened quickly, the decoder does not know it beforehand."""
    path = make_video(options={"g": "20", "bf": "3", "x264-params": "b-pyramid=normal:ref=4"})
    _without_usability_information(path)
    assert is_plain(path)
    oracle = decode_all(path)
    assert len(oracle.images) == 40
    with open_source(path) as video:
        for wanted in ([5], [1, 2, 3], [0, 19, 20, 39], list(range(40))):
            batch = video.fetch(wanted)
            assert batch.missing == ()
            for index, image in zip(wanted, batch.frames, strict=True):
                np.testing.assert_array_equal(image, oracle.images[index])


@pytest.mark.parametrize("lost", ["everything", "one group"])
def test_what_a_quickly_opened_decoder_loses_is_decoded_again(
    lost, make_video, decode_all, monkeypatch
) -> None:
    path = make_video(options=X264)
    oracle = decode_all(path)
    looks = []

    def losing(reader, table, groups, emit):
        looks.append(reader.is_quick)
        if not reader.is_quick:
            return decode_groups(reader, table, groups, emit)
        if lost == "everything":
            return groups
        return [*decode_groups(reader, table, groups[1:], emit), groups[0]]

    monkeypatch.setattr(file_video, "decode_groups", losing)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    with open_source(path) as video:
        batch = video.sample(num_frames=9)
    assert looks == [True, False]
    assert batch.missing == ()
    for index, image in zip(batch.frame_indices, batch.frames, strict=True):
        np.testing.assert_array_equal(image, oracle.images[index])


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> bytes:
    """Return a file with its header in front, so that damage finds it."""
    path = tmp_path_factory.mktemp("small") / "small.mp4"
    with av.open(str(path), "w", options=FAST) as sink:
        stream = sink.add_stream("libx264", rate=25, options={"g": "6", "bf": "2", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for n in range(18):
            image = np.random.default_rng(n).integers(0, 256, (32, 32, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
    return path.read_bytes()


@settings(
    deadline=None,
    max_examples=250,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_damaged_file_equals_the_demux_or_is_left_to_it(data, small, tmp_path, monkeypatch):
    content = bytearray(small)
    header_end = content.index(b"mdat")
    kinds = (
        b"stts",
        b"ctts",
        b"stsz",
        b"stsc",
        b"stco",
        b"stss",
        b"elst",
        b"mdhd",
        b"mvhd",
        b"stsd",
    )
    for _ in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):  # in a table that matters
            at = small.index(data.draw(st.sampled_from(kinds))) + data.draw(st.integers(-4, 60))
        else:
            at = data.draw(st.integers(0, header_end))
        value = data.draw(st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
        content[at] = value
    if data.draw(st.integers(0, 5)) == 0:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    if path.stat().st_size == 0 or not is_plain(path):
        return
    ours, theirs = both(path, monkeypatch)
    if ours is not None and ours.is_quick:
        assert theirs is not None
        assert_same_times(ours, theirs)
    else:  # the first packets did not fit: it was left to the demux
        assert (ours is None) == (theirs is None)
