"""Functions named in configurations: found, refused, and found under the names of earlier versions."""

from __future__ import annotations

import importlib
import re

import pytest
from omni_training.factories import MOVED, find_factory


@pytest.mark.parametrize("old", sorted(MOVED))
def test_names_of_earlier_versions_are_found(old: str) -> None:
    module = importlib.import_module(MOVED[old])
    name = next(n for n in vars(module) if re.search(r"_(samples|scorer)$", n) and n[0] != "_")
    assert find_factory(f"{old}:{name}") is getattr(module, name)


@pytest.mark.parametrize("name", ["", "json", ":x", "json:", "json:nothing", "no_such_module:x"])
def test_what_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"module:function|cannot import"):
        find_factory(name)


def test_a_constant_is_no_factory() -> None:
    with pytest.raises(ValueError, match="expected a function"):
        find_factory("omni_sdk:__version__")
