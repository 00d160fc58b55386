"""Damaged, hostile and odd sources: each ends in frames that are flagged or in one clear line."""

from __future__ import annotations

import struct
import time

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omni_sdk.errors import LimitError, MediaError, OmniError
from omni_sdk.media.limits import MediaLimits
from omni_sdk.media.source import open_source

X264 = {"g": "10", "bf": "2", "threads": "1"}


def message(source, error=MediaError, **limits) -> str:
    """Return the one line that opening a source ends in."""
    with pytest.raises(error) as caught, open_source(source, limits=MediaLimits(**limits)) as video:
        video.sample(num_frames=2)
    assert type(caught.value) is error
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_no_such_file(tmp_path) -> None:
    assert message(tmp_path / "no.mp4") == f"no such file: '{tmp_path / 'no.mp4'}'"
    assert message("") == "expected a path, a URL or a camera's number as source, got ''"
    assert "cannot be opened" in message("x" * 5000)
    assert "a\\x00b.mp4" in message("a\x00b.mp4")
    assert message("concat:a.mp4|b.mp4").startswith("no such file")


def test_directory_and_special_files(tmp_path) -> None:
    assert message(tmp_path).endswith("is a directory, expected a video or image file")
    assert message("/dev/null").endswith("is not a regular file, expected a video or image file")


def test_empty_file(tmp_path) -> None:
    (tmp_path / "e.mp4").touch()
    text = message(tmp_path / "e.mp4")
    assert text.endswith("is empty (0 bytes), expected a video or image file")


@pytest.mark.parametrize(
    "content", [b"Hello, I am no film.\n" * 50, b"\x00" * 3000, b"\xff\xd8\xff"]
)
def test_text_or_noise_named_mp4(tmp_path, content) -> None:
    (tmp_path / "t.mp4").write_bytes(content)
    text = message(tmp_path / "t.mp4")
    assert "cannot be read as a video or image" in text or "holds no frame" in text


def test_other_types_of_source() -> None:
    assert "got NoneType" in message(None)
    assert "got bool" in message(True)
    assert "got bytes" in message(b"clip.mp4")
    assert message(-1) == "camera numbers start at 0, got -1"
    assert message(97).startswith("'camera 97' cannot be read")


def test_audio_only(tmp_path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            sink.mux(packet)
    assert message(path).endswith("has no video stream, found only audio")


def test_zero_frames(tmp_path, make_video) -> None:
    path = tmp_path / "zero.mp4"
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.open()
        sink.start_encoding()
    text = message(path)
    assert "holds no frame" in text or "has no video stream" in text
    # Frames are promised and there, and none can be decoded.
    whole = make_video(options=X264)
    data = bytearray(whole.read_bytes())
    at, size = _box(data, b"mdat")
    data[at:size] = bytes(size - at)
    whole.write_bytes(data)
    assert "holds no frame that can be decoded" in message(whole)


def test_playlists_cannot_open_other_files(tmp_path, make_video) -> None:
    secret = make_video("secret.mp4", frames=5)
    playlists = {
        "cc.mp4": f"ffconcat version 1.0\nfile '{secret}'\n",
        "relative.mp4": "ffconcat version 1.0\nfile secret.mp4\n",
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
        assert "cannot be read as a video or image" in message(tmp_path / name), name


def test_protocols_are_allowed_explicitly(tmp_path, make_video) -> None:
    text = message("http://127.0.0.1:9/a.mp4", LimitError)
    assert "the protocol 'http' is not allowed; allowed are 'file'" in text
    assert "'rtsp' is not allowed" in message("rtsp://127.0.0.1:9/a", LimitError)
    assert "'ftp' is not supported" in message("ftp://x/a.mp4", protocols=("ftp",))
    text = message("http://127.0.0.1:9/a.mp4", protocols=("http",))
    assert "cannot be downloaded" in text
    assert "cannot be read" in message("rtsp://127.0.0.1:9/a", protocols=("rtsp",))
    path = make_video(frames=3)
    with open_source(f"file://{path}") as video:
        assert len(video) == 3
    assert "lacks 'file'" in message(path, LimitError, protocols=("http",))


def _black(path, side: int):
    """Encode one black frame of side x side pixels, without ever making it as RGB."""
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        frame = av.VideoFrame(side, side, "yuv420p")
        for plane, value in zip(frame.planes, (16, 128, 128), strict=True):
            np.frombuffer(plane, np.uint8)[:] = value
        sink.mux([*stream.encode(frame), *stream.encode(None)])
    return path


def test_decompression_bomb_is_refused_before_decoding(tmp_path, make_video) -> None:
    path = _black(tmp_path / "bomb.mp4", 8192)
    assert path.stat().st_size < 200_000
    text = message(path, LimitError)
    assert "frames of 8192x8192 = 67108864 pixels, more than max_pixels=36000000" in text
    # An image that says so in its own header, and a container that lies about the size.
    data = bytearray(make_video("lie.mp4", size=(512, 512), frames=3, options=X264).read_bytes())
    at = data.index(b"avc1", data.index(b"stsd"))
    data[at + 28 : at + 32] = struct.pack(">HH", 64, 64)
    (tmp_path / "lie.mp4").write_bytes(data)
    with pytest.raises(OmniError):
        open_source(tmp_path / "lie.mp4", limits=MediaLimits(max_pixels=100 * 100))


def test_metadata_that_is_not_utf8(make_video) -> None:
    path = make_video("m.mp4", frames=4)
    data = path.read_bytes()
    at = data.index(b"Lavf")
    path.write_bytes(data[:at] + b"\xff\xfe\xfa\xf9" + data[at + 4 :])
    with pytest.raises(UnicodeDecodeError):
        av.open(str(path))
    with open_source(path) as video:
        assert len(video.sample(num_frames=4)) == 4


def test_every_limit_names_itself(clip) -> None:
    assert "more than max_file_bytes=100" in message(clip, LimitError, max_file_bytes=100)
    assert "max_duration_seconds=1" in message(clip, LimitError, max_duration_seconds=1)
    assert "max_pixels=1000" in message(clip, LimitError, max_pixels=1000)
    assert "max_streams=1" in message(clip, LimitError, max_streams=1)
    assert "max_frames=10" in message(clip, LimitError, max_frames=10)
    assert "max_batch_bytes=1000" in message(clip, LimitError, max_batch_bytes=1000)
    assert "max_wall_seconds=1e-06" in message(clip, LimitError, max_wall_seconds=1e-6)
    with open_source(clip, limits=MediaLimits(max_audio_seconds=0.5)) as video:
        with pytest.raises(LimitError, match=r"max_audio_seconds=0\.5"):
            video.audio()
        clipped = video.audio(max_seconds=0.4)
        assert clipped is not None
        assert len(clipped.samples) == 6400
    assert "cannot be read" in message(clip, formats=("avi",))


def test_wall_clock_stops_a_decode_and_spares_a_slow_consumer(clip) -> None:
    with open_source(clip, limits=MediaLimits(max_wall_seconds=5)) as video:
        assert len(list(video.forward(0, 3))) == 3
    with open_source(clip) as video:
        video._limits = MediaLimits(max_wall_seconds=0.3)
        for _ in video.forward(0, 4):
            time.sleep(0.2)  # 0.8 s in all, none of it the file's
        video._limits = MediaLimits(max_wall_seconds=1e-6)
        for call in (
            lambda: video.sample(num_frames=4),
            lambda: list(video.forward(0, 40)),
            lambda: list(video.backward(39, -1)),
            video.audio,
        ):
            with pytest.raises(LimitError, match="took longer than max_wall_seconds"):
                call()


def test_limits_from_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("OMNI_SDK_MAX_PIXELS", "1000")
    monkeypatch.setenv("OMNI_SDK_MAX_WALL_SECONDS", "2.5")
    limits = MediaLimits.from_environment()
    assert (limits.max_pixels, limits.max_wall_seconds) == (1000, 2.5)
    for wrong in ("many", "-3", "0", "nan", ""):
        monkeypatch.setenv("OMNI_SDK_MAX_PIXELS", wrong)
        with pytest.raises(LimitError, match="OMNI_SDK_MAX_PIXELS must be an integer above 0"):
            MediaLimits.from_environment()
    monkeypatch.delenv("OMNI_SDK_MAX_PIXELS")
    monkeypatch.setenv("OMNI_SDK_MAX_DURATION", "10")
    with pytest.raises(
        LimitError, match=r"nothing reads OMNI_SDK_MAX_DURATION; .*OMNI_SDK_MAX_DURATION_SECONDS"
    ):
        MediaLimits.from_environment()
    with pytest.raises(ValueError, match="max_frames_held must be positive"):
        MediaLimits(max_frames_held=0)


def _box(data: bytes, kind: bytes) -> tuple[int, int]:
    """Return (first byte of the content, end) of a box of an mp4 file, found by its name."""
    at = bytes(data).index(kind)
    (size,) = struct.unpack_from(">I", data, at - 4)
    return at + 4, at - 4 + size


FAST = {"movflags": "faststart"}


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.avi"])
def test_truncated_file_gives_what_is_there(name, make_video, decode_all) -> None:
    options = {"container_options": FAST} if name.endswith("mp4") else {}
    if name.endswith("avi"):
        options["codec"], options["pix_fmt"] = "mjpeg", "yuvj420p"
    else:
        options["options"] = X264
    path = (
        make_video(name, frames=60, audio_seconds=2.4, audio_codec="pcm_s16le", **options)
        if name.endswith(("mkv", "avi"))
        else make_video(name, frames=60, **options)
    )
    whole = decode_all(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.55)])
    with open_source(path) as video:
        assert video.info.truncated
        assert 10 < len(video) < 55
        batch = video.sample(num_frames=len(video))
        assert len(batch) + len(batch.missing) == len(video)
        assert len(batch.missing) <= 1
        for seconds, image in zip(batch.pts_seconds, batch.frames, strict=True):
            at = int(np.argmin(np.abs(whole.seconds - seconds)))
            np.testing.assert_array_equal(image, whole.images[at])
        assert len(list(video.forward(0, len(video)))) == len(batch)


def test_truncated_without_its_table_of_contents(make_video) -> None:
    path = make_video(options=X264)
    path.write_bytes(path.read_bytes()[:-400])
    assert "cannot be read as a video or image" in message(path)


def test_table_of_contents_that_promises_too_much(make_video) -> None:
    """Field experience: three of twelve damaged files gave 6 to 30 of 250 frames without an error."""
    path = make_video(frames=50, options=X264, container_options=FAST, audio_seconds=2)
    data = bytearray(path.read_bytes())
    at, _ = _box(data, b"stco")
    chunks = struct.unpack_from(">I", data, at + 4)[0]
    for n in range(chunks // 2, chunks):
        struct.pack_into(">I", data, at + 8 + 4 * n, 0x7FFF0000)
    assert chunks > 1
    path.write_bytes(data)
    with open_source(path) as video:
        assert video.info.truncated


def test_corrupt_bytes_are_reported_and_the_rest_is_exact(make_video, decode_all) -> None:
    path = make_video(frames=60, options={**X264, "x264-params": "slices=1"})
    whole = decode_all(path)
    data = bytearray(path.read_bytes())
    at, end = _box(data, b"mdat")
    middle = (at + end) // 2
    data[middle : middle + 60] = bytes(60)
    path.write_bytes(data)
    with open_source(path) as video:
        every = video.sample(indices=range(60))
        assert len(every) + len(every.missing) == 60
        hurt = {
            int(i)
            for i, image in zip(every.frame_indices, every.frames, strict=True)
            if not np.array_equal(image, whole.images[i])
        } | set(every.missing)
        assert hurt  # the damage is real, and stays within its group
        assert max(hurt) - min(hurt) < 10
        for index, image in zip(every.frame_indices, every.frames, strict=True):
            if index not in every.corrupt and index < 20:
                np.testing.assert_array_equal(image, whole.images[index])
        np.testing.assert_array_equal(every.frames[-1], whole.images[59])
        walked = [f.frame_index for f in video.forward(0, 60)]
        assert walked == [i for i in range(60) if i not in video.missing]
        assert video.info.truncated == bool(video.missing)


def test_lost_frames_are_listed(make_video, decode_all) -> None:
    path = make_video(frames=30, codec="mjpeg", pix_fmt="yuvj420p", name="lost.avi")
    whole = decode_all(path)
    data = bytearray(path.read_bytes())
    movie = range(data.index(b"movi"), data.rindex(b"idx1"))
    starts = [i for i in movie if data[i : i + 4] == b"00dc"]
    for n in (4, 5, 29):
        (size,) = struct.unpack_from("<I", data, starts[n] + 4)
        data[starts[n] + 8 : starts[n] + 8 + size] = bytes(size)
    path.write_bytes(data)
    with open_source(path) as video:
        batch = video.sample(indices=[3, 4, 5, 6, 29, 4])
        assert batch.missing == (4, 5, 29)
        assert batch.frame_indices.tolist() == [3, 6]
        np.testing.assert_array_equal(batch.frames, [whole.images[3], whole.images[6]])
        assert video.info.truncated
        assert video.missing == (4, 5, 29)
        assert [f.frame_index for f in video.forward(2, 8)] == [2, 3, 6, 7]
        assert [f.frame_index for f in video.backward(7, 2)] == [7, 6, 3]
        with pytest.raises(MediaError, match="none of the 2 wanted frames can be decoded"):
            video.fetch([4, 5])


def test_no_audio(make_video) -> None:
    with open_source(make_video(frames=3)) as video:
        assert video.audio() is None
        assert not video.info.has_audio


def test_edit_list_that_trims(make_video, decode_all) -> None:
    path = make_video(frames=50, options=X264)
    whole = decode_all(path)
    data = bytearray(path.read_bytes())
    at, _ = _box(data, b"elst")
    duration, media_time = struct.unpack_from(">Ii", data, at + 8)
    tick = 512  # the muxer's 12800 per second at 25 fps
    struct.pack_into(">Ii", data, at + 8, duration - 17 * 40, media_time + 17 * tick)
    path.write_bytes(data)
    oracle = decode_all(path)
    assert len(oracle.images) == 33
    with open_source(path) as video:
        assert len(video) == 33
        assert not video.info.truncated
        np.testing.assert_allclose(video.index.pts_seconds, oracle.seconds)
        batch = video.fetch(range(33))
        np.testing.assert_array_equal(batch.frames, oracle.images)
        np.testing.assert_array_equal(batch.frames, whole.images[17:])
        np.testing.assert_array_equal(
            [f.image for f in video.backward(32, -1)], oracle.images[::-1]
        )


@pytest.mark.parametrize("cut", [3, 7, 14])
def test_stream_that_starts_within_a_group(cut, make_video, decode_all, tmp_path) -> None:
    path = make_video(
        "whole.ts", frames=40, options={**X264, "x264-params": "open-gop=1:b-adapt=0"}
    )
    out = tmp_path / "cut.ts"
    with av.open(str(path)) as source, av.open(str(out), "w") as sink:
        stream = source.streams.video[0]
        target = sink.add_stream_from_template(stream)
        for n, packet in enumerate(source.demux(stream)):
            if n >= cut and packet.dts is not None:
                packet.stream = target
                sink.mux(packet)
    oracle = decode_all(out)
    with open_source(out) as video:
        assert len(video) == len(oracle.images)
        batch = video.fetch(range(len(video)))
        assert batch.missing == ()
        np.testing.assert_array_equal(batch.frames, oracle.images)


def test_times_that_occur_twice(make_video, decode_all, tmp_path) -> None:
    path = make_video("plain.mkv", frames=20, options={"g": "5", "bf": "0"})
    out = tmp_path / "odd.mkv"
    with av.open(str(path)) as source, av.open(str(out), "w") as sink:
        stream = source.streams.video[0]
        target = sink.add_stream_from_template(stream)
        for n, packet in enumerate(source.demux(stream)):
            if packet.dts is None:
                continue
            if n in (7, 8, 9):
                packet.pts = packet.dts = packet.pts - (n - 6) * 40
            packet.stream = target
            sink.mux(packet)
    oracle = decode_all(out)
    assert len(set(oracle.pts)) < 20
    with open_source(out) as video:
        assert len(video) == len(oracle.images) == 20
        np.testing.assert_array_equal(video.fetch(range(20)).frames, oracle.images)
        np.testing.assert_allclose(video.index.pts_seconds, oracle.seconds)
        assert [f.frame_index for f in video.backward(12, 3)] == list(range(12, 3, -1))


def test_no_times_at_all(make_video, decode_all) -> None:
    path = make_video("raw.h264", frames=20, options=X264, format="h264")
    with av.open(str(path)) as source:
        assert all(p.pts is None for p in source.demux(video=0))
    oracle = decode_all(path)
    with open_source(path) as video:
        np.testing.assert_array_equal(video.fetch(range(20)).frames, oracle.images)
        assert (np.diff(video.index.pts_seconds) > 0).all()


def test_resolution_that_changes(make_video, tmp_path) -> None:
    out = tmp_path / "change.ts"
    first = make_video("1.ts", frames=10, options=X264, size=(48, 64))
    second = make_video("2.ts", frames=10, options=X264, size=(64, 96), ticks=range(10, 20))
    out.write_bytes(first.read_bytes() + second.read_bytes())
    with open_source(out) as video:
        batch = video.sample(indices=[0, len(video) - 1])
        assert batch.frames.shape[1:] == (48, 64, 3)
        assert len(list(video.forward(0, len(video)))) + len(video.missing) == len(video)


def test_nothing_reaches_stderr(make_video, capfd) -> None:
    path = make_video(frames=60, options={**X264, "x264-params": "log-level=-1"})
    data = bytearray(path.read_bytes())
    at, end = _box(data, b"mdat")
    data[(at + end) // 2 : (at + end) // 2 + 50] = bytes(50)
    path.write_bytes(data)
    capfd.readouterr()
    with open_source(path) as video:
        video.sample(num_frames=20)
        list(video.forward(0, 60))
    path.write_bytes(b"\x00\x00\x00\x18ftypisom" + b"\xff" * 500)
    message(path)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_closed_and_out_of_range(clip) -> None:
    with open_source(clip) as video:
        for call in (
            lambda: video.forward(0, 41),
            lambda: video.forward(-1, 3),
            lambda: video.backward(40, 0),
            lambda: video.backward(3, 4),
            lambda: video.fetch([40]),
            lambda: video.fetch([-1]),
        ):
            with pytest.raises(IndexError):
                call()
        for arguments in (
            {},
            {"num_frames": 0},
            {"num_frames": 3, "fps": 1},
            {"fps": 0},
            {"indices": []},
            {"times_seconds": [-1.0]},
            {"times_seconds": [float("nan")]},
            {"num_frames": 3, "strategy": "random"},
            {"num_frames": 3, "size": (0, 5)},
            {"num_frames": 3, "size": (5, 5), "filter": "nearest"},
        ):
            with pytest.raises(ValueError):  # noqa: PT011
                video.sample(**arguments)
    with pytest.raises(MediaError, match="is closed"):
        video.sample(num_frames=1)
    with pytest.raises(MediaError, match="is closed"):
        video.audio()


@settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_damage_ends_in_flagged_frames_or_one_error(data, clip, tmp_path) -> None:
    content = bytearray(clip.read_bytes())
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 3, len(content)))]
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    limits = MediaLimits(max_wall_seconds=20, max_frames_held=8)
    try:
        with open_source(path, limits=limits) as video:
            batch = video.sample(num_frames=8, size=(8, 8))
            assert len(batch) + len(batch.missing) >= 1
            walked = [f.frame_index for f in video.forward(0, len(video), (8, 8))]
            back = [f.frame_index for f in video.backward(len(video) - 1, -1, (8, 8))]
            lost = set(video.missing)
            assert set(walked) | lost == set(range(len(video)))
            assert set(back) | lost == set(range(len(video)))
            assert walked == sorted(walked)
            video.audio()
    except OmniError:  # and nothing else
        pass
