"""Sources that are no files: arrays, downloads, recordings; and memory."""

from __future__ import annotations

import functools
import http.server
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from omni_sdk.errors import LimitError, MediaError
from omni_sdk.media.limits import MediaLimits
from omni_sdk.media.live import record
from omni_sdk.media.pixels.convert import RgbConverter
from omni_sdk.media.pixels.resize import resize
from omni_sdk.media.source import TemporaryVideo, open_source


def test_arrays(draw) -> None:
    frames = [draw(n, 20, 30) for n in range(10)]
    with open_source(iter(frames), fps=5) as video:
        assert video.info.num_frames == 10
        assert video.info.average_fps == 5
        assert video.info.duration_seconds == 2
        assert (video.info.path, video.info.has_audio, video.audio()) == ("<frames>", False, None)
        batch = video.sample(num_frames=4)
        assert batch.frame_indices.tolist() == [0, 3, 6, 9]
        np.testing.assert_array_equal(batch.frames, [frames[i] for i in (0, 3, 6, 9)])
        small = video.sample(indices=[4], size=(7, 9)).frames[0]
        np.testing.assert_array_equal(small, resize(frames[4], (7, 9)))
        assert [f.frame_index for f in video.forward(2, 5)] == [2, 3, 4]
        assert [f.frame_index for f in video.backward(9, -1)] == list(range(9, -1, -1))
    with open_source(np.stack(frames), times_seconds=[2.0 + n**2 for n in range(10)]) as video:
        assert video.index.pts_seconds.tolist() == [float(n**2) for n in range(10)]
    with open_source([frames[0]]) as video:
        assert len(video) == 1
        assert video.info.duration_seconds > 0


def test_arrays_that_do_not_fit(draw) -> None:
    frame = draw(0, 20, 30)
    for frames, said in (
        ([], "expected at least one frame, got none"),
        ([frame.astype(np.float32)], r"frame 0: expected a \(H, W, 3\) uint8 array, got float32"),
        ([frame[..., 0]], "frame 0: expected"),
        ([frame[..., :2]], "frame 0: expected"),
        (["a", "b"], "frame 0: expected"),
        ([frame, frame[:5]], "frame 1 is"),
    ):
        with pytest.raises(MediaError, match=said):
            open_source(frames)
    with pytest.raises(LimitError, match="max_pixels=100"):
        open_source([frame], limits=MediaLimits(max_pixels=100))
    with pytest.raises(LimitError, match="max_batch_bytes=4000"):
        open_source([frame] * 3, limits=MediaLimits(max_batch_bytes=4000))
    with pytest.raises(LimitError, match="max_duration_seconds"):
        open_source([frame] * 3, fps=0.0001)
    for options in (
        {"fps": 0},
        {"fps": 1, "times_seconds": [0]},
        {"times_seconds": [0, 1]},
        {"times_seconds": [float("nan")]},
    ):
        with pytest.raises(ValueError, match=r"fps|times_seconds"):
            open_source([frame], **options)
    with pytest.raises(ValueError, match="are for arrays"):
        open_source("a.mp4", fps=3)


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/clip.mp4")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(clip):
    """Serve the clip's folder on this machine."""
    handler = functools.partial(_Handler, directory=str(clip.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_http(server, clip) -> None:
    limits = MediaLimits(protocols=("file", "http"))
    with open_source(clip) as local, open_source(f"{server}/clip.mp4", limits=limits) as video:
        assert video.info.path == f"{server}/clip.mp4"
        np.testing.assert_array_equal(
            video.sample(num_frames=5).frames, local.sample(num_frames=5).frames
        )
        assert video.audio() is not None
        kept = video._path
        assert kept.exists()
    assert not kept.exists()
    with pytest.raises(MediaError, match="cannot be downloaded: HTTP Error 404"):
        open_source(f"{server}/no.mp4", limits=limits)
    with pytest.raises(MediaError, match="cannot be downloaded: HTTP Error 302"):
        open_source(f"{server}/moved.mp4", limits=limits)
    with pytest.raises(LimitError, match="max_file_bytes=1000"):
        open_source(
            f"{server}/clip.mp4",
            limits=MediaLimits(protocols=("http", "file"), max_file_bytes=1000),
        )


def test_temporary_files_are_removed_on_failure(server, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("", "no.mp4"):  # the folder's listing is no video
        with pytest.raises(MediaError):
            open_source(f"{server}/{name}", limits=MediaLimits(protocols=("file", "http")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["copied", "encoded"])
def test_recording(kind, make_video, draw) -> None:
    """What rtsp and cameras go through: compressed packets are copied, raw pictures are encoded."""
    if kind == "copied":
        path = make_video("live.ts", options={"g": "10", "bf": "2"}, audio_seconds=1.6)
        recorded = record(str(path), "live", MediaLimits(), demuxer="mpegts")
    else:
        path = make_video("live.y4m", codec="wrapped_avframe", frames=20)
        recorded = record(str(path), "live", MediaLimits(), demuxer="yuv4mpegpipe")
    with TemporaryVideo(recorded, MediaLimits(), name="live") as video, open_source(path) as live:
        assert video.info.path == "live"
        assert len(video) == len(live)
        np.testing.assert_allclose(
            video.index.pts_seconds, live.index.pts_seconds, atol=2e-3
        )  # Matroska counts milliseconds
        theirs, ours = (v.sample(num_frames=5).frames.astype(int) for v in (live, video))
        assert np.abs(theirs - ours).mean() < (0.1 if kind == "copied" else 12)
        assert video.info.has_audio == live.info.has_audio
    assert not recorded.exists()


def test_recording_ends_in_time(make_video, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    path = make_video("live.ts", options={"g": "10"})
    with pytest.raises(MediaError, match="sent no frame within"):
        record(str(path), "live", MediaLimits(live_seconds=1e-9), demuxer="mpegts")
    with pytest.raises(LimitError, match="max_pixels"):
        record(str(path), "live", MediaLimits(max_pixels=10), demuxer="mpegts")
    assert list((tmp_path / "t").iterdir()) == []


def _open_files(path: Path) -> int:
    links = Path("/proc/self/fd")
    return sum(path.name in str(link.resolve()) for link in links.iterdir() if link.exists())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_containers_are_always_closed(make_video) -> None:
    path = make_video("closing.mp4", options={"g": "10"}, audio_seconds=1)
    video = open_source(path)
    video.sample(num_frames=9)
    video.audio()
    walk = video.forward(0, 40)
    next(walk)
    assert _open_files(path) == 1
    walk.close()
    back = video.backward(39, -1)
    next(back)
    del back
    assert _open_files(path) == 0
    video.close()


def test_walks_hold_a_bounded_number_of_frames(make_video, monkeypatch) -> None:
    """One group of 120 frames, walked both ways with 8 held."""
    path = make_video(
        "long.mp4", frames=120, options={"g": "300", "bf": "2", "preset": "ultrafast"}
    )
    made = []
    convert = RgbConverter.__call__

    def convert_and_remember(self, frame):
        image = convert(self, frame)
        made.append(weakref.ref(image))
        return image

    monkeypatch.setattr(RgbConverter, "__call__", convert_and_remember)
    with open_source(path, limits=MediaLimits(max_frames_held=8)) as video:
        for walk, expected, bound in (
            (video.backward(119, -1, (16, 16)), list(range(119, -1, -1)), 9),
            (video.forward(0, 120, (16, 16)), list(range(120)), 2),
        ):
            made.clear()
            seen, most = [], 0
            for frame in walk:
                seen.append(frame.frame_index)
                most = max(most, sum(ref() is not None for ref in made))
            assert seen == expected
            assert len(made) == 120
            assert 1 <= most <= bound
