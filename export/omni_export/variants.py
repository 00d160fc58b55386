"""Add variants to a bundle: the same graphs in other precisions, each with its distance and its cost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import onnx
from omni_sdk.bundle.bundle import MANIFEST, Bundle, file_spec, write_manifest
from omni_sdk.bundle.manifest import GraphSpec, GraphVariant, Manifest, ParityRow
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.errors import BundleError
from omni_sdk.graphs.golden import golden_error, golden_inputs, golden_outputs, write_golden

from omni_export.calibration import QUESTION, Calibration, clip_row, record
from omni_export.constants import EXTERNAL_DATA_BYTES
from omni_export.draft import add_golden, check_parity, new_bundle
from omni_export.fused_attention import NothingToFuseError
from omni_export.precision import PRECISIONS, Precision, cache_dtype, expand_halves, weight_bytes
from omni_export.variant_quality import token_row, track_row

REFERENCE = "the float32 graph, ONNX Runtime, CPU"
GOLDEN_MEASURE = "golden outputs: max |difference| / std"
Progress = Callable[[str], None]


def add_variants(
    source: Path,
    out: Path,
    names: Sequence[str],
    *,
    force: bool = False,
    progress: Progress = lambda _: None,
    clips: Sequence[Path] = (),
    question: str = QUESTION,
) -> Manifest:
    """Copy a bundle and add variants to the copy; an interrupted or refused run leaves nothing behind.

    Golden outputs are written for every graph and every variant.

    Args:
        source: an existing bundle.
        out: the directory to make.
        names: of `PRECISIONS`.
        force: replace `out` if it is a bundle.
        progress: told of each step in a line of text.
        clips: videos on which 4-bit weights are fitted (GPTQ) and judged; none: round to nearest.
        question: asked about each clip.

    Returns:
        The manifest as written. Rows of a variant have the subject "GRAPH@VARIANT".

    Raises:
        BundleError: an unknown variant, a malformed source, or `out` exists.
        ParityError: a variant is further from its graph than its precision explains.
    """
    if unknown := sorted(set(names) - set(PRECISIONS)):
        raise BundleError(f"no variant {unknown[0]!r}; known: {sorted(PRECISIONS)}")
    if not names:
        raise BundleError(f"no variant named; known: {sorted(PRECISIONS)}")
    bundle = Bundle.open(source)
    with new_bundle(out, force=force) as directory:
        ignore = shutil.ignore_patterns(MANIFEST)
        shutil.copytree(source, directory, ignore=ignore, dirs_exist_ok=True)
        work = _Work(directory, bundle.manifest)
        loader = OnnxLoader("cpu")
        if clips:
            progress(f"asking about {len(clips)} clips")
            work.calibration = record(bundle, loader, clips, question)
        for graph in bundle.manifest.graphs:
            _add_to_graph(work, graph, names, loader, progress)
        progress("measuring what the variants cost")
        for name in names:
            rows = _quality(work.bundle, name, loader, work.calibration)
            check_parity(rows)
            work.rows += rows
        made = {f"@{name}" for name in names}
        kept = [r for r in bundle.manifest.parity if not any(m in r.subject for m in made)]
        return write_manifest(
            directory, replace(work.manifest, parity=(*kept, *work.rows), files={})
        )


class _Work:
    """A bundle under construction."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest
        self.rows: list[ParityRow] = []
        self.calibration: Calibration | None = None

    @property
    def bundle(self) -> Bundle:
        return Bundle(self.directory, self.manifest)

    def put(self, name: str, graph: GraphSpec, files: Sequence[str]) -> None:
        """Take a graph's new entry; its files are there."""
        self.manifest = replace(
            self.manifest,
            graphs=self.manifest.graphs | {name: graph},
            files=self.manifest.files | {f: file_spec(self.directory / f) for f in files},
        )

    def put_variant(self, graph: str, name: str, variant: GraphVariant) -> None:
        """Take a variant's entry; its files are there."""
        spec = self.manifest.graphs[graph]
        golden = () if variant.golden is None else (variant.golden,)
        self.put(
            graph,
            replace(spec, variants=spec.variants | {name: variant}),
            (variant.file, *variant.data, *golden),
        )


def _add_to_graph(
    work: _Work, graph: str, names: Sequence[str], loader: OnnxLoader, progress: Progress
) -> None:
    base, reference = add_golden(work.bundle, graph, loader.load(work.bundle, graph))
    assert base.golden is not None
    size = weight_bytes(_load(work.directory / base.file, values=False))
    work.put(graph, replace(base, weight_bytes=size), [base.golden])
    for name in names:
        precision = PRECISIONS[name]
        if not precision.has(graph):
            continue
        progress(f"making {graph}@{name}")
        spec = work.manifest.graphs[graph]
        try:
            variant = _write(work.directory, spec, graph, name, precision, work.calibration)
        except NothingToFuseError as e:
            progress(f"{graph}: {e}; it stays as it is")
            continue
        work.put_variant(graph, name, variant)
        other = work.bundle.with_variants(name)
        found = golden_outputs(loader.load(other, graph).run, golden_inputs(other, graph))
        golden = f"golden/{graph}_{name}.npz"
        write_golden(work.directory / golden, found)
        work.put_variant(graph, name, replace(variant, golden=golden))
        error, _ = golden_error(found, reference)
        row = ParityRow(f"{graph}@{name}", REFERENCE, GOLDEN_MEASURE, error, precision.tolerance)
        check_parity([row])
        work.rows.append(row)


def _load(path: Path, *, values: bool = True) -> onnx.ModelProto:
    """Read a graph with float32 weights. A 3B decoder takes 12 GB: hold one at a time.

    `values`: also read weights that lie in a file of their own.
    """
    model = onnx.load(str(path), load_external_data=values)
    expand_halves(model)
    return model


def _write(
    directory: Path,
    spec: GraphSpec,
    graph: str,
    name: str,
    precision: Precision,
    calibration: Calibration | None,
) -> GraphVariant:
    """Convert a graph and write it beside the other; return its entry."""
    model = _load(directory / spec.file)
    label = precision.label
    if calibration is not None and precision.calibrate is not None:
        model = precision.calibrate(model, calibration)
        label += f", fitted to {len(calibration)} clips (GPTQ)"
    else:
        model = precision.convert(model)
    size = weight_bytes(model)
    file = f"{graph}_{name}.onnx"
    path = directory / file
    data: tuple[str, ...] = ()
    if size > EXTERNAL_DATA_BYTES:  # ByteSize() fails beyond 2 GB
        data = (f"{file}.data",)
        path.with_name(path.name + ".data").unlink(missing_ok=True)  # onnx appends
        onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data")
    else:
        onnx.save(model, str(path))
    return GraphVariant(
        file=file,
        precision=label,
        backends=precision.backends,
        data=data,
        cache_dtype=cache_dtype(model),
        golden_tolerance=precision.machine_tolerance,
        weight_bytes=size,
        left_padding=precision.left_padding,
        devices=precision.devices,
    )


def _quality(
    bundle: Bundle, name: str, loader: OnnxLoader, calibration: Calibration | None
) -> list[ParityRow]:
    variant = bundle.with_variants(name)
    rows = []
    if bundle.manifest.grs is not None and name in bundle.graph("grs/decoder").variants:
        allowed = PRECISIONS[name].allowed_tokens
        rows.append(token_row(bundle, variant, name, loader, allowed))
        if calibration is not None:
            rows.append(clip_row(calibration, bundle, variant, name, loader, allowed))
    tracker = [g for key, g in bundle.manifest.graphs.items() if key.startswith("dus/")]
    if any(name in graph.variants for graph in tracker):
        rows.append(track_row(bundle, variant, name, loader))
    return rows
