"""`omni-sdk verify BUNDLE`: every check that loading makes, without running anything of it."""

from __future__ import annotations

import argparse


def declare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("bundle", help="bundle directory, hub id, or 'nano'")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; a bundle that is not as it should be ends in BundleError."""
    from omni_sdk.bundle.bundle import Bundle
    from omni_sdk.bundle.hub import resolve
    from omni_sdk.engines.graph_check import check_graph

    bundle = Bundle.open(resolve(arguments.bundle))
    files = bundle.manifest.files
    for name, graph in bundle.manifest.graphs.items():
        sizes = {file: files[file].size for file in graph.data}
        check_graph(bundle.read(graph.file), name, graph.file, sizes)
    print(
        f"{bundle.manifest.name} {bundle.manifest.version} is sound: {len(files)} files, "
        f"{sum(f.size for f in files.values()) / 1e6:.1f} MB as the manifest says, no other file or "
        f"link; {len(bundle.manifest.graphs)} graphs with plain operators and listed data only"
    )
    return 0
