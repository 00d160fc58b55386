"""Ref-AVS and refCOCOg in their published layouts as training samples, their prompts, rewards and order."""

from __future__ import annotations

import csv
import io
import json
import os
import wave
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omni_training import cli
from omni_training.data.image_samples import open_refavs_samples, row_image
from omni_training.data.mixed_samples import mixed_samples, mixed_scorer
from omni_training.data.prompts import EXAMPLES, open_model, random_example, template_of
from omni_training.data.samples import GROUP, SampleGuard, dataset_rows
from omni_training.data.video_samples import open_processor
from omni_training.grpo.sampler import GroupSampler
from omni_training.rewards.jobs import DusScores, GroundingPoint, RewardJob
from omni_training.rewards.paper import PaperReward
from omni_training.rewards.presets import PRESETS

from omni_sdk.bundle.bundle import embedded
from omni_sdk.datasets.refcocog import RefcocogRow
from omni_sdk.errors import DatasetError
from omni_sdk.grs.parser import parse_answer

needs_nano = pytest.mark.skipif(embedded("nano") is None, reason="no embedded nano bundle here")
SIZE = (48, 64)
THINK = "<think>a</think>"


@pytest.fixture(scope="module")
def refavs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """REFAVS with three clips: seen from the start, seen later only, and a null one."""
    image = pytest.importorskip("PIL.Image")
    root = tmp_path_factory.mktemp("refavs") / "REFAVS"
    rows = [
        ("a_0_10000", "a_0_10000_cat_1", "train", 0, "the one that meows"),
        ("b_0_10000", "b_0_10000_dog_1", "train", 1, "the one that barks"),
        ("c_0_10000", "null_c_0_10000_null_1", "train", 0, "the singing car"),
        ("d_0_10000", "d_0_10000_cat_1", "val", 0, "not in this split"),
    ]
    root.mkdir()
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("vid", "uid", "split", "fid", "exp"))
        writer.writerows(rows)
    for _, uid, _, fid, _ in rows:
        folder = uid.rsplit("_", 2)[0]
        media, masks = root / "media" / folder, root / "gt_mask" / folder / f"fid_{fid}"
        (media / "frames").mkdir(parents=True)
        masks.mkdir(parents=True)
        for k in range(10):
            image.fromarray(np.full((*SIZE, 3), 20 * k, np.uint8)).save(
                media / "frames" / f"{k}.jpg"
            )
            mask = np.zeros(SIZE, np.uint8)
            if "null" not in uid and (k > 0 or "cat" in uid):
                mask[4:20, 8:40] = 255
            image.fromarray(mask).save(masks / f"{k:05d}.png")
        with wave.open(str(media / "audio.wav"), "wb") as sound:
            sound.setparams((1, 2, 16_000, 0, "NONE", ""))
            tone = np.sin(np.arange(160_000) * 0.2) * 8000
            sound.writeframes(tone.astype("<i2").tobytes())
    return root


@pytest.fixture(scope="module")
def refcocog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four rows with 96 x 96 images: three paths beside the file and one that is missing."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("refcocog")
    rows = []
    for k in range(4):
        name = f"{k}.png"
        if k < 3:
            image.fromarray(np.full((96, 96, 3), 40 * k, np.uint8)).save(folder / name)
        rows.append(
            {"id": k, "problem": f"thing {k}", "image": name, "img_height": 96, "img_width": 96,
             "solution": "<box>(10,20),(50,60)</box><points>(20,30),(40,50)</points>"}
        )  # fmt: skip
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@needs_nano
def test_refavs_is_its_first_frame_and_its_sound(refavs: Path) -> None:
    ids, store = open_refavs_samples(str(refavs), open_model("nano"))
    assert sorted(ids) == [
        "refavs/a_0_10000_cat_1", "refavs/b_0_10000_dog_1", "refavs/null_c_0_10000_null_1",
    ]  # fmt: skip
    request = store.request("refavs/a_0_10000_cat_1")
    assert [v.kind for v in request.vision] == ["image"]
    assert len(request.mel) == 1
    truth = store.truth("refavs/a_0_10000_cat_1")
    np.testing.assert_array_equal(truth.boxes_at(0), [[8, 4, 40, 20]])
    assert store.truth("refavs/b_0_10000_dog_1").absent, "it is seen later, not in the first frame"
    assert store.truth("refavs/null_c_0_10000_null_1").absent
    assert store.clip_id("refavs/null_c_0_10000_null_1") == "refavs/null_c_0_10000"
    assert len(open_refavs_samples(str(refavs), open_model("nano"), count=2)[0]) == 2


@needs_nano
def test_refavs_without_sound_is_counted(refavs: Path) -> None:
    ids, store = open_refavs_samples(str(refavs), open_model("nano"))
    guard = SampleGuard(store)
    sound = refavs / "media" / "b_0_10000" / "audio.wav"
    data = sound.read_bytes()
    sound.unlink()
    try:
        assert [guard.request(i) is None for i in sorted(ids)] == [False, True, False]
        assert "audio.wav" in guard.failed["refavs/b_0_10000_dog_1"]
    finally:
        sound.write_bytes(data)


@needs_nano
def test_refavs_without_its_mask_is_counted(refavs: Path) -> None:
    """[8] published: another sample takes its place, and nobody is told."""
    _, store = open_refavs_samples(str(refavs), open_model("nano"))
    guard = SampleGuard(store)
    folder = refavs / "gt_mask" / "a_0_10000"
    folder.rename(folder.with_name("away"))
    try:
        assert guard.request("refavs/a_0_10000_cat_1") is None
        assert "gt_mask" in guard.failed["refavs/a_0_10000_cat_1"]
    finally:
        folder.with_name("away").rename(folder)


@pytest.mark.parametrize(
    ("text", "present", "dus", "format_paid", "r_a"),
    [
        (f"{THINK}<answer>a grey cat</answer>", True, 0.7, 1.0, 0.7),
        (f"{THINK}<answer>a grey cat</answer>", False, 0.0, 1.0, 0.0),
        # Nothing in the first frame: saying so is right; it is wrong where there is something.
        (f"{THINK}<answer>[]</answer>", False, None, 1.0, 1.0),
        (f"{THINK}<answer>[]</answer>", True, None, 1.0, 0.0),
        # Garbage earns nothing in either case (bug [7] pays it up to 1).
        ("no tags at all", False, None, 0.0, 0.0),
        (f"{THINK}<answer></answer>", False, None, 0.0, 0.0),
        (f"{THINK}<answer>!!</answer>", True, None, 0.0, 0.0),
    ],
)
@needs_nano
def test_phrases_are_paid_by_the_grounder(
    refavs: Path, text: str, present: bool, dus: float | None, format_paid: float, r_a: float
) -> None:
    _, store = open_refavs_samples(str(refavs), open_model("nano"))
    name = "refavs/a_0_10000_cat_1" if present else "refavs/b_0_10000_dog_1"
    truth = store.truth(name)
    scores = PaperReward().score_text(text, truth, store.clock(name))
    assert bool(scores.points) == (dus is not None)
    paid = PaperReward().combine(scores, None if dus is None else DusScores(dus, None), truth)
    assert (paid.format, paid.r_k, paid.r_a) == (format_paid, 0.0, r_a)


@needs_nano
def test_boxes_are_paid_as_published(refcocog: Path) -> None:
    ids, store = mixed_samples(
        [{"dataset": "refcocog_2k_840", "root": str(refcocog)}], model="nano"
    )
    name = ids[0]
    truth = store.truth(name)
    assert store.request(name).vision[0].kind == "image"
    side = open_processor("nano").image_size(96, 96)[0]
    box, one, two = (
        [v * side // 96 for v in numbers] for numbers in ([10, 20, 50, 60], [20, 30], [40, 50])
    )
    right = f'{{"bbox_2d": {box}, "points_1": {one}, "points_2": {two}}}'
    paid = PaperReward().score_text(f"{THINK}<answer>{right}</answer>", truth, store.clock(name))
    assert paid.r_a == pytest.approx(4.4)
    assert paid.points == ()
    wrong = right.replace(str(box), str([v * side // 96 for v in (60, 60, 90, 90)]))
    less = PaperReward().score_text(f"{THINK}<answer>{wrong}</answer>", truth, store.clock(name))
    assert less.r_a is not None
    assert less.r_a <= 1.0
    with pytest.raises(ValueError, match="answers of moments only"):
        PRESETS["reference"].score_text("x", truth, store.clock(name))
    guard = SampleGuard(store)
    assert guard.request(ids[3]) is None, "the image of the last row is missing"


@pytest.mark.parametrize(
    ("image", "message"),
    [("../secret.png", "leaves"), (None, "expected an image"), (3, "expected an image"),
     (b"not an image", "neither a JPEG nor a PNG"), ({"bytes": None, "path": None}, "expected")],
)  # fmt: skip
def test_bad_images_are_told(tmp_path: Path, image: Any, message: str) -> None:
    row = RefcocogRow("1", "x", (0, 0, 1, 1), ((0, 0), (1, 1)), (2, 2), image)
    with pytest.raises(DatasetError, match=message):
        row_image(row, tmp_path)


def test_images_come_from_bytes_too(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    data = io.BytesIO()
    image.fromarray(pixels).save(data, "PNG")
    for value in (data.getvalue(), {"bytes": data.getvalue(), "path": None}):
        row = RefcocogRow("1", "x", (0, 0, 1, 1), ((0, 0), (1, 1)), (2, 2), value)
        np.testing.assert_array_equal(row_image(row, tmp_path), pixels)


@needs_nano
def test_sources_join_and_keep_their_groups(refavs: Path, refcocog: Path) -> None:
    sources = [
        {"dataset": "refcocog_2k_840", "root": str(refcocog)},
        {"dataset": "refavs", "root": str(refavs), "count": 2},
    ]
    ids, store = mixed_samples(sources, model="nano")
    groups = Counter(row[GROUP] for row in dataset_rows(ids, store))
    assert groups == {"refcocog_2k_840": 4, "refavs": 2}
    with pytest.raises(DatasetError, match="two sources"):
        mixed_samples([sources[0], sources[0]], model="nano")
    with pytest.raises(DatasetError, match="no sample"):
        store.truth("elsewhere")


@needs_nano
def test_the_real_grounder_scores_a_first_frame(refavs: Path) -> None:
    """Boxes of the job are compared with the first frame's truth; no propagation is asked for."""
    source = {"dataset": "refavs", "root": str(refavs)}
    scorer = mixed_scorer([source], bundle="nano")
    name = "refavs/a_0_10000_cat_1"
    point = GroundingPoint(0, 0, "a cat", ((8.0, 4.0, 40.0, 20.0),))
    assert scorer.score(RewardJob(name, name, (point,), masks=False)).box == 1.0
    asked = scorer.score(
        RewardJob(name, name, (GroundingPoint(0, 0, "a red circle"),), masks=False)
    )
    assert 0.0 <= asked.box < 1.0


def test_group_batches_are_of_one_kind() -> None:
    groups = ["a"] * 10 + ["b"] * 7 + ["c"] * 2
    sampler = GroupSampler(groups, mini_repeat_count=4, batch_size=3, repeat_count=2, seed=1)
    order = list(sampler)
    assert len(order) == len(sampler) == (3 + 2) * 3 * 4 * 2
    seen: Counter[int] = Counter()
    for start in range(0, len(order), 12):
        batch = order[start : start + 12]
        assert len({groups[i] for i in batch}) == 1
        assert set(Counter(batch).values()) == {4}
        seen.update(set(batch))
    assert set(seen.values()) == {2}, "each prompt comes once per pass, asked for twice"
    assert [groups[i] for i in order[::24]] != sorted(groups[i] for i in order[::24])
    assert list(sampler) != order, "the next pass draws anew"
    again = GroupSampler(groups, mini_repeat_count=4, batch_size=3, repeat_count=2, seed=1)
    assert list(again) == order
    with pytest.raises(ValueError, match="no group fills"):
        GroupSampler(["a", "b"], mini_repeat_count=1, batch_size=2, repeat_count=1, seed=0)


def test_a_trainer_takes_batches_of_one_group(make_trainer: Callable[..., Any]) -> None:
    trainer = make_trainer()
    rows = trainer.train_dataset
    trainer.train_dataset = rows.add_column(
        GROUP, ["x" if i % 3 else "y" for i in range(len(rows))]
    )
    order = list(trainer._get_train_sampler())
    size = trainer.args.generation_batch_size
    for start in range(0, len(order), size):
        assert len({i % 3 == 0 for i in order[start : start + size]}) == 1


def test_examples_are_random_but_the_samples_own() -> None:
    first = random_example("force", 12.0, "revos/a/0#0", 0)
    answer = parse_answer(f"{THINK}<answer>{first}</answer>", 12.0)
    assert len(answer.segments) == 4
    assert all(s.start_seconds == s.end_seconds <= 12 for s in answer.segments)
    assert first == random_example("force", 12.0, "revos/a/0#0", 0)
    others = {random_example("force", 12.0, f"revos/a/0#{i}", 0) for i in range(20)}
    assert len(others) == 20
    assert first != random_example("force", 12.0, "revos/a/0#0", 1)
    counts = set()
    for i in range(20):
        shown = random_example("no_hint", 9.0, str(i), 0)
        counts.add(len(parse_answer(f"{THINK}<answer>{shown}</answer>", 9.0).segments))
    assert counts == {1, 2}


def test_variants_follow_the_published_prompts() -> None:
    assert template_of("model", 0) is None
    assert template_of("force", 500) == "omni-r1-force"
    assert template_of("no_hint", EXAMPLES - 1) == "omni-r1-example"
    assert template_of("no_hint", EXAMPLES) == "omni-r1"
    with pytest.raises(DatasetError, match="expected prompt"):
        template_of("hint", 0)


def test_check_data_finds_the_layouts_itself(
    refavs: Path, refcocog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check-data", str(refavs)]) == 0
    assert "refavs at" in capsys.readouterr().out
    assert cli.main(["check-data", str(refcocog)]) == 0
    assert "refcocog_2k_840 at" in capsys.readouterr().out
    assert cli.main(["check-data", str(refavs.parent)]) == 0, "a folder that holds data sets"
    assert "refavs at" in capsys.readouterr().out
    assert cli.main(["check-data", str(refavs / "media")]) == 1
    assert "no data set is recognised" in capsys.readouterr().err


def test_the_real_metadata_gives_the_published_samples(tmp_path: Path) -> None:
    shared = Path(os.environ.get("OMNI_SHARED", Path(__file__).parents[3] / "shared"))
    metadata = shared / "data" / "refavs_metadata.csv"
    if not metadata.is_file():
        pytest.skip("the real metadata of Ref-AVS is not here (OMNI_SHARED)")
    (tmp_path / "metadata.csv").symlink_to(metadata)
    ids, _ = open_refavs_samples(str(tmp_path), open_model("nano"), seed=3)
    assert len(ids) == len(set(ids)) == 1600
    assert open_refavs_samples(str(tmp_path), open_model("nano"), seed=4)[0] != ids
    everything, store = open_refavs_samples(str(tmp_path), open_model("nano"), count=10**6)
    assert len(everything) == 14113
    assert sum(store._row(i).kind == "no_target" for i in everything) == 608
