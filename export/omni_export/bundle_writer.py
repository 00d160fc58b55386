"""Checkpoints -> a bundle: export both halves into a temporary directory, check parity, rename."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import onnx
from omni_sdk import __version__
from omni_sdk.bundle.bundle import Bundle, write_manifest
from omni_sdk.bundle.hub import resolve
from omni_sdk.bundle.manifest import SCHEMA_VERSION, Manifest, SourceSpec, TrainingSpec
from omni_sdk.engines.gate import GatedLoader
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.errors import BundleError
from omni_sdk.hf.checkpoint import HUB_FILES, license_of, open_thinker
from omni_sdk.utils.schema import from_dict

from omni_export.draft import check_parity, new_bundle
from omni_export.onnx_export import check_operators
from omni_export.thinker_export import export_thinker

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export, and how.

    Attributes:
        grs: checkpoint of the thinker: a directory or a hub id; None: no reasoner.
        dus: checkpoint of SAM 2.1, likewise; None: no tracker.
        name: the bundle's name, lower-case letters, digits and ".", "_", "-"; None: the directory's.
        description: one sentence for `omni-sdk inspect`.
        licenses: licence of a half ("grs", "dus") where its model card names none.
        revisions: revision of a half on the hub.
        local_files_only: never use the network.
        compact: store weights as float16 where that is exact.
        force: replace an existing bundle.
    """

    grs: str | None = None
    dus: str | None = None
    name: str | None = None
    description: str = ""
    licenses: dict[str, str] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    local_files_only: bool = False
    compact: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.grs is None and self.dus is None:
            raise ValueError("nothing to export: name a checkpoint for grs, dus or both")


def export_bundle(
    out: Path, options: ExportOptions, progress: Progress = lambda _: None
) -> Manifest:
    """Export checkpoints into a new bundle; an interrupted or refused export leaves nothing behind.

    Args:
        out: the bundle's directory.
        options: what to export.
        progress: told of each step in a line of text.

    Returns:
        The manifest as written, parity rows included.

    Raises:
        BundleError: `out` exists, or a checkpoint is incomplete or of an unknown layout.
        ParityError: a graph is not what torch computes.
    """
    name = options.name or out.resolve().name.lower()
    if not _NAME.fullmatch(name):
        raise BundleError(f"{name!r} is no bundle name; expected e.g. 'my-model', pass a name")
    with new_bundle(out, force=options.force) as directory:
        draft = Manifest(
            schema_version=SCHEMA_VERSION,
            name=name,
            version=__version__,
            license="",
            description=options.description,
            sources={},
            files={},
            graphs={},
        )
        if options.grs is not None:
            draft = _add_thinker(draft, directory, options, progress)
        if options.dus is not None:
            draft = _add_tracker(draft, directory, options, progress)
        licenses = sorted({source.license for source in draft.sources.values()})
        progress("writing the manifest")
        return write_manifest(directory, replace(draft, license=" AND ".join(licenses)))


def validate_bundle(directory: Path) -> Bundle:
    """Open a bundle as a user would, load every graph, and check its operators and recorded parity.

    Raises:
        BundleError: the directory is not a sound bundle.
        EngineError: onnxruntime refuses a graph.
        ParityError: a recorded comparison is out of tolerance, or a graph does not give its golden
            outputs here.
    """
    bundle = Bundle.open(directory)
    loader = OnnxLoader("cpu", threads=1)
    variants = {v for graph in bundle.manifest.graphs.values() for v in graph.variants}
    for choice in (bundle, *(bundle.with_variants(v) for v in sorted(variants))):
        for name, spec in choice.manifest.graphs.items():
            if "tensorrt" in spec.backends:
                path = choice.path(spec.file)
                check_operators(onnx.load(str(path), load_external_data=False), name)
            GatedLoader(loader).load(choice, name)
    check_parity(bundle.manifest.parity)
    return bundle


def _add_thinker(
    draft: Manifest, directory: Path, options: ExportOptions, progress: Progress
) -> Manifest:
    assert options.grs is not None
    progress(f"reading {options.grs}")
    checkpoint = open_thinker(
        options.grs,
        revision=options.revisions.get("grs"),
        local_files_only=options.local_files_only,
    )
    shutil.copyfile(checkpoint.tokenizer, directory / "tokenizer.json")
    source = _complete(checkpoint.source, checkpoint.tokenizer.parent, options, "grs")
    draft = export_thinker(
        checkpoint,
        replace(draft, sources=draft.sources | {"grs": source}),
        directory,
        OnnxLoader("cpu"),
        compact=options.compact,
        progress=progress,
    )
    check_parity(draft.parity)
    return draft


def _add_tracker(
    draft: Manifest, directory: Path, options: ExportOptions, progress: Progress
) -> Manifest:
    from omni_export.sam2_graphs import export_tracker

    assert options.dus is not None
    checkpoint = resolve(
        options.dus,
        revision=options.revisions.get("dus"),
        local_files_only=options.local_files_only,
        allow_patterns=HUB_FILES,
    )
    progress(f"exporting the tracker of {options.dus}, with parity checks")
    spec, graphs, rows = export_tracker(
        checkpoint, directory, loader=OnnxLoader("cpu"), exact_halves=options.compact
    )
    check_parity(rows)
    source = SourceSpec(
        checkpoint=checkpoint.name if Path(options.dus).is_dir() else options.dus,
        revision=options.revisions.get("dus"),
        license=license_of(checkpoint),
    )
    return replace(
        draft,
        sources=draft.sources | {"dus": _complete(source, checkpoint, options, "dus")},
        graphs=draft.graphs | graphs,
        dus=spec,
        parity=(*draft.parity, *rows),
    )


def _complete(
    source: SourceSpec, checkpoint: Path, options: ExportOptions, half: str
) -> SourceSpec:
    """Add the licence that the caller names, and what the checkpoint says of its training."""
    return replace(
        source,
        license=options.licenses.get(half, source.license),
        training=training_of(checkpoint),
    )


def training_of(checkpoint: Path) -> TrainingSpec | None:
    """Return what a checkpoint's training.json says of its making, as `omni-train nano` writes it; or None.

    Raises:
        BundleError: the file lacks something or is malformed.
    """
    path = checkpoint / "training.json"
    if not path.is_file():
        return None
    names = [f.name for f in fields(TrainingSpec)]
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return from_dict(TrainingSpec, {name: value[name] for name in names})
    except (ValueError, KeyError, TypeError) as e:
        raise BundleError(f"{path}: expected an object with {', '.join(names)} ({e!r})") from e
