"""Files and folders that appear whole or not at all, and where files are kept that can be made again."""

from __future__ import annotations

import glob
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

STALE_SECONDS = 3600.0


@contextmanager
def atomic_file(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Yield a binary file that takes the place of `path` when the block ends, and is removed if it raises.

    Whoever reads, writes the same path meanwhile, or dies: the path holds the old content or the new. What a
    killed process leaves, .NAME.*.partial, is never read; the next writer of that name removes it after an
    hour.

    Args:
        path: target; its folder is made.
        mode: permissions, less the umask.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write a file as `atomic_file` does."""
    with atomic_file(path, mode=mode) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `atomic_file` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object, *, allow_nan: bool = False) -> None:
    """Write an indented JSON file as `atomic_file` does.

    Raises:
        ValueError: a NaN or an infinity that is not allowed (no other language reads them).
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=allow_nan) + "\n")


def put_folder(written: Path, final: Path) -> None:
    """Put a finished folder in place of another (or of none), by renaming.

    Everything is flushed to the disk first. The old folder goes once the new one stands, and comes back if
    that one cannot be put there. Killed at any point, one of the two is whole: at `final`, or, killed
    between the two renames, the old one beside it as .NAME.old.

    Args:
        written: on the same file system.
        final: a folder, or nothing yet.
    """
    for path in (*sorted(written.rglob("*")), written):
        _flush(path)
    old = final.with_name(f".{final.name}.old")
    replaced = final.exists()
    if replaced:
        shutil.rmtree(old, ignore_errors=True)
        final.replace(old)
    try:
        written.replace(final)
    except BaseException:
        if replaced:
            old.replace(final)
        raise
    _flush(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def cache_directory() -> Path:
    """Return where files are kept that can be downloaded or built again.

    OMNI_SDK_CACHE, else "omni_sdk" in $XDG_CACHE_HOME or ~/.cache.
    """
    if chosen := os.environ.get("OMNI_SDK_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "omni_sdk"


def cache_folder(kind: str) -> Path:
    """Return the folder of one kind of files in the cache directory, which need not exist.

    Versions before 0.2 kept some in ~/.cache/omni-sdk. Such a folder is moved to its new place once, and
    used where it lies if it cannot be moved.

    Args:
        kind: "models", "parity", "plans", "ort-tensorrt".
    """
    folder = cache_directory() / kind
    if os.environ.get("OMNI_SDK_CACHE") or folder.exists():
        return folder
    old = Path.home() / ".cache" / "omni-sdk" / kind
    if not old.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        old.rename(folder)
    except OSError:
        return old
    return folder


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_stale(path: Path) -> None:
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with suppress(OSError):  # another writer may have been faster
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                left.unlink()
