"""`omni-sdk inspect BUNDLE|VIDEO`: what is inside, verified."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from omni_sdk.cli import common
from omni_sdk.utils.text import table

if TYPE_CHECKING:
    from omni_sdk.media.limits import MediaLimits


def declare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("target", help="a bundle (directory or 'nano') or a video")
    common.declare_limits(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from omni_sdk.bundle.bundle import embedded

    target: str = arguments.target
    if os.path.isdir(target) or embedded(target) is not None:  # noqa: PTH112
        print(_bundle(target))
    else:
        print(_video(target, common.read_limits(arguments)))
    return 0


def _bundle(target: str) -> str:
    from omni_sdk.bundle.bundle import Bundle
    from omni_sdk.bundle.hub import resolve

    bundle = Bundle.open(resolve(target))
    manifest = bundle.manifest
    size = sum(f.size for f in manifest.files.values())
    lines = [
        f"{manifest.name} {manifest.version}: {manifest.description}",
        f"licence {manifest.license}; {len(manifest.files)} files, {size / 1e6:.1f} MB, all verified",
    ]
    for part, source in manifest.sources.items():
        revision = f" at {source.revision}" if source.revision else ""
        lines.append(f"{part}: from {source.checkpoint}{revision} ({source.license})")
        if (made := source.training) is not None:
            lines.append(f"     {made.parameters:,} weights, made by `{made.command}`")
    rows = [
        (
            name,
            f"{sum(manifest.files[f].size for f in (graph.file, *graph.data)) / 1e6:.2f} MB",
            " ".join(f"{t.name}{list(t.axes)}".replace("'", "") for t in graph.inputs[:6]),
        )
        for name, graph in sorted(manifest.graphs.items())
    ]
    if manifest.grs is not None and (stored := manifest.grs.embedding) is not None:
        held = f"{stored.rows} rows of {stored.dtype}, mapped into memory"
        rows.append((stored.file, f"{manifest.files[stored.file].size / 1e6:.2f} MB", held))
    lines += ["", table(("graph", "size", "inputs"), rows)]
    if manifest.parity:
        parity = [
            (p.subject, p.reference, p.measure, f"{p.value:.3g}", f"{p.tolerance:.3g}")
            for p in manifest.parity
        ]
        head = ("parity of", "against", "measure", "value", "allowed")
        lines += ["", table(head, parity)]
    return "\n".join(lines)


def _video(target: str, limits: MediaLimits) -> str:
    from omni_sdk.media.source import open_source

    with open_source(target, limits=limits) as video:
        info, index = video.info, video.index
        syncs = len(index.sync_frames)
        return "\n".join(
            [
                f"{info.path}: {info.width}x{info.height}, {info.num_frames} frames, "
                f"{info.average_fps:.3f} fps, {info.duration_seconds:.3f} s",
                f"sound: {'yes' if info.has_audio else 'no'}; rotation: {index.rotation}; "
                f"sync frames: {syncs}; truncated: {'yes' if info.truncated else 'no'}",
            ]
        )
