"""Model directories: local, shipped inside the package, or downloaded from the Hugging Face hub."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from omni_sdk.bundle.bundle import MANIFEST, embedded
from omni_sdk.errors import BackendUnavailableError, BundleError
from omni_sdk.utils.files import cache_folder

HUB_EXTRAS = (".gitattributes", ".gitignore", "README.md", "LICENSE")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def resolve(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    allow_patterns: Sequence[str] | None = None,
) -> Path:
    """Return the local directory of a model.

    Args:
        name_or_path: name of an embedded bundle, a directory, or a hub id "owner/name".
        revision: branch, tag or commit of a hub id.
        local_files_only: use what was downloaded before; also set by OMNI_SDK_OFFLINE=1.
        allow_patterns: files to download; None: all.

    Raises:
        BundleError: there is no such directory and it is no hub id, or the download failed.
        BackendUnavailableError: a hub id, but huggingface_hub is not installed.
    """
    name = os.fspath(name_or_path)
    path = Path(name)
    if path.is_dir():
        return path
    if (inside := embedded(name)) is not None:
        return inside
    if path.exists() or not _HUB_ID.fullmatch(name):
        raise BundleError(
            f"{name!r} is not a directory, an embedded bundle ('nano') or a hub id 'owner/name'"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError as e:
        raise BackendUnavailableError(
            f"{name!r} is a hub id and huggingface_hub is not installed: pip install huggingface_hub"
        ) from e
    # Real files under local_dir: the hub's own cache is made of symbolic links, which bundles refuse.
    target = cache_folder("models") / name.replace("/", "--") / (revision or "main")
    offline = local_files_only or os.environ.get("OMNI_SDK_OFFLINE") == "1"
    if offline and target.is_dir():
        return target
    try:
        snapshot_download(
            name,
            revision=revision,
            local_dir=target,
            local_files_only=offline,
            allow_patterns=list(allow_patterns) if allow_patterns else None,
        )
    except (OSError, ValueError) as e:  # huggingface_hub's errors derive from these
        raise BundleError(f"{name!r} could not be downloaded: {e}") from e
    tidy(target)
    return target


def tidy(download: Path) -> None:
    """Remove what a hub adds to a downloaded directory, so that a bundle holds just its own files.

    huggingface_hub leaves its bookkeeping in `.cache`; repositories hold a model card and git's files. Only
    directories inside our own cache are handed to this.
    """
    shutil.rmtree(download / ".cache", ignore_errors=True)
    for name in HUB_EXTRAS:
        if (download / MANIFEST).is_file():
            (download / name).unlink(missing_ok=True)
