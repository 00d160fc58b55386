"""Nothing of a bundle is parsed before every file of it is as the manifest says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from omni_sdk.bundle.bundle import Bundle, embedded, write_manifest
from omni_sdk.bundle.manifest import (
    SCHEMA_VERSION,
    DusSpec,
    GraphSpec,
    Manifest,
    SourceSpec,
    TensorSpec,
)
from omni_sdk.errors import BundleError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    root = tmp_path / "bundle"
    (root / "dus").mkdir(parents=True)
    (root / "dus/memory_encoder.onnx").write_bytes(b"graph" * 100)
    (root / "dus/weights.data").write_bytes(b"weights" * 100)
    (root / "dus/no_memory_embedding.npy").write_bytes(b"constant")
    tensor = TensorSpec("pix_feat", "float32", (1, "C"))
    write_manifest(
        root,
        Manifest(
            schema_version=SCHEMA_VERSION,
            name="test",
            version="1",
            license="Apache-2.0",
            description="a test",
            sources={"dus": SourceSpec("somewhere", None, "Apache-2.0")},
            files={},
            graphs={
                "dus/memory_encoder": GraphSpec(
                    "dus/memory_encoder.onnx", (tensor,), (tensor,), ("dus/weights.data",)
                )
            },
            dus=DusSpec(128, (0.5,) * 3, (0.5,) * 3, 128, 64, 7, 16, "dus/no_memory_embedding.npy"),
        ),
    )
    return root


def _edit(root: Path, **changes: object) -> None:
    path = root / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_opens_what_was_written(directory: Path) -> None:
    bundle = Bundle.open(directory)
    assert bundle.graph("dus/memory_encoder").inputs[0].axes == (1, "C")
    assert bundle.path("dus/weights.data").is_file()
    assert bundle.dus.num_memories == 7
    with pytest.raises(BundleError, match="holds no reasoner"):
        _ = bundle.grs
    with pytest.raises(BundleError, match="has no graph 'grs/vision'"):
        bundle.graph("grs/vision")
    with pytest.raises(BundleError, match="has no file"):
        bundle.path("../secret")


@pytest.mark.parametrize(
    "name", ["dus/memory_encoder.onnx", "dus/weights.data", "dus/no_memory_embedding.npy"]
)
def test_a_changed_byte_in_any_file(directory: Path, name: str) -> None:
    content = bytearray((directory / name).read_bytes())
    content[3] ^= 1
    (directory / name).write_bytes(content)
    with pytest.raises(BundleError, match="altered"):
        Bundle.open(directory)


def test_a_file_of_another_size(directory: Path) -> None:
    with (directory / "dus/weights.data").open("ab") as f:
        f.write(b"x")
    with pytest.raises(BundleError, match="701 bytes, the manifest says 700"):
        Bundle.open(directory)


def test_a_missing_graph(directory: Path) -> None:
    (directory / "dus/memory_encoder.onnx").unlink()
    with pytest.raises(BundleError, match=r"'dus/memory_encoder.onnx' is missing"):
        Bundle.open(directory)


@pytest.mark.parametrize("name", ["extra.so", "dus/extra.onnx", ".hidden"])
def test_an_extra_file(directory: Path, name: str) -> None:
    (directory / name).write_bytes(b"x")
    with pytest.raises(BundleError, match="is not in the manifest"):
        Bundle.open(directory)


def test_a_symbolic_link(directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "outside"
    (directory / "dus/weights.data").rename(target)
    (directory / "dus/weights.data").symlink_to(target)
    with pytest.raises(BundleError, match="not a regular file"):
        Bundle.open(directory)


def test_a_symbolic_link_to_a_directory(directory: Path, tmp_path: Path) -> None:
    (directory / "dus").rename(tmp_path / "outside")
    (directory / "dus").symlink_to(tmp_path / "outside", target_is_directory=True)
    with pytest.raises(BundleError, match="not a regular file"):
        Bundle.open(directory)


def test_a_hard_link(directory: Path, tmp_path: Path) -> None:
    os.link(directory / "dus/weights.data", tmp_path / "outside")
    with pytest.raises(BundleError, match="2 hard links"):
        Bundle.open(directory)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "dus/../../x", "a\\b", "", "./x"])
def test_a_path_that_leaves_the_directory(directory: Path, name: str) -> None:
    files = json.loads((directory / "manifest.json").read_text())["files"]
    _edit(directory, files=files | {name: {"size": 0, "sha256": "0" * 64}})
    with pytest.raises(BundleError, match="not a plain path"):
        Bundle.open(directory)


def test_a_graph_file_that_is_not_hashed(directory: Path) -> None:
    graphs = json.loads((directory / "manifest.json").read_text())["graphs"]
    graphs["dus/memory_encoder"]["data"] = ["../../outside.bin"]
    _edit(directory, graphs=graphs)
    with pytest.raises(BundleError, match="used but not listed"):
        Bundle.open(directory)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_schema_version(directory: Path, version: object) -> None:
    _edit(directory, schema_version=version)
    with pytest.raises(BundleError, match="schema_version"):
        Bundle.open(directory)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"schema_version": 1}'])
def test_a_manifest_that_is_none(directory: Path, text: str) -> None:
    (directory / "manifest.json").write_text(text)
    with pytest.raises(BundleError):
        Bundle.open(directory)


def test_a_directory_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        Bundle.open(tmp_path)
    with pytest.raises(BundleError, match="not a directory"):
        Bundle.open(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../nano", "nano/..", "", "NANO", "nowhere"])
def test_only_embedded_names_are_embedded(name: str) -> None:
    assert embedded(name) is None
