from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from omni_sdk.utils import schema


@dataclass(frozen=True)
class Inner:
    size: int
    names: tuple[str, ...] = ()
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    pair: tuple[float, float]
    inner: Inner | None
    table: dict[str, Inner] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.pair[0] > self.pair[1]:
            raise ValueError("pair must ascend")


GOOD = {"pair": [1, 2.5], "inner": {"size": 3, "names": ["a"]}, "table": {"k": {"size": 1}}}


def test_round_trip() -> None:
    value = schema.from_dict(Outer, GOOD)
    assert value == Outer((1.0, 2.5), Inner(3, ("a",)), {"k": Inner(1)})
    assert schema.from_dict(Outer, schema.to_dict(value)) == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "^extra: unknown key 'extra'; known: pair, inner, table$"),
        ({"inner": {"sise": 1}}, r"^inner.sise: unknown key 'sise'; did you mean 'size'\?$"),
        ({"pair": [1, "1e-6"]}, r"pair\[1\]: expected float, found str \(YAML .* write 1.0e-6\)"),
        ({"pair": [1]}, "pair: expected 2 entries, found 1"),
        ({"pair": [1, "2"]}, r"pair\[1\]: expected float, found str"),
        ({"pair": [1, float("inf")]}, r"pair\[1\]: expected a finite number"),
        ({"pair": [2, 1]}, "pair must ascend"),
        ({"inner": {"size": True}}, "inner.size: expected int, found bool"),
        ({"inner": {"size": 1, "kind": "c"}}, r"inner.kind: expected one of \('a', 'b'\)"),
        ({"inner": {}}, "inner.size: missing"),
        ({"inner": 3}, "inner: expected an object, found int"),
        ({"table": {"k": {"size": "x"}}}, "table.k.size: expected int, found str"),
        ({"table": []}, "table: expected an object, found list"),
    ],
)
def test_anything_else_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(schema.SchemaError, match=message):
        schema.from_dict(Outer, GOOD | change)
