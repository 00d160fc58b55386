"""A bundle: a model directory, and the only door through which model files come in.

Before any parser sees a model file's bytes: the manifest's schema, then for every file of the directory
that it is listed, regular, inside, with one hard link, of the stated size and SHA-256.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from omni_sdk.bundle.manifest import (
    SCHEMA_VERSION,
    DusSpec,
    FileSpec,
    GraphSpec,
    GrsSpec,
    Manifest,
    TensorSpec,
)
from omni_sdk.errors import BundleError
from omni_sdk.utils import schema
from omni_sdk.utils.files import write_json

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 4 << 20
_EMBEDDED = Path(__file__).parents[1] / "bundles"
_SAFE_NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified model directory.

    Attributes:
        directory: where it lies.
        manifest: what it says of itself.
    """

    directory: Path
    manifest: Manifest

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> Bundle:
        """Verify a directory and open it.

        Raises:
            BundleError: anything missing, extra, altered, linked, misplaced or of another schema.
        """
        root = Path(directory)
        manifest = _read_manifest(root)
        _verify_files(root, manifest, allow_hard_links=root.parent == _EMBEDDED)
        return cls(root, manifest)

    @property
    def grs(self) -> GrsSpec:
        """Settings of the reasoner and grounder; BundleError if the bundle has none."""
        if self.manifest.grs is None:
            raise BundleError(f"bundle {self.manifest.name!r} holds no reasoner (grs is null)")
        return self.manifest.grs

    @property
    def dus(self) -> DusSpec:
        """Settings of the tracker; BundleError if the bundle has none."""
        if self.manifest.dus is None:
            raise BundleError(f"bundle {self.manifest.name!r} holds no tracker (dus is null)")
        return self.manifest.dus

    def graph(self, name: str) -> GraphSpec:
        """Return a graph's entry; BundleError if there is none of that name."""
        try:
            return self.manifest.graphs[name]
        except KeyError:
            raise BundleError(
                f"bundle {self.manifest.name!r} has no graph {name!r}; it has "
                f"{sorted(self.manifest.graphs)}"
            ) from None

    def with_variants(self, *names: str) -> Bundle:
        """Return this bundle with variants in the place of its graphs.

        Args:
            names: of variants; each replaces every graph that has it, the last one wins.

        Raises:
            BundleError: no graph has a variant of that name.
        """
        graphs = self.manifest.graphs
        for name in names:
            if not any(name in graph.variants for graph in graphs.values()):
                known = sorted({v for graph in graphs.values() for v in graph.variants})
                raise BundleError(
                    f"bundle {self.manifest.name!r} has no variant {name!r}; it has {known}; "
                    "`omni-export variants` makes some"
                )
            graphs = {key: _as_variant(graph, name) for key, graph in graphs.items()}
        return replace(self, manifest=replace(self.manifest, graphs=graphs))

    def path(self, file: str) -> Path:
        """Return the path of a file that the manifest lists."""
        if file not in self.manifest.files:
            raise BundleError(f"bundle {self.manifest.name!r} has no file {file!r}")
        return self.directory / file

    def read(self, file: str) -> bytes:
        """Return a listed file's bytes, verified as they are read: what is parsed is what was hashed.

        Raises:
            BundleError: not listed, unreadable, or altered since the bundle was opened.
        """
        path, spec = self.path(file), self.manifest.files[file]
        try:
            with path.open("rb") as f:
                content = f.read(spec.size + 1)  # no more than promised, whatever the file became
        except OSError as e:
            raise BundleError(f"{path}: cannot be read ({e})") from e
        if len(content) != spec.size or hashlib.sha256(content).hexdigest() != spec.sha256:
            raise BundleError(f"{path}: altered since the bundle was opened")
        return content


def graph_files(graph: GraphSpec) -> list[str]:
    """Return all files that a graph names, those of its variants included."""
    files = [graph.file, *graph.data]
    golden = [graph.golden]
    for variant in graph.variants.values():
        files += (variant.file, *variant.data)
        golden.append(variant.golden)
    return [*files, *(g for g in golden if g is not None)]


def _as_variant(graph: GraphSpec, name: str) -> GraphSpec:
    variant = graph.variants.get(name)
    if variant is None:
        return graph
    own = {
        f.name: getattr(variant, f.name)
        for f in dataclasses.fields(variant)
        if f.name != "cache_dtype"
    }
    return replace(
        graph,
        inputs=_with_cache_dtype(graph.inputs, variant.cache_dtype),
        outputs=_with_cache_dtype(graph.outputs, variant.cache_dtype),
        **own,
    )


def _with_cache_dtype(tensors: tuple[TensorSpec, ...], dtype: str | None) -> tuple[TensorSpec, ...]:
    """Return a decoder's inputs or outputs with the cache's among them in another dtype."""
    if dtype is None:
        return tensors
    cache = ("past.", "present.")
    return tuple(replace(t, dtype=dtype) if t.name.startswith(cache) else t for t in tensors)


def embedded(name: str) -> Path | None:
    """Return the directory of a bundle shipped inside the package, or None."""
    path = _EMBEDDED / name
    return path if re.fullmatch(r"[a-z0-9-]+", name) and path.is_dir() else None


def write_manifest(directory: Path, manifest: Manifest) -> Manifest:
    """Hash every file of a directory and write its manifest.json; return it with `files` filled in."""
    files = {
        path.relative_to(directory).as_posix(): file_spec(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    fields = schema.to_dict(manifest) | {"files": schema.to_dict(files)}
    write_json(directory / MANIFEST, fields)
    return schema.from_dict(Manifest, json.loads(json.dumps(fields)))


def file_spec(path: Path) -> FileSpec:
    """Return a file's entry in the manifest."""
    return FileSpec(path.stat().st_size, sha256(path))


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_manifest(root: Path) -> Manifest:
    path = root / MANIFEST
    if not root.is_dir():
        raise BundleError(f"{root}: not a directory; a bundle is a directory with a {MANIFEST}")
    if not path.is_file() or path.is_symlink():
        raise BundleError(f"{root}: no {MANIFEST}; `omni-export onnx` makes a bundle")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path}: larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as e:
        raise BundleError(f"{path}: not JSON ({e})") from e
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema_version {version!r}, this omni-sdk reads {SCHEMA_VERSION}; "
            "export the bundle again or install the omni-sdk that made it"
        )
    try:
        manifest = schema.from_dict(Manifest, value)
    except schema.SchemaError as e:
        raise BundleError(f"{path}: {e}") from e
    _check_names(path, manifest)
    return manifest


def _check_names(path: Path, manifest: Manifest) -> None:
    for name in manifest.files:
        plain = _SAFE_NAME.fullmatch(name) and not {".", ".."} & set(name.split("/"))
        if not plain or name == MANIFEST:
            raise BundleError(f"{path}: file name {name!r} is not a plain path inside the bundle")
    named = [f for graph in manifest.graphs.values() for f in graph_files(graph)]
    if manifest.dus is not None:
        named.append(manifest.dus.no_memory_embedding)
    if manifest.grs is not None:
        named.append("tokenizer.json")
        if manifest.grs.embedding is not None:
            named.append(manifest.grs.embedding.file)
    for name in named:
        if name not in manifest.files:
            raise BundleError(f"{path}: {name!r} is used but not listed under files")


def _verify_files(root: Path, manifest: Manifest, *, allow_hard_links: bool) -> None:
    """Check the directory against the manifest.

    Package installers may hard-link the embedded bundle from their cache; it is as trusted as the code
    beside it, so only there are hard links allowed.
    """
    found = set()
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = Path(folder) / name
            relative = path.relative_to(root).as_posix()
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                continue
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{path}: not a regular file (links and devices are refused)")
            if status.st_nlink != 1 and not allow_hard_links:
                raise BundleError(f"{path}: has {status.st_nlink} hard links, expected 1; copy it")
            if relative != MANIFEST:
                found.add(relative)
    expected = set(manifest.files)
    if missing := sorted(expected - found):
        raise BundleError(f"{root}: file {missing[0]!r} is missing; copy the whole bundle again")
    if extra := sorted(found - expected):
        raise BundleError(f"{root}: file {extra[0]!r} is not in the manifest; remove it")
    for name, spec in manifest.files.items():
        path = root / name
        size = path.stat().st_size
        if size != spec.size:
            raise BundleError(f"{path}: {size} bytes, the manifest says {spec.size}")
        if sha256(path) != spec.sha256:
            raise BundleError(f"{path}: altered (SHA-256 differs from the manifest)")
