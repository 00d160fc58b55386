"""Files on which frame readers are known to fail, each with the outcome that is promised.

What is tried on each kind of file, and where:

| file | outcome | test |
|---|---|---|
| cut, header in front | what is there, `truncated`, at most one `missing` | bad_input: truncated_file.. |
| cut, header at the end | one MediaError | bad_input: truncated_without.. |
| damaged bytes | frames, `corrupt`, `missing`; the rest exact | bad_input: corrupt_bytes..; security |
| uneven frame times | exact | exact: h264_vfr |
| turned by 90, 180, 270 degrees | turned upright | exact: rotation_is_applied |
| edit list that trims (`is_discard` packets) | just the shown frames, exact | bad_input: edit_list..; here |
| negative times, MP4 and TS | exact | exact: h264_negative_times; here |
| transport stream, seeks land elsewhere | exact | exact: h264_ts, h264_ts_open_gop |
| no frame, empty, sound only | one MediaError | bad_input |
| open groups | exact | exact: h264_open_gop, hevc_open_gop |
| odd sides in 4:2:0 and 4:4:4, 10 bit, interlaced, fragmented | exact | exact |
| times missing, or twice | exact, counted | bad_input: no_times_at_all, times_that_occur_twice |
| more frames promised than there are | `truncated`, and an end | bad_input: table_of_contents..; here |
| AV1 | exact | here |
"""

from __future__ import annotations

import struct

import av
import numpy as np
import pytest

from omni_sdk.media.source import open_source

X264 = {"g": "10", "bf": "2", "threads": "1"}


def assert_exact(path, oracle) -> None:
    total = len(oracle.images)
    with open_source(path) as video:
        assert len(video) == total
        batch = video.fetch(range(total))
        np.testing.assert_array_equal(batch.frames, oracle.images)
        np.testing.assert_array_equal(video.sample(num_frames=3).frames[-1], oracle.images[-1])
        for frame in video.backward(total - 1, total // 2):
            np.testing.assert_array_equal(frame.image, oracle.images[frame.frame_index])
        assert (video.missing, video.corrupt, video.info.truncated) == ((), (), False)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_av1(name, make_video, decode_all) -> None:
    encoder = next((c for c in ("libsvtav1", "libaom-av1") if c in av.codecs_available), None)
    if encoder is None:
        pytest.skip("this PyAV has no AV1 encoder")
    fast = {"preset": "12", "svtav1-params": "lp=1"}
    options = {"g": "10", **(fast if encoder == "libsvtav1" else {"cpu-used": "8"})}
    path = make_video(name, codec=encoder, options=options, frames=24, size=(64, 96))
    assert_exact(path, decode_all(path))


def test_negative_times_in_a_transport_stream(make_video, decode_all) -> None:
    path = make_video(
        "a.ts",
        options=X264,
        ticks=range(-7, 33),
        container_options={"mpegts_copyts": "1", "avoid_negative_ts": "disabled"},
    )
    oracle = decode_all(path)
    assert len(oracle.images) == 40
    assert_exact(path, oracle)


def test_packets_to_discard_are_decoded_and_not_shown(make_video, decode_all) -> None:
    path = make_video(frames=40, options=X264)
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12
    duration, media_time = struct.unpack_from(">Ii", data, at)
    struct.pack_into(">Ii", data, at, duration - 17 * 40, media_time + 17 * 512)
    path.write_bytes(data)
    with av.open(str(path)) as source:
        assert sum(p.is_discard for p in source.demux(video=0)) > 0
    oracle = decode_all(path)
    assert len(oracle.images) == 23
    assert_exact(path, oracle)


def test_header_that_counts_too_many_frames(make_video, decode_all) -> None:
    """An AVI that promises a thousand: some readers wait for them for ever."""
    path = make_video("a.avi", codec="mjpeg", pix_fmt="yuvj420p", frames=12)
    oracle = decode_all(path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"avih") + 8 + 16, 1000)  # dwTotalFrames
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, 1000)  # dwLength
    path.write_bytes(data)
    with open_source(path) as video:
        assert len(video) == 12
        assert video.info.truncated
        np.testing.assert_array_equal(video.fetch(range(12)).frames, oracle.images)
        with pytest.raises(IndexError):
            video.fetch([500])


def test_one_group_on_several_cores_is_exact(make_video, decode_all, monkeypatch) -> None:
    path = make_video(frames=40, options={"g": "250", "bf": "3"})
    oracle = decode_all(path)
    for cpus in (2, 4):
        monkeypatch.setattr("os.cpu_count", lambda cpus=cpus: cpus)
        assert_exact(path, oracle)


def test_open_groups_are_not_taken_for_damage(make_video) -> None:
    """Their leading pictures refer to what is not decoded when one starts there."""
    path = make_video(options={**X264, "bf": "3", "x264-params": "open-gop=1:b-adapt=0:keyint=10"})
    with open_source(path) as video:
        for index in range(0, 40, 3):
            assert video.fetch([index]).corrupt == ()
        assert len(list(video.backward(39, -1))) == 40
        assert video.corrupt == ()
