from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from omni_sdk.bundle.bundle import Bundle, embedded
from omni_sdk.bundle.hub import resolve, tidy
from omni_sdk.errors import BundleError


def test_a_downloaded_bundle_holds_just_its_own_files(tmp_path: Path) -> None:
    """What huggingface_hub leaves in a local directory, and what repositories carry beside a bundle."""
    nano = embedded("nano")
    assert nano is not None
    copy = tmp_path / "nano"
    shutil.copytree(nano, copy)
    (copy / ".cache/huggingface/download").mkdir(parents=True)
    (copy / ".cache/huggingface/download/manifest.json.metadata").write_text("x")
    for name in (".gitattributes", "README.md"):
        (copy / name).write_text("x")
    with pytest.raises(BundleError, match="is not in the manifest"):
        Bundle.open(copy)
    tidy(copy)
    assert Bundle.open(copy).manifest.name == "nano"


def test_a_checkpoint_keeps_its_card(tmp_path: Path) -> None:
    """The card names the licence."""
    (tmp_path / "README.md").write_text("x")
    (tmp_path / ".cache").mkdir()
    tidy(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(tmp_path) == tmp_path
    assert resolve("nano") == embedded("nano")
    monkeypatch.setenv("OMNI_SDK_CACHE", str(tmp_path))
    here = tmp_path / "models" / "owner--name" / "main"
    here.mkdir(parents=True)
    assert resolve("owner/name", local_files_only=True) == here
    with pytest.raises(BundleError, match="is not a directory, an embedded bundle"):
        resolve("no bundle of this name")
