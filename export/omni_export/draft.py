"""A bundle under construction: where it is made, what is added to it, and how it gets to its place."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from omni_sdk.bundle.bundle import MANIFEST, Bundle
from omni_sdk.bundle.manifest import GraphSpec, ParityRow
from omni_sdk.engines.base import Engine
from omni_sdk.errors import BundleError, ParityError
from omni_sdk.graphs.golden import Arrays, golden_inputs, golden_outputs, write_golden
from omni_sdk.utils.files import put_folder


@contextmanager
def new_bundle(out: Path, *, force: bool) -> Iterator[Path]:
    """Yield an empty folder; what is made in it takes the place of `out` once the block ends and it opens.

    If anything raises, nothing is left behind and what was at `out` stays.

    Args:
        out: the bundle's directory.
        force: replace a bundle that is there.

    Raises:
        BundleError: `out` exists and may not be replaced, or what was made is no sound bundle.
    """
    check_target(out, force=force)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        directory = Path(temporary) / "bundle"
        directory.mkdir()
        yield directory
        Bundle.open(directory)
        directory.chmod(0o755)
        put_folder(directory, out)


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


def add_golden(bundle: Bundle, graph: str, engine: Engine) -> tuple[GraphSpec, Arrays]:
    """Run a graph's golden inputs and write "golden/GRAPH.npz", which the gate on the target compares with.

    Args:
        bundle: with the graph's entry and the settings that its inputs follow from.
        graph: its name.
        engine: that runs it here, on the CPU.

    Returns:
        The graph's entry with the file's name (to be listed among the manifest's files), and the outputs.
    """
    file = f"golden/{graph}.npz"
    outputs = golden_outputs(engine.run, golden_inputs(bundle, graph))
    write_golden(bundle.directory / file, outputs)
    return replace(bundle.graph(graph), golden=file), outputs


def check_parity(rows: Sequence[ParityRow]) -> None:
    """Refuse parity rows out of tolerance.

    Raises:
        ParityError: names the first such row. A value that is not finite is out of tolerance.
    """
    for row in rows:
        if not row.value <= row.tolerance:
            raise ParityError(
                f"{row.subject} differs from {row.reference}: {row.measure} is {row.value:.3g}, at most "
                f"{row.tolerance:.3g} is allowed; nothing was written"
            )
