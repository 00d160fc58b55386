"""Damage that decoders conceal is told; sound files are never flagged; the fuzzer finds nothing new."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from omni_sdk.errors import OmniError
from omni_sdk.media.demux.damage import late_options
from omni_sdk.media.source import open_source

SECONDS = 12  # of fuzzing in the suite; the full run is `python tests/security/fuzz_media.py`


def _frames(video) -> list[np.ndarray]:
    return list(video.sample(indices=range(len(video))).frames)


def test_sound_files_are_not_flagged(corpus, save) -> None:
    for name, data in corpus.items():
        with open_source(save(name, data)) as video:
            batch = video.sample(indices=range(len(video)))
            list(video.forward(0, len(video)))
            list(video.backward(len(video) - 1, -1))
            video.audio()
            assert (batch.corrupt, video.corrupt, video.missing) == ((), (), ()), name
            info = video.info
            assert (info.truncated, info.missing_frames, info.corrupt_frames) == (False, 0, 0), name


@pytest.mark.parametrize("name", ["h264_fast.mp4", "mjpeg.avi", "h264.ts"])
def test_concealed_damage_is_flagged(corpus, save, name) -> None:
    """What a decoder notices is told for the frame itself and for all that may refer to it."""
    with open_source(save("sound-" + name, corpus[name])) as video:
        sound, sync = _frames(video), set(video.index.sync_frames.tolist())
    noticed = 0
    for place in range(16):
        data = bytearray(corpus[name])
        at = len(data) // 3 + place * len(data) // 40
        data[at : at + 120] = bytes(120)
        path = save(name, bytes(data))
        with open_source(path) as video:
            batch = video.sample(indices=range(len(video)))
            assert len(batch) + len(batch.missing) == len(video)
            bad = set(batch.corrupt) | set(batch.missing)
            differ = {
                int(i)
                for i, image in zip(batch.frame_indices, batch.frames, strict=True)
                if not np.array_equal(image, sound[i])
            }
            assert video.info.corrupt_frames == len(batch.corrupt)
            assert video.info.missing_frames == len(batch.missing)
        if not bad or len(video) < len(sound):
            continue
        noticed += 1
        assert len(bad) <= 12, "the other groups are not blamed"
        # Frames are reordered by up to 3: what is further behind in the group was decoded later.
        end = min([i for i in sync if i > min(bad)], default=len(sound))
        assert {i for i in differ if min(bad) + 3 < i < end} <= bad
        with open_source(path) as video:
            again = video.sample(indices=range(len(sound)))
            assert (again.corrupt, again.missing) == (batch.corrupt, batch.missing)
            assert again.frames.tobytes() == batch.frames.tobytes()
        for ends, walk in (((0, len(sound)), "forward"), ((len(sound) - 1, -1), "backward")):
            with open_source(path) as video:
                list(getattr(video, walk)(*ends))
                assert set(video.corrupt) | set(video.missing) >= bad, walk
        with open_source(path) as video:  # a late frame alone knows of the damage before it
            if hurt := differ & set(batch.corrupt):
                assert video.fetch([max(hurt)]).corrupt == (max(hurt),)
    assert noticed >= 3


@pytest.mark.parametrize("options", [{"slices": "1"}, {"slices": "3"}, {"cabac": "0"}])
def test_frame_threads_lose_no_damage(options, save, tmp_path, monkeypatch) -> None:
    """One group on several cores: the frames and what is told of them are those of one thread."""
    x264 = ":".join(f"{k}={v}" for k, v in options.items())
    path = _one_group(tmp_path / "one.mp4", x264)
    whole = path.read_bytes()
    start = whole.index(b"mdat") + 800  # after what the encoder says of itself
    flagged = threaded = 0
    for place in range(20):
        data = bytearray(whole)
        at = start + place * (len(whole) - 1500 - start) // 19
        if place % 2:
            data[at] ^= 0x10
        else:
            data[at : at + 30] = bytes(30)
        damaged = save("damaged.mp4", bytes(data))
        told = []
        for cpus in (1, 2, 4):
            monkeypatch.setattr("os.cpu_count", lambda cpus=cpus: cpus)
            with open_source(damaged) as video:
                if video._spare is not None:
                    assert video._spare.flags_late == (cpus > 1)
                    threaded += cpus > 1
                batch = video.sample(indices=range(0, len(video), 2))
                told.append((batch.corrupt, batch.missing, batch.frames.tobytes()))
            with open_source(damaged) as video:
                walk = [f.image.tobytes() for f in video.forward(0, len(video))]
                told[-1] += (walk, video.corrupt, video.missing)
        assert told[0] == told[1] == told[2], place
        flagged += bool(told[0][0] or told[0][1])
    assert flagged >= 5
    assert threaded >= 20


def test_a_damaged_first_frame_looks_as_in_a_plain_decode(save, tmp_path, monkeypatch) -> None:
    """The index decodes it first: nothing of that may show in what fills the damage later."""
    whole = _one_group(tmp_path / "one.mp4", "cabac=0").read_bytes()
    start = whole.index(b"mdat") + 800
    flagged = 0
    for at in range(start + 100, start + 1100, 50):
        data = bytearray(whole)
        data[at] ^= 0x10
        damaged = save("damaged.mp4", bytes(data))
        plain = _plain_decode(damaged)
        for cpus in (1, 2):
            monkeypatch.setattr("os.cpu_count", lambda cpus=cpus: cpus)
            with open_source(damaged) as video:
                batch = video.sample(indices=range(len(video)))
            for index, image in zip(batch.frame_indices, batch.frames, strict=True):
                np.testing.assert_array_equal(image, plain[index])
        flagged += 0 in batch.corrupt
    assert flagged >= 5


def test_damage_does_not_reach_the_next_group(save, tmp_path, monkeypatch) -> None:
    """A decoder that has met damage showed a sound key frame otherwise, flushed or not, and told nothing."""
    whole = _one_group(tmp_path / "groups.mp4", "cabac=0:keyint=12").read_bytes()
    start = whole.index(b"mdat") + 800
    flagged = 0
    for at in range(start + 3640, start + 4400, 60):
        data = bytearray(whole)
        data[at : at + 20] = bytes(20)
        damaged = save("damaged.mp4", bytes(data))
        plain = _plain_decode(damaged)
        for cpus in (1, 2):
            monkeypatch.setattr("os.cpu_count", lambda cpus=cpus: cpus)
            with open_source(damaged) as video:
                batch = video.sample(indices=range(0, len(video), 2))
            for index, image in zip(batch.frame_indices, batch.frames, strict=True):
                if index not in batch.corrupt:
                    np.testing.assert_array_equal(image, plain[index])
        flagged += bool(batch.corrupt)
    assert flagged >= 5


def test_when_a_decoder_that_flags_late_has_frame_threads() -> None:
    assert late_options("h264", 2, 2) == {"has_b_frames": "4"}
    assert late_options("h264", 4, 0) == {"has_b_frames": "4"}
    assert late_options("h264", 1, 2) == {}  # one thread needs none of it
    assert late_options("h264", 4, 12) == {}  # more than libavcodec holds back
    assert late_options("h264", 2, None) == {}
    assert late_options("mpeg4", 2, 2) == {}


def _plain_decode(path: Path) -> dict[int, np.ndarray]:
    """Return the RGB frames that a single thread makes of the whole of an `_one_group` file, by number."""
    frames = {}
    with av.open(str(path)) as source:
        stream = source.streams.video[0]
        stream.codec_context.thread_type = "NONE"
        for packet in source.demux(stream):
            try:
                for frame in packet.decode():
                    frames[round(frame.time * 25)] = frame.to_ndarray(format="rgb24")
            except av.error.InvalidDataError:
                pass
    return frames


def _one_group(path: Path, x264: str) -> Path:
    """Write 36 frames. x264's AVX-512 code gives other bytes every time: damage would lie elsewhere."""
    with av.open(str(path), "w") as sink:
        options = {"g": "250", "bf": "3", "threads": "1", "x264-params": f"{x264}:asm=AVX2"}
        stream = sink.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuv420p"
        y, x = np.mgrid[0:128, 0:192]
        for n in range(36):
            waves = 128 + 60 * np.sin((x + 3 * n) / 7) + 50 * np.cos((y - 2 * n) / (5 + n % 7))
            image = np.repeat(waves.astype(np.uint8)[..., None], 3, -1)
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
    return path


def test_an_image_whose_checksum_fails_is_not_shown_as_sound(corpus, save) -> None:
    data = bytearray(corpus["still.png"])
    data[data.index(b"IDAT") + 60] ^= 1
    try:
        with open_source(save("still.png", bytes(data))) as video:
            assert video.sample(num_frames=1).corrupt == (0,)
    except OmniError:
        pass


def test_lost_sound_is_told(corpus, save) -> None:
    data = bytearray(corpus["h264.mkv"])
    with open_source(save("sound.mkv", bytes(data))) as video:
        assert video.audio() is not None
        assert not video.info.truncated
    # In Matroska the sound's blocks are those of track 2.
    blocks = [m.start() for m in re.finditer(rb"\xa3.{1,2}\x82", bytes(data), re.DOTALL)]
    assert len(blocks) > 4
    for at in blocks[3:9]:
        data[at + 6 : at + 60] = b"\xff" * 54
    with open_source(save("damaged.mkv", bytes(data))) as video:
        clip = video.audio()
        assert clip is None or clip.damaged
        assert video.info.truncated


@pytest.mark.parametrize("name", ["h264.mkv", "vp9.webm", "h264_fast.mp4", "mjpeg.avi"])
@pytest.mark.parametrize("part", [0.5, 0.7, 0.85])
def test_a_file_that_ends_early_says_so(corpus, save, name, part) -> None:
    data = corpus[name]
    with open_source(save(name, data[: int(len(data) * part)])) as video:
        assert video.info.truncated


def test_fuzzing_for_a_while_finds_nothing(tmp_path: Path) -> None:
    out = subprocess.run(
        [sys.executable, "tests/security/fuzz_media.py", "--seconds", str(SECONDS)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, out.stdout[-3000:] + out.stderr[-3000:]
    judged = int(re.findall(r"^all .* (\d+)$", out.stdout, re.MULTILINE)[0])
    assert judged >= 50, out.stdout
