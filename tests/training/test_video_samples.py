"""Published layouts as training samples, and the real small grounder and tracker as their judges."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omni_training import cli
from omni_training.data.samples import SampleGuard
from omni_training.data.video_samples import (
    VideoClip,
    choose_visits,
    load_videos,
    object_masks,
    video_samples,
)
from omni_training.data.world import WorldClip, share_encodings, world_scorer
from omni_training.rewards.jobs import GroundingPoint, RewardJob
from omni_training.rewards.masks import mask_reward
from omni_training.workers.scorer import ClipScorer

from omni_sdk.bundle.bundle import embedded
from omni_sdk.datasets import open_dataset
from omni_sdk.dus.masks import rle_encode
from omni_sdk.errors import DatasetError, QueryError

SIZE = (48, 64)
needs_nano = pytest.mark.skipif(embedded("nano") is None, reason="no embedded nano bundle here")


def box_mask(x: int, y: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y : y + 8, x : x + 8] = True
    return mask


def rle(mask: np.ndarray) -> dict[str, Any]:
    return {"size": list(SIZE), "counts": rle_encode(mask).decode("ascii")}


@pytest.fixture(scope="module")
def revos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos in ReVOS's layout: 40 frames with two objects, 10 frames, and one without a target."""
    image = pytest.importorskip("PIL.Image")
    root = tmp_path_factory.mktemp("revos") / "ReVOS"
    lengths = {"long": 40, "short": 10, "empty": 20}
    for video, count in lengths.items():
        folder = root / "JPEGImages" / video
        folder.mkdir(parents=True)
        for i in range(count):
            image.fromarray(np.full((*SIZE, 3), i * 5, np.uint8)).save(folder / f"{i:05d}.jpg")

    def frames(video: str) -> list[str]:
        return [f"{i:05d}" for i in range(lengths[video])]

    def entry(video: str, obj: list[int], anno: list[int]) -> dict[str, Any]:
        text = {"exp": f"what is in {video}", "obj_id": obj, "anno_id": anno, "type_id": 0}
        return {"frames": frames(video), "vid_id": 0, "expressions": {"0": text}}

    meta = {
        "videos": {
            "long": entry("long", [1, 2], [10, 11]),
            "short": entry("short", [1], [12]),
            "empty": entry("empty", [], []),
        }
    }
    masks = {
        "10": [rle(box_mask(i, 4)) for i in range(40)],
        "11": [rle(box_mask(20, 30)) if i >= 20 else None for i in range(40)],
        "12": [rle(box_mask(5, 5))] * 10,
    }
    (root / "meta_expressions_train_.json").write_text(json.dumps(meta))
    (root / "mask_dict.json").write_text(json.dumps(masks))
    return root


def test_visits_are_those_of_the_authors_without_the_bugs(revos: Path) -> None:
    records = open_dataset("revos", revos, "train")
    visits = choose_visits(records, visits=20, seed=3)
    assert len(visits) == 60
    counts = {"long": set(), "short": set(), "empty": set()}
    for visit in visits.values():
        counts[visit.sample.video.video_id].add(len(visit.frames))
        assert len(set(visit.frames.tolist())) == len(visit.frames), "a frame comes twice"
        assert visit.frames[0] == 0
        assert visit.frames[-1] == len(visit.sample.video) - 1
        assert visit.clock.duration_seconds == len(visit.frames) / 2
    assert counts["short"] == {10}
    assert min(counts["long"]) >= 16
    assert max(counts["long"]) <= 24
    assert len(counts["long"]) > 3
    assert max(counts["empty"]) <= 20
    again = choose_visits(records, visits=20, seed=3)
    assert all(np.array_equal(v.frames, again[k].frames) for k, v in visits.items())
    assert len(choose_visits(records, keep_absent=False)) == 2


@pytest.fixture(scope="module", params=["JPEGImages", "."])
def mevis(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One video of 30 frames in MeViS's layout, with and without the folder JPEGImages: two objects."""
    image = pytest.importorskip("PIL.Image")
    root = tmp_path_factory.mktemp("mevis") / "mevis"
    folder = root / "train" / request.param / "v1"
    folder.mkdir(parents=True)
    names = [f"{i:05d}" for i in range(30)]
    for name in names:
        image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / f"{name}.jpg")
    expressions = {
        "0": {"exp": "The two moving left", "obj_id": [0, 3], "anno_id": [2, 5]},
        "1": {"exp": "The one that stays", "obj_id": [3], "anno_id": [5]},
    }
    videos = {"v1": {"frames": names, "expressions": expressions}}
    masks = {
        "2": [rle(box_mask(40 - i, 4)) for i in range(30)],
        "5": [rle(box_mask(20, 30)) for _ in range(30)],
    }
    (root / "train" / "meta_expressions.json").write_text(json.dumps({"videos": videos}))
    (root / "train" / "mask_dict.json").write_text(json.dumps(masks))
    return root


@needs_nano
def test_mevis_becomes_samples(mevis: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = {"dataset": "mevis", "root": str(mevis), "split": "train"}
    ids, store = video_samples([source], model="nano", visits=6)
    assert len(ids) == 6
    objects = set()
    for name in ids:
        request, truth, clock = store.request(name), store.truth(name), store.clock(name)
        assert 16 <= truth.num_frames == clock.num_frames <= 24
        assert request.vision[0].grid_thw[0] == (clock.num_frames + 1) // 2
        # The authors train videos without sound; this model is given silence in its place.
        assert all((m == m.min()).all() for m in request.mel)
        assert store.clip_id(name) == "mevis/v1", "all visits of a video go to one worker"
        objects.add(len(truth.areas))
    assert objects == {1, 2}, "one random expression in each visit"
    assert cli.main(["check-data", str(mevis)]) == 0
    out = capsys.readouterr().out
    assert "mevis at" in out
    assert "train: expressions: 2" in out


@needs_nano
@pytest.mark.parametrize(
    ("variant", "wanted"), [("force", "about 4 moments"), ("no_hint", "1 to 4")]
)
def test_prompts_tell_the_virtual_seconds(
    revos: Path, monkeypatch: pytest.MonkeyPatch, variant: str, wanted: str
) -> None:
    """[N/2] seconds of a 2 fps clock, whatever the video's true length, and an example of its own."""
    from omni_sdk.grs import prompts

    texts: list[str] = []
    render = prompts.render

    def spy(*args: Any, **options: Any) -> str:
        texts.append(render(*args, **options))
        return texts[-1]

    monkeypatch.setattr(prompts, "render", spy)
    source = {"dataset": "revos", "root": str(revos), "split": "train"}
    ids, store = video_samples([source], model="nano", prompt=variant)
    for name in ids:
        with contextlib.suppress(
            QueryError
        ):  # a long prompt for a model this small; it was rendered
            store.request(name)
        seconds = store.clock(name).num_frames / 2
        assert store.clock(name).duration_seconds == seconds
        assert f"lasts {seconds:g} seconds" in texts[-1]
        assert wanted in texts[-1]
        assert '"start_time": "00:' in texts[-1], "the example"
    assert len({text.split("example")[-1] for text in texts}) == len(ids)


def test_workers_that_drew_other_frames_do_not_know_the_sample(revos: Path) -> None:
    """Same video, same expression, other frames: scores would be of frames that nobody saw."""
    records = open_dataset("revos", revos, "train")
    first = choose_visits(records, seed=3)
    load = load_videos(choose_visits(records, seed=3, max_frames=17), tracker_size=32)
    long = next(name for name in first if "/long/" in name)
    assert len(first[long].frames) > 17
    with pytest.raises(DatasetError, match="same sources, seed and options"):
        load(long)
    short = next(name for name in first if "/short/" in name)
    assert load(short).truth.num_frames == 10


def test_truth_keeps_objects_apart(revos: Path) -> None:
    visits = choose_visits(open_dataset("revos", revos, "train"))
    long = next(v for v in visits.values() if v.sample.video.video_id == "long")
    masks = object_masks(long)
    assert masks.shape == (2, len(long.frames), *SIZE)
    clip = VideoClip(long, tracker_size=32)
    late = int(np.flatnonzero(long.frames >= 20)[0])
    x = int(long.frames[late])
    np.testing.assert_array_equal(clip.truth.boxes_at(late), [[x, 4, x + 8, 12], [20, 30, 28, 38]])
    assert len(clip.truth.boxes_at(0)) == 1
    np.testing.assert_array_equal(clip.true_masks()[late], box_mask(x, 4) | box_mask(20, 30))
    assert clip.image(late).shape == (*SIZE, 3)
    assert abs(int(clip.image(late)[0, 0, 0]) - 5 * x) <= 3
    empty = next(v for v in visits.values() if v.sample.video.video_id == "empty")
    assert VideoClip(empty, tracker_size=32).truth.absent
    frames = list(clip.frames.backward(3, -1))
    assert [f.frame_index for f in frames] == [3, 2, 1, 0]
    assert frames[0].image.shape == (32, 32, 3)


@needs_nano
def test_samples_make_prompts_and_missing_frames_are_skipped(revos: Path) -> None:
    ids, store = video_samples(
        [{"dataset": "revos", "root": str(revos), "split": "train"}], model="nano"
    )
    guard = SampleGuard(store)
    for sample_id in ids:
        request = guard.request(sample_id)
        assert request is not None
        assert request.vision[0].grid_thw[0] == (store.clock(sample_id).num_frames + 1) // 2
        assert request.position_ids.shape == (3, len(request.input_ids))
    short = next(i for i in ids if "/short/" in i)
    missing = revos / "JPEGImages" / "short" / "00003.jpg"
    content = missing.read_bytes()
    missing.unlink()
    try:
        assert SampleGuard(store).request(short) is None
        assert guard.request(next(i for i in ids if "/long/" in i)) is not None
        assert cli.main(["check-data", str(revos), "--dataset", "revos"]) == 1
    finally:
        missing.write_bytes(content)
    with pytest.raises(DatasetError, match="no sample"):
        store.clock("nowhere")


def test_check_data(revos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-data", str(revos), "--dataset", "revos"]) in (0, 1)
    assert "train: videos: 3" in capsys.readouterr().out
    assert cli.main(["check-data", str(revos), "--dataset", "other"]) == 2


@needs_nano
def test_the_real_detail_system_scores_clips() -> None:
    """R_A and R_G of the small bundle: a true description earns, another object's does not."""
    scorer = world_scorer("nano")
    sample = "direct:123"
    clip = WorldClip(sample)
    frame = int(np.argmax(clip.truth.union_areas))
    target = clip.scene.objects[clip.scene.target or 0]
    other = next(o for o in clip.scene.objects if o is not target)
    right, wrong = (
        scorer.score(RewardJob(sample, sample, (GroundingPoint(frame, frame, f"a {o.name}"),)))
        for o in (target, other)
    )
    assert right.mask is not None
    assert wrong.mask is not None
    assert right.box > 0.5
    assert right.mask > 0.5
    assert wrong.box < right.box
    assert wrong.mask < right.mask


@needs_nano
def test_rollouts_share_encodings_and_nothing_else() -> None:
    from omni_sdk import Pipeline

    pipeline = Pipeline.from_pretrained("nano")
    assert pipeline.tracker is not None
    side = pipeline.tracker.image_size
    sample = "direct:124"
    clip = WorldClip(sample)
    frame = int(np.argmax(clip.truth.union_areas))
    box = clip.truth.boxes_at(frame)[0]
    jobs = []
    for shift in (0.0, 2.0):
        corners = tuple(float(v) for v in box + np.array([shift, 0, shift, 0], np.float32))
        point = GroundingPoint(frame, frame, "it", (corners,))  # type: ignore[arg-type]
        jobs.append(RewardJob(sample, sample, (point,)))

    def scores(tracker: Any) -> list[float | None]:
        made = ClipScorer(lambda s: WorldClip(s, tracker_size=side), None, tracker)
        return [made.score(job).mask for job in jobs]

    alone = scores(pipeline.tracker)
    cached = share_encodings(pipeline.tracker, 256 << 20)
    assert scores(cached) == alone
    assert cached.graphs.misses == 16
    assert cached.graphs.hits >= 16
    assert cached is not pipeline.tracker, "the pipeline's own tracker holds no encodings"
    assert share_encodings(None, 1) is None
    found = mask_reward((m, m) for m in clip.true_masks().values())
    assert found == 1.0
    assert alone[0] is not None
    assert alone[0] > 0.5
