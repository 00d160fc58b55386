from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from omni_sdk.datasets.records import Video
from omni_sdk.demo.scene import Scene
from omni_sdk.demo.sound import waveform
from omni_sdk.errors import LimitError, MediaError
from omni_sdk.evaluation.frame_folder import FrameFolder
from omni_sdk.evaluation.html import encode_jpeg
from omni_sdk.evaluation.plan import read_samples
from omni_sdk.media.limits import MediaLimits
from omni_sdk.media.source import open_source

SIZE = (24, 40)


@pytest.fixture
def folder(tmp_path: Path) -> Video:
    for k in range(5):
        picture = np.full((*SIZE, 3), 40 * k, np.uint8)
        (tmp_path / f"{k}.jpg").write_bytes(encode_jpeg(picture))
    return Video("v", tmp_path, tuple(str(k) for k in range(5)))


def test_frames_both_ways(folder: Video) -> None:
    with open_source(FrameFolder(folder, 4.0)) as video:
        info = video.info
        assert (info.height, info.width, info.num_frames) == (*SIZE, 5)
        assert (info.average_fps, info.duration_seconds, info.has_audio) == (4.0, 1.25, False)
        ahead = list(video.forward(1, 4))
        assert [(f.frame_index, f.pts_seconds) for f in ahead] == [(1, 0.25), (2, 0.5), (3, 0.75)]
        for frame in ahead:
            assert np.array_equal(frame.image, folder.read_frame(frame.frame_index))
        back = [f.frame_index for f in video.backward(4, -1, size=(8, 8))]
        assert back == [4, 3, 2, 1, 0]
        batch = video.sample(num_frames=3, size=(12, 20))
        assert batch.frame_indices.tolist() == [0, 2, 4]
        assert batch.frames.shape == (3, 12, 20, 3)
        assert video.audio() is None


def test_only_what_is_wanted_is_read(folder: Video) -> None:
    (folder.folder / "3.jpg").unlink()
    with open_source(FrameFolder(folder, 4.0)) as video:
        assert len(list(video.forward(0, 3))) == 3
        with pytest.raises(MediaError, match=r"3\.jpg"):
            list(video.forward(0, 5))


def test_limits_and_broken_folders(folder: Video) -> None:
    for limits in (
        MediaLimits(max_frames=4),
        MediaLimits(max_pixels=100),
        MediaLimits(max_duration_seconds=1),
    ):
        with pytest.raises(LimitError, match="max_"):
            open_source(FrameFolder(folder, 4.0), limits=limits)
    with pytest.raises(MediaError, match="none"):
        open_source(FrameFolder(dataclasses.replace(folder, frame_names=()), 4.0))
    with pytest.raises(ValueError, match="fps"):
        open_source(FrameFolder(folder, 4.0), fps=2.0)
    with pytest.raises(ValueError, match="fps"):
        FrameFolder(folder, 0.0)


def test_sound_of_a_clip(refavs_root: Path, sound_scene: Scene) -> None:
    sample = read_samples("refavs", str(refavs_root), split="test_s")[0]
    with open_source(FrameFolder(sample.video, 1.25)) as video:
        clip = video.audio(16000)
    assert clip is not None
    assert clip.start_seconds == 0
    assert np.abs(clip.samples - waveform(sound_scene)).max() < 1e-4  # 16 bits in the file
    lost = dataclasses.replace(sample.video, audio_path=refavs_root / "none.wav")
    with (
        open_source(FrameFolder(lost, 1.25)) as video,
        pytest.raises(MediaError, match=r"none\.wav"),
    ):
        video.audio()
