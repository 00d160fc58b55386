from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_sdk.dus.masks import rle_encode
from omni_sdk.dus.tracks import build_tracks
from omni_sdk.errors import MediaError, ResultError
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


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    result = _result()
    value = json.loads(json.dumps(result.to_dict()))
    again = Result.from_dict(value)
    assert again.to_dict() == value
    assert (again.status, again.video, again.bundle) == ("found", result.video, result.bundle)
    assert again.source is None
    np.testing.assert_array_equal(again.tracks[1].mask_at(3), _mask(23))
    assert again.tracks[0].scores.dtype == np.float32
    np.testing.assert_array_equal(again.keyframes[0].objects[0].box_xyxy, [1, 2, 3, 4])
    file = result.save_json(tmp_path / "result.json")
    assert Result.load(file).to_dict() == value
    assert Result.load(tmp_path, source="x.mp4").source == "x.mp4"


def _at(value: object, *path: str | int) -> object:
    for step in path:
        value = value[step]  # type: ignore[index]
    return value


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        (("schema_version",), 2, "schema_version 2 is not known: this omni-sdk reads 1"),
        (("schema_version",), True, "schema_version True is not known"),
        (("status",), "maybe", "status: expected one of"),
        (("video", "width"), 8, r"tracks\[0\].size: \[6, 9\], but the video is \[6, 8\]"),
        (("video", "average_fps"), 10**400, "video.average_fps: expected a finite number"),
        (("keyframes", 0, "objects", 0, "box_xyxy"), [1, 2, 3], "expected 4 entries, found 3"),
        (("keyframes", 0, "objects", 0, "box_xyxy"), [1, 2, 3, 1e39], "within float32"),
        (("keyframes", 0, "frame_index"), -1, "frame_index must be at least 0"),
        (("tracks", 1, "object_id"), 0, r"tracks\[1\].object_id must be at least 1, got 0"),
        (("tracks", 1, "size"), [0, 9], "size must be positive"),
        (("tracks", 0, "frames", 1, "frame_index"), 0, "must ascend from 0, got 0 after 0"),
        (("tracks", 0, "frames", 3, "frame_index"), 2**63, "must ascend"),
        (("tracks", 0, "frames", 1, "score"), 1e39, "scores must be within float32"),
        (("tracks", 0, "frames", 1, "confidence"), 1.5, r"must be in \[0, 1\]"),
        (("tracks", 0, "frames", 1, "source"), "drawn", "source: expected one of"),
        (("tracks", 0, "frames", 1, "rle", "size"), [9, 6], r"rle.size: \[9, 6\], expected"),
        (("tracks", 0, "frames", 1, "rle", "counts"), "0", r"rle.counts: malformed RLE"),
        (("tracks", 0, "frames", 1, "rle", "counts"), "\u20ac", "rle.counts: .*ascii"),
        (("more",), 1, "unknown key 'more'"),
    ],
)
def test_malformed_results_are_refused(path: tuple[str | int, ...], new: object, message: str):
    value = json.loads(json.dumps(_result().to_dict()))
    _at(value, *path[:-1])[path[-1]] = new  # type: ignore[index]
    with pytest.raises(ResultError, match=message):
        Result.from_dict(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "cannot be read as a result"),
        (b"\xff", "cannot be read as a result"),
        (b"[" * 100_000, "cannot be read as a result"),
        (b"[]", "not a result: value: expected an object, found list"),
        (b'{"schema_version": 1}', "query: missing"),
        (b"{}", "schema_version None is not known"),
    ],
    ids=["cut", "bytes", "deep", "list", "empty", "unversioned"],
)
def test_files_that_hold_no_result(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "result.json").write_bytes(text)
    with pytest.raises(ResultError, match=message):
        Result.load(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        Result.load(tmp_path / "nowhere.json")


def _files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


FRAMES = [np.full((*SIZE, 3), 40 * t, np.uint8) for t in range(4)]


def test_saving_again_with_a_source_that_is_given(tmp_path: Path) -> None:
    result = replace(_result(), source=FRAMES)
    folder = result.save(tmp_path / "a")
    again = Result.load(folder, source=FRAMES).save(tmp_path / "b")
    assert _files(folder) == _files(again)
    for name in _files(folder):
        if (folder / name).is_file():
            assert (folder / name).read_bytes() == (again / name).read_bytes(), name
    with pytest.raises(MediaError, match=r"no source to draw on: .*source=.*overlay=False"):
        Result.load(folder).save(tmp_path / "c")
    assert not (tmp_path / "c").exists()
    Result.load(folder).save(tmp_path / "c", overlay=False)
    assert _files(tmp_path / "c") == [n for n in _files(folder) if n != "overlay.mp4"]


def test_a_streamed_result_is_not_saved_as_found_without_masks(tmp_path: Path) -> None:
    streamed = replace(_result(), tracks=(), source=FRAMES)
    for options in ({}, {"overlay": False}, {"masks": False, "overlay": False}):
        with pytest.raises(ResultError, match=r"found, but holds no masks: .*stream"):
            streamed.save(tmp_path / "out", **options)
    assert _files(tmp_path) == []


def test_a_generators_result_is_saved_without_the_overlay(tmp_path: Path) -> None:
    spent = replace(_result(), source=(frame for frame in FRAMES))
    with pytest.raises(
        MediaError, match=r"a generator, which can be read only once.*overlay=False"
    ):
        spent.save(tmp_path / "out")
    assert _files(tmp_path) == []
    spent.save(tmp_path / "out", overlay=False)
    assert len(_files(tmp_path / "out")) == 6


def test_nothing_half_written_remains(tmp_path: Path) -> None:
    """The source ends in frames of another size than the masks: found once JSON and masks are written."""
    wrong = replace(_result(), source=[np.zeros((8, 8, 3), np.uint8)] * 4)
    with pytest.raises(MediaError, match=r"8 x 8 pixels, but the masks 9 x 6"):
        wrong.save(tmp_path / "out")
    assert _files(tmp_path) == []
    kept = replace(_result(), source=FRAMES).save(tmp_path / "kept")
    before = {name: (kept / name).stat().st_mtime_ns for name in _files(kept) if "." in name}
    with pytest.raises(MediaError):
        wrong.save(kept)
    assert {
        name: (kept / name).stat().st_mtime_ns for name in _files(kept) if "." in name
    } == before


@pytest.mark.parametrize("blocked", ["", "result.json", "masks", "masks/00002.png"])
def test_a_place_that_cannot_be_written(tmp_path: Path, blocked: str) -> None:
    place = tmp_path / "out" / blocked
    if blocked.endswith((".json", ".png")):
        place.mkdir(parents=True)
    else:
        place.parent.mkdir(exist_ok=True)
        place.write_text("mine")
    before = _files(tmp_path)
    with pytest.raises(ResultError, match="cannot be written"):
        _result().save(tmp_path / "out", overlay=False)
    assert _files(tmp_path) == before
    with pytest.raises(ResultError, match=r"cannot be written"):
        _result().save_json("/proc/no/such/place.json")
    with pytest.raises(ResultError, match=r"'/proc/no/such' cannot be written"):
        _result().save("/proc/no/such", overlay=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_mutated_results_end_in_one_error_or_are_results(data: st.DataObject) -> None:
    value = json.loads(json.dumps(_result().to_dict()))
    for _ in range(data.draw(st.integers(1, 3))):
        node = value
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and data.draw(st.integers(0, 5)):
                node = node[key]
                continue
            if data.draw(st.booleans()):
                node[key] = data.draw(JSON)
            else:
                del node[key]
            break
    try:
        result = Result.from_dict(value)
    except ResultError:
        return
    again = result.to_dict()
    assert Result.from_dict(json.loads(json.dumps(again))).to_dict() == again
    for track in result.tracks:
        assert all(mask.shape == track.size for mask in track.masks())


def test_keys_that_older_versions_did_not_write_have_defaults() -> None:
    value = json.loads(json.dumps(_result().to_dict()))
    del value["thinking_cut"], value["video"]["corrupt_frames"], value["timings_ms"]["carry"]
    for frame in value["tracks"][0]["frames"]:
        del frame["source"], frame["confidence"]
    again = Result.from_dict(value)
    assert again.thinking_cut is False
    assert again.tracks[0].sources == ("tracked",) * 4
    assert again.tracks[0].confidences.tolist() == [1.0] * 4
    assert again.to_dict() == _result().to_dict()


def test_an_object_has_one_track() -> None:
    value = json.loads(json.dumps(_result().to_dict()))
    value["tracks"][1]["object_id"] = 1
    with pytest.raises(ResultError, match=r"tracks: expected one of each object, got ids \[1, 1\]"):
        Result.from_dict(value)


@pytest.mark.parametrize("key", ["schema_version", "status", "query", "bundle"])
def test_a_value_nested_beyond_measure_is_refused(key: str) -> None:
    nested: object = []
    for _ in range(100_000):
        nested = [nested]
    value = _result().to_dict() | {key: nested}
    with pytest.raises(ResultError):
        Result.from_dict(value)


def test_ids_that_no_indexed_png_holds_are_saved_as_json_alone(tmp_path: Path) -> None:
    result = _result()
    many = replace(result, tracks=(replace(result.tracks[0], object_id=256),))
    with pytest.raises(ResultError, match=r"ids 1 to 255, got \[256\]: .*masks=False"):
        many.save(tmp_path / "out", overlay=False)
    assert _files(tmp_path) == []
    many.save(tmp_path / "out", masks=False, overlay=False)
    assert Result.load(tmp_path / "out").tracks[0].object_id == 256
