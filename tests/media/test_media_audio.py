"""Sound on the video's clock."""

from __future__ import annotations

import av
import numpy as np
import pytest

from omni_sdk.media import audio as audio_module
from omni_sdk.media.source import open_source

X264 = {"g": "10", "bf": "2"}


def loud_from(samples: np.ndarray, rate: int = 16000) -> float:
    """Return the time at which the tone sets in."""
    return float(np.flatnonzero(np.abs(samples) > 0.2)[0]) / rate


def tone(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples))
    return float(np.argmax(spectrum)) * rate / len(samples)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "aac"), ("a.mkv", "pcm_s16le"), ("a.ts", "aac"), ("a.webm", "libopus")],
)
def test_rate_length_and_pitch(name, codec, make_video) -> None:
    video_codec = {"codec": "libvpx-vp9"} if name.endswith("webm") else {"options": X264}
    rate = 48000 if codec == "libopus" else 44100
    path = make_video(
        name, frames=30, audio_seconds=1.2, audio_codec=codec, audio_rate=rate, **video_codec
    )
    with open_source(path) as video:
        assert video.info.has_audio
        for rate in (16000, 22050):
            sound = video.audio(rate)
            assert sound is not None
            assert sound.samples.dtype == np.float32
            assert sound.sampling_rate == rate
            assert abs(len(sound.samples) / rate - 1.2) < 0.05
            assert abs(tone(sound.samples, rate) - 440) < 2
            middle = sound.samples[rate // 4 : -rate // 4]
            assert 0.45 < np.abs(middle).max() < 0.55
            assert abs(sound.start_seconds) < 0.05


def test_equal_to_a_plain_resample(make_video) -> None:
    path = make_video("a.mkv", frames=30, audio_seconds=1.2, audio_codec="pcm_s16le")
    with av.open(str(path)) as source:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=16000)
        blocks = [o for f in source.decode(audio=0) for o in resampler.resample(f)]
        blocks += resampler.resample(None)
    expected = np.concatenate([b.to_ndarray().reshape(-1) for b in blocks])
    with open_source(path) as video:
        sound = video.audio()
    assert sound is not None
    np.testing.assert_array_equal(sound.samples[: len(expected)], expected)
    assert len(sound.samples) == len(expected)


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.ts"])
def test_sound_that_starts_late_is_padded(name, make_video) -> None:
    path = make_video(name, frames=40, options=X264, audio_seconds=0.8, audio_start=0.5)
    with open_source(path) as video:
        sound = video.audio()
        assert sound is not None
        assert sound.start_seconds == pytest.approx(0.5, abs=0.05)
        assert loud_from(sound.samples) == pytest.approx(0.5, abs=0.05)
        assert len(sound.samples) / 16000 == pytest.approx(1.3, abs=0.08)


@pytest.mark.parametrize("name", ["early.mkv", "early.ts"])
def test_sound_before_the_first_frame_is_cut(name, make_video) -> None:
    path = make_video(
        name, frames=40, ticks=range(10, 50), options=X264, audio_seconds=1.2, audio_codec="aac"
    )
    with open_source(path) as video:
        sound = video.audio()
        assert sound is not None
        assert sound.start_seconds == pytest.approx(-0.4, abs=0.05)
        assert len(sound.samples) / 16000 == pytest.approx(0.8, abs=0.08)
        assert video.index.pts_seconds[0] == 0


def test_a_gap_is_silence(make_video, tmp_path) -> None:
    path = make_video("a.mkv", frames=40, options=X264, audio_seconds=1.6, audio_codec="pcm_s16le")
    out = tmp_path / "gap.mkv"
    with av.open(str(path)) as source, av.open(str(out), "w") as sink:
        target = {s.index: sink.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            seconds = None if packet.pts is None else float(packet.pts * packet.time_base)
            if seconds is None or (packet.stream.type == "audio" and 0.5 < seconds < 1.0):
                continue
            packet.stream = target[packet.stream_index]
            sink.mux(packet)
    with open_source(out) as video:
        sound = video.audio()
    assert sound is not None
    assert np.abs(sound.samples[int(0.55 * 16000) : int(0.95 * 16000)]).max() == 0
    assert np.abs(sound.samples[int(1.05 * 16000) :]).max() > 0.4
    assert len(sound.samples) / 16000 == pytest.approx(1.6, abs=0.05)


def test_max_seconds_and_arguments(clip) -> None:
    with open_source(clip) as video:
        short = video.audio(max_seconds=0.25)
        whole = video.audio()
        assert short is not None
        assert whole is not None
        np.testing.assert_array_equal(short.samples, whole.samples[:4000])
        with pytest.raises(ValueError, match="sampling_rate must be"):
            video.audio(0)
        with pytest.raises(ValueError, match="max_seconds must be"):
            video.audio(max_seconds=-1)


@pytest.mark.parametrize(
    ("name", "codec", "gathered"),
    [
        ("a.mp4", "aac", False),
        ("a.mkv", "pcm_s16le", True),
        ("a.mkv", "aac", True),
        ("a.ts", "aac", True),
        ("a.avi", "mp2", True),
        ("a.webm", "libopus", True),
    ],
)
def test_sound_met_while_indexing_is_not_read_again(
    name, codec, gathered, make_video, monkeypatch
) -> None:
    """The samples are those of a pass over the file for the sound alone."""
    video_codec = {"codec": "libvpx-vp9"} if name.endswith("webm") else {"options": X264}
    rate = 48000 if codec == "libopus" else 44100
    path = make_video(
        name, frames=30, audio_seconds=1.1, audio_codec=codec, audio_rate=rate, **video_codec
    )
    with open_source(path) as video:
        assert (video._sound is not None) == gathered
        video._sound, video._is_quick = None, False
        expected = video.audio()
        halved = video.audio(max_seconds=0.5)
    assert expected is not None
    assert halved is not None
    opened = []
    original = audio_module.open_container
    monkeypatch.setattr(
        audio_module, "open_container", lambda *a, **k: opened.append(a) or original(*a, **k)
    )
    for limit, wanted in ((None, expected), (0.5, halved)):
        with open_source(path) as video:
            opened.clear()
            for turn in range(2):  # the second time, the file is read
                sound = video.audio(max_seconds=limit)
                assert sound is not None
                np.testing.assert_array_equal(sound.samples, wanted.samples)
                assert sound.start_seconds == wanted.start_seconds
                assert sound.damaged == wanted.damaged
                assert len(opened) == turn + (not gathered)


def test_sound_that_is_too_much_to_keep_is_read_for_itself(make_video, monkeypatch) -> None:
    path = make_video("a.mkv", frames=30, audio_seconds=1.1, audio_codec="pcm_s16le")
    with open_source(path) as video:
        expected = video.audio()
    monkeypatch.setattr("omni_sdk.media.demux.sound._MAX_BYTES", 10_000)
    with open_source(path) as video:
        assert video._sound is None
        sound = video.audio()
    assert sound is not None
    assert expected is not None
    np.testing.assert_array_equal(sound.samples, expected.samples)
