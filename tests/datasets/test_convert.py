from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_sdk.datasets.convert import convert_mask_dict, read_plain_pickle
from omni_sdk.datasets.masks import RleMasks, RleTable
from omni_sdk.errors import DatasetError

RLE = {"size": [4, 5], "counts": b"<3D1"}


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_masks_survive(
    tmp_path: Path, protocol: int, mask_of: Callable[..., Any], rle_of: Callable[..., Any]
) -> None:
    def rle(frame: int) -> dict[str, Any]:
        value = rle_of(mask_of(0, frame))
        counts = value["counts"]
        # Protocol 2 has no bytes without a call.
        return {"size": value["size"], "counts": counts.encode() if protocol > 2 else counts}

    table = {str(k): [rle(k), None, rle(k + 1)] for k in range(300)}
    source = tmp_path / "mask_dict.pkl"
    source.write_bytes(pickle.dumps(table, protocol))
    assert convert_mask_dict(source) == 300
    masks = RleMasks(RleTable(tmp_path / "mask_dict.json"), ("299",))
    assert (next(masks.instances(2)) == mask_of(0, 300)).all()
    assert list(masks.instances(1)) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mask_dict.json", "mask_dict.pkl"]


def test_tuple_sizes_and_shared_frames(tmp_path: Path) -> None:
    shared = {"size": (4, 5), "counts": "<3D1"}
    source = tmp_path / "m.pkl"
    source.write_bytes(pickle.dumps({0: [shared, shared], 1: []}))
    assert convert_mask_dict(source, tmp_path / "out.json") == 2
    table = json.loads((tmp_path / "out.json").read_text())
    assert table == {"0": [{"size": [4, 5], "counts": "<3D1"}] * 2, "1": []}


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_is_run(tmp_path: Path, protocol: int) -> None:
    trap = tmp_path / "trap"
    source = tmp_path / "mask_dict.pkl"
    source.write_bytes(pickle.dumps({"0": [RLE], "1": Evil(trap)}, protocol))
    with pytest.raises(DatasetError, match=r"instruction \w+ at byte \d+ .* was not run"):
        convert_mask_dict(source)
    assert not trap.exists()
    assert not (tmp_path / "mask_dict.json").exists()


@pytest.mark.parametrize(
    "value", [np.zeros(3), OrderedDict(a=1), {1, 2}, bytearray(b"a"), 1j, Path("a"), len]
)
def test_only_plain_values(value: Any) -> None:
    with pytest.raises(DatasetError, match="was not run"):
        read_plain_pickle(pickle.dumps(value))


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ([RLE], "expected a dict of masks"),
        ({"0": RLE}, "text -> list"),
        ({None: []}, "as key, got NoneType"),
        ({"0": [{"size": [4, 5]}]}, "'counts'"),
        ({"0": [{"size": [4, 5], "counts": b"\xff"}]}, "'counts'"),
        ({"0": [{"size": [4, 0], "counts": b"a"}]}, "'size'"),
        ({"0": [[RLE]]}, "expected dict, got list"),
        ({"0": [7]}, "expected dict, got int"),
    ],
)
def test_other_shapes(tmp_path: Path, value: Any, match: str) -> None:
    source = tmp_path / "m.pkl"
    source.write_bytes(pickle.dumps(value))
    (tmp_path / "m.json").write_text("kept")
    with pytest.raises(DatasetError, match=match):
        convert_mask_dict(source)
    assert (tmp_path / "m.json").read_text() == "kept"
    assert not list(tmp_path.glob("*.partial"))


def test_expansion_is_bounded(tmp_path: Path) -> None:
    frames = [{"size": [4, 5], "counts": "a" * 200}] * 2000
    source = tmp_path / "m.pkl"
    source.write_bytes(pickle.dumps({str(k): frames for k in range(200)}))
    with pytest.raises(DatasetError, match="far larger"):
        convert_mask_dict(source)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        b"\x80\x04.",  # stop on an empty stack
        b"\x80\x04}",  # no stop
        b"\x80\x04}}.",  # two values
        b"\x80\x04Na.",  # append to nothing
        b"\x80\x04NNs.",  # set an item of nothing
        b"\x80\x04(u.",  # mark only
        b"\x80\x04]e.",  # no mark
        b"\x80\x04h\x05.",  # memo that was never set
        b"\x80\x04N(Ne.",  # items on None
        b"\x80\x04}(]Nu.",  # unhashable key
        b"\x80\x04}(Nu.",  # odd number of items
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes that are not there
    ],
)
def test_programs_that_do_not_add_up(data: bytes) -> None:
    with pytest.raises(DatasetError):
        read_plain_pickle(data)


def test_nesting_costs_nothing(tmp_path: Path) -> None:
    deep = b"\x80\x04)" + b"\x85" * 200_000
    with pytest.raises(DatasetError, match="as key, got tuple"):
        read_plain_pickle(b"\x80\x04}(" + deep[2:] + b"Nu.")
    (tmp_path / "m.pkl").write_bytes(deep + b".")
    with pytest.raises(DatasetError, match="expected a dict of masks, got tuple"):
        convert_mask_dict(tmp_path / "m.pkl")


def test_a_huge_memo_index_costs_nothing() -> None:
    assert read_plain_pickle(b"\x80\x04}r\xff\xff\xff\x7f.") == {}


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_damaged_pickles(data: st.DataObject) -> None:
    content = bytearray(pickle.dumps({"0": [RLE, None], "1": [dict(RLE)]}))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        value = read_plain_pickle(bytes(content))
    except DatasetError:
        return
    plain = (dict, list, tuple, int, float, str, bytes, type(None))
    assert isinstance(value, plain)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text()
        | st.binary()
        | st.floats(allow_nan=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
        max_leaves=20,
    ),
    st.sampled_from([3, 4, 5]),
)
@settings(deadline=None, max_examples=50)
def test_equals_pickle_on_plain_values(value: Any, protocol: int) -> None:
    assert read_plain_pickle(pickle.dumps(value, protocol)) == value


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        convert_mask_dict(tmp_path / "none.pkl")
