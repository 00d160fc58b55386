from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omni_sdk.datasets.refavs import open_refavs, read_metadata, sample_of
from omni_sdk.errors import DatasetError


def test_refavs(refavs_root: Path, mask_of: Callable[..., Any]) -> None:
    data = open_refavs(refavs_root, "test_s")
    assert [s.expression for s in data] == ["The meowing, grey object", "The silent one"]
    cat, man = data
    assert cat.video.audio_path is not None
    assert cat.video.audio_path.is_file()
    assert cat.video.video_id == "a_0_10000"
    assert (cat.mask_at(3) == mask_of(0, 3)).all()
    assert (man.mask_at(9) == mask_of(4, 9)).all()
    assert len(man.video) == 10
    assert man.video.read_frame(9).shape == (24, 32, 3)
    assert data.dropped == {"unfinished rows (split TODO)": 1}
    (null,) = open_refavs(refavs_root, "test_n")
    assert null.kind == "no_target"
    # The folder is not the row's `vid`.
    assert null.video.folder.parts[-2] == "null_c-a_0_10000"
    assert not null.mask_at(0).any()


def test_missing_mask(refavs_root: Path) -> None:
    (refavs_root / "gt_mask" / "a_0_10000" / "fid_0" / "00004.png").unlink()
    sample = open_refavs(refavs_root, "test_s")[0]
    assert sample.mask_at(3).any()
    with pytest.raises(DatasetError, match=r"00004\.png: cannot be read"):
        sample.mask_at(4)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("vid,uid,split,fid\n", "expected columns"),
        ("", "expected columns"),
        ("vid,uid,split,fid,exp\na,a_1,test_s,0,x\n", r"line 2 'uid': expected <folder>"),
        ("vid,uid,split,fid,exp\na,../x_cat_1,test_s,0,x\n", r"'uid': expected a plain file name"),
        ("vid,uid,split,fid,exp\na,.._cat_1,test_s,0,x\n", r"'uid': expected a plain file name"),
        ("vid,uid,split,fid,exp\na,a_cat_1,test,0,x\n", r"line 2 'split'"),
        ("vid,uid,split,fid,exp\na,a_cat_1,val,one,x\n", r"line 2 'fid': expected int"),
        ("vid,uid,split,fid,exp\na,a_cat_1,val\n", r"line 2 'fid': expected str"),
    ],
)
def test_malformed_metadata(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "metadata.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=match):
        read_metadata(path)


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_bytes(b"vid,uid,split,fid,exp\n\xff\xfe,a,b,c,d\n")
    with pytest.raises(DatasetError, match="not valid CSV"):
        read_metadata(path)


def test_the_real_metadata(refavs_metadata: Path) -> None:
    rows = read_metadata(refavs_metadata)
    assert len(rows) == 20459
    assert Counter(row.split for row in rows) == {
        "train": 14113,
        "val": 1349,
        "test_s": 2288,
        "test_u": 1656,
        "test_n": 1028,
        "TODO": 25,
    }
    assert sum(row.folder != row.video_id for row in rows) == 1708
    assert all(row.category == "null" for row in rows if row.folder != row.video_id)
    nulls = Counter(row.split for row in rows if row.category == "null")
    assert nulls == {"train": 608, "val": 72, "test_n": 1028}
    folders = {split: set() for split in ("train", "val", "test_s", "test_u", "test_n")}
    for row in rows:
        if row.split in folders:
            folders[row.split].add(row.folder)
    assert [len(names) for names in folders.values()] == [2919, 275, 273, 269, 257]
    sample = sample_of(Path("REFAVS"), rows[0])
    assert sample.video.frame_paths[9].as_posix() == (
        "REFAVS/media/--KCIeTv6PM_14000_24000/frames/9.jpg"
    )


def test_the_real_metadata_as_a_data_set(refavs_metadata: Path, tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_bytes(refavs_metadata.read_bytes())
    data = open_refavs(tmp_path, "test_n")
    assert len(data) == 1028
    assert {sample.kind for sample in data} == {"no_target"}
    assert data.dropped == {"unfinished rows (split TODO)": 25}
