"""A live source has moved on: nothing is drawn on frames that were not masked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omni_sdk import MediaError, Result, VideoInfo
from omni_sdk.media.source import is_live

VIDEO = VideoInfo("camera 0", 32, 16, 4, 2.0, 2.0, has_audio=False)


@pytest.mark.parametrize("source", [0, np.int64(1), "rtsp://127.0.0.1/door", "RTSP://127.0.0.1/x"])
def test_no_overlay_of_a_live_source(source: object, tmp_path: Path) -> None:
    result = Result("where?", "", "[]", "absent", VIDEO, source=source)
    with pytest.raises(MediaError, match=r"other frames by now.*overlay=False"):
        result.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert (result.save(tmp_path / "out", overlay=False) / "result.json").is_file()


@pytest.mark.parametrize("source", ["rtsp.mp4", Path("0"), "https://x/y.mp4", [np.zeros(3)], None])
def test_files_and_arrays_are_not_live(source: object) -> None:
    assert not is_live(source)
