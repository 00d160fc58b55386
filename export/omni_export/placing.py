"""Put a finished directory in place: what was there is replaced at once, or left alone."""

from __future__ import annotations

from pathlib import Path

from omni_sdk.bundle.bundle import MANIFEST
from omni_sdk.errors import BundleError


def check_target(out: Path, *, force: bool) -> None:
    """Refuse a target that exists, unless it is a bundle and may be replaced.

    Raises:
        BundleError: `out` exists.
    """
    if not (out.exists() or out.is_symlink()):
        return
    if not force:
        raise BundleError(
            f"{out}: exists; choose another directory, or --force to replace a bundle"
        )
    # Only a bundle is ever replaced: a mistyped path must not cost anyone a directory.
    if out.is_symlink() or not (out / MANIFEST).is_file():
        raise BundleError(f"{out}: exists and is not a bundle; it is left alone")


def move_into_place(directory: Path, out: Path, aside: Path) -> None:
    """Put the finished directory in place; what it replaces is deleted only afterwards."""
    if out.exists():
        out.rename(aside)
    directory.chmod(0o755)
    directory.rename(out)
