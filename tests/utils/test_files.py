"""A file or a folder is the old one or the new one, whoever raises, writes or dies; and where caches lie."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omni_sdk.utils import files


def test_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    files.write_bytes(path, b"\0\xff")
    assert path.read_bytes() == b"\0\xff"
    files.write_text(path, "ä\n")
    assert path.read_bytes() == "ä\n".encode()
    files.write_json(path, {"a": [1, 2.5]})
    assert path.read_text() == json.dumps({"a": [1, 2.5]}, indent=1) + "\n"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_not_a_number_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_text(path, "old")
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, float("nan"))
    assert path.read_text() == "old"
    files.write_json(path, float("nan"), allow_nan=True)
    assert path.read_text() == "NaN\n"


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_bytes(tmp_path / "shared", b"")
        files.write_bytes(tmp_path / "private", b"", mode=0o600)
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("shared", "private")]
    assert modes == [0o640, 0o600]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space"), KeyboardInterrupt()])
def test_a_writer_that_raises_leaves_the_old_file_alone(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "file"
    files.write_bytes(path, b"old")

    def write() -> None:
        with files.atomic_file(path) as file:
            file.write(b"half of the n")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_refuses_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    files.write_bytes(path, b"old")

    def refuse(*args: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(*((os, call) if call == "fsync" else (Path, call)), refuse)
    with pytest.raises(OSError, match="Input/output"):
        files.write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def _killed(work: Callable[..., None], *arguments: Any) -> None:
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_in_the_middle(path: Path) -> None:
    with files.atomic_file(path) as file:
        file.write(b"half of the n")
        file.flush()
        _die()


def test_a_killed_writer_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file[1]"
    files.write_bytes(path, b"old")
    _killed(_die_in_the_middle, path)
    assert path.read_bytes() == b"old"
    (left,) = tmp_path.glob(".file*.partial")
    files.write_bytes(path, b"new")
    assert left.exists()  # it might have been a writer that is still at work
    monkeypatch.setattr(files, "STALE_SECONDS", -1.0)
    files.write_bytes(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert [p.name for p in tmp_path.iterdir()] == ["file[1]"]


def test_writers_at_once_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([n]) * 200_000 for n in range(4)]

    def write(content: bytes) -> None:
        for _ in range(5):
            files.write_bytes(path, content)

    threads = [threading.Thread(target=write, args=(c,)) for c in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            assert path.read_bytes() in contents
    assert path.read_bytes() in contents
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def _folder(path: Path, text: str) -> Path:
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "file").write_text(text)
    return path


def _text(path: Path) -> str:
    return (path / "inner" / "file").read_text()


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    final = tmp_path / "final"
    for text in ("1", "2"):
        files.put_folder(_folder(tmp_path / "new", text), final)
        assert _text(final) == text
        assert [p.name for p in tmp_path.iterdir()] == ["final"]


def test_a_folder_that_cannot_be_put_there_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = _folder(tmp_path / "final", "old")
    new = _folder(tmp_path / "new", "new")
    rename = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if self == new:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="Input/output"):
        files.put_folder(new, final)
    assert _text(final) == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["final", "new"]


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_killed_at_any_step_one_folder_is_whole(tmp_path: Path, step: int) -> None:
    """Before the first rename, between the two, after the second, and while the old folder goes."""
    final = _folder(tmp_path / "final", "old")
    new = _folder(tmp_path / "new", "new")

    def work() -> None:
        rename, count = Path.replace, 0

        def replace(self: Path, target: Path) -> Path:
            nonlocal count
            if count == step:
                _die()
            count += 1
            return rename(self, target)

        Path.replace = replace  # type: ignore[method-assign, assignment]
        if step == 2:
            files._flush = lambda path: _die() if path == final.parent else None  # type: ignore[assignment]
        if step == 3:
            shutil.rmtree = lambda folder, **_: folder.exists() and _die()  # type: ignore
        files.put_folder(new, final)

    _killed(work)
    whole = final if final.exists() else tmp_path / ".final.old"
    assert _text(whole) == ("old" if step < 2 else "new")
    assert final.exists() == (step != 1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("OMNI_SDK_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_cache_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.cache_directory() == home / ".cache" / "omni_sdk"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert files.cache_directory() == Path("/elsewhere/omni_sdk")
    assert files.cache_folder("plans") == Path("/elsewhere/omni_sdk/plans")
    monkeypatch.setenv("OMNI_SDK_CACHE", "/chosen")
    assert files.cache_directory() == Path("/chosen")
    assert files.cache_folder("plans") == Path("/chosen/plans")


def _earlier(home: Path, kind: str) -> Path:
    folder = home / ".cache" / "omni-sdk" / kind
    folder.mkdir(parents=True, mode=0o700)
    (folder / "file").write_text("kept")
    return folder


def test_what_earlier_versions_kept_moves_once(home: Path) -> None:
    _earlier(home, "parity")
    folder = files.cache_folder("parity")
    assert folder == home / ".cache" / "omni_sdk" / "parity"
    assert (folder / "file").read_text() == "kept"
    _earlier(home, "plans")
    (home / ".cache" / "omni_sdk" / "plans").mkdir()
    folder = files.cache_folder("plans")  # both are there: the new one counts, nothing is lost
    assert list(folder.iterdir()) == []
    assert (home / ".cache/omni-sdk/plans/file").exists()


def test_what_cannot_move_is_used_where_it_lies(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache directory on another file system, as XDG_CACHE_HOME often is."""
    old = _earlier(home, "plans")

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", refuse)
    assert files.cache_folder("plans") == old


def test_a_chosen_cache_directory_takes_nothing_from_elsewhere(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = _earlier(home, "plans")
    monkeypatch.setenv("OMNI_SDK_CACHE", str(home / "chosen"))
    assert files.cache_folder("plans") == home / "chosen" / "plans"
    assert old.exists()
