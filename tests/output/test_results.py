from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from omni_sdk.dus.masks import rle_encode
from omni_sdk.dus.tracks import build_tracks
from omni_sdk.media.frames import VideoInfo
from omni_sdk.results import BundleInfo, Result
from omni_sdk.stages import FrameMasks, GroundedObject, Keyframe, ObjectMask
from omni_sdk.utils.timing import StageTimings

SIZE = (6, 9)


def _mask(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(SIZE) > 0.5


def _result() -> Result:
    frames = [
        FrameMasks(
            t, t / 8, tuple(ObjectMask(o, rle_encode(_mask(10 * o + t)), 1.5) for o in (1, 2))
        )
        for t in (2, 3, 1, 0)
    ]
    box = np.array([1, 2, 3, 4], np.float32)
    return Result(
        query="q",
        thinking="t",
        answer="a",
        status="found",
        video=VideoInfo("x.mp4", 9, 6, 4, 8.0, 0.5, True),
        keyframes=(Keyframe(0.0, 0.5, 2, 0.25, "a dog", (GroundedObject(1, box, "dog"),)),),
        tracks=build_tracks(frames, {1: "dog"}, SIZE),
        timings_ms=StageTimings(total=12.34567),
        bundle=BundleInfo("nano", "1", "onnx", "cpu"),
    )


def test_tracks_are_in_time_order_whatever_order_frames_came_in() -> None:
    tracks = _result().tracks
    assert [t.object_id for t in tracks] == [1, 2]
    assert tracks[0].frame_indices.tolist() == [0, 1, 2, 3]
    for t in range(4):
        np.testing.assert_array_equal(tracks[1].mask_at(t), _mask(20 + t))
    assert len(list(tracks[0].masks())) == 4
    with pytest.raises(IndexError, match="has no frame 4"):
        tracks[0].mask_at(4)
    assert repr(tracks[0]) == "MaskTrack(object_id=1, label='dog', size=(6, 9), frames=4)"


def test_json_has_the_documented_shape(tmp_path: Path) -> None:
    value = json.loads(_result().save_json(tmp_path / "a/result.json").read_text())
    assert value["schema_version"] == 1
    assert list(value) == [
        "schema_version",
        "query",
        "thinking",
        "answer",
        "status",
        "thinking_cut",
        "video",
        "keyframes",
        "tracks",
        "timings_ms",
        "bundle",
    ]
    assert set(value["video"]) == {
        "path",
        "width",
        "height",
        "num_frames",
        "average_fps",
        "duration_seconds",
        "has_audio",
        "truncated",
        "missing_frames",
        "corrupt_frames",
    }
    assert value["keyframes"][0]["objects"] == [
        {"object_id": 1, "box_xyxy": [1.0, 2.0, 3.0, 4.0], "label": "dog"}
    ]
    frame = value["tracks"][0]["frames"][2]
    assert frame["frame_index"] == 2
    assert frame["pts_seconds"] == 0.25
    assert frame["rle"] == {"size": [6, 9], "counts": rle_encode(_mask(12)).decode()}
    assert value["timings_ms"]["total"] == 12.346
    assert value["bundle"]["backend"] == "onnx"


def test_rles_are_cocos() -> None:
    mask_utils = pytest.importorskip("pycocotools.mask")
    for track in _result().to_dict()["tracks"]:
        for frame in track["frames"]:
            expected = _mask(10 * track["object_id"] + frame["frame_index"])
            np.testing.assert_array_equal(mask_utils.decode(frame["rle"]), expected)
