"""A mapped embedding table gives what the graph gives, and costs the memory of the rows in use."""

import dataclasses
import shutil

import numpy as np
import pytest

from omni_sdk.bench.memory import host_memory_mb
from omni_sdk.bundle.bundle import Bundle, embedded, write_manifest
from omni_sdk.bundle.manifest import FileSpec, TableSpec
from omni_sdk.bundle.memory_plan import plan_memory
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.errors import BundleError, EngineError
from omni_sdk.grs.embedding import EmbeddingTable, open_embedding
from omni_sdk.pipeline import Pipeline

FILE = "grs/embed.table"


@pytest.fixture(scope="module")
def nano():
    return Bundle.open(embedded("nano"))


@pytest.fixture(scope="module")
def weights(nano):
    rows = np.arange(nano.grs.decoder.vocab_size)[None]
    return OnnxLoader("cpu").load(nano, "grs/embed").run({"input_ids": rows})["embeds"][0]


def _with_table(nano, directory, weights, dtype):
    shutil.copytree(nano.directory, directory)
    (directory / "manifest.json").unlink()
    (directory / "grs" / "embed.onnx").unlink()
    weights.astype(dtype).tofile(directory / FILE)
    graphs = {k: v for k, v in nano.manifest.graphs.items() if k != "grs/embed"}
    grs = dataclasses.replace(nano.grs, embedding=TableSpec(FILE, dtype, len(weights)))
    write_manifest(directory, dataclasses.replace(nano.manifest, graphs=graphs, grs=grs))
    return Bundle.open(directory)


@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 0.0), ("float16", 2.0**-11)])
def test_the_rows_of_the_graph(nano, weights, tmp_path, dtype, allowed):
    bundle = _with_table(nano, tmp_path / "b", weights, dtype)
    loader = OnnxLoader("cpu")
    table = open_embedding(loader, bundle)
    assert isinstance(table, EmbeddingTable)
    for shape in ((1, 1), (3, 17), (1, 0)):
        ids = np.random.default_rng(0).integers(0, len(weights), shape)
        found = table.run({"input_ids": ids})["embeds"]
        expected = open_embedding(loader, nano).run({"input_ids": ids})["embeds"]
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(found, expected, rtol=allowed, atol=1e-7 if allowed else 0)


def test_a_pipeline_on_a_table(nano, weights, tmp_path):
    from omni_sdk.demo.clip import write_clip
    from omni_sdk.demo.scene import make_scene

    bundle = _with_table(nano, tmp_path / "b", weights, "float32")
    path = tmp_path / "clip.mp4"
    query = write_clip(make_scene(5400000, "sound"), path, size=(96, 96), fps=2.0).query
    answers = [
        Pipeline.from_pretrained(b.directory, device="cpu").reason(path, query)
        for b in (nano, bundle)
    ]
    assert answers[0] == answers[1]
    assert answers[0].status == "found"


def test_ids_outside_the_table(nano, weights, tmp_path):
    table = EmbeddingTable(_with_table(nano, tmp_path / "b", weights, "float16"))
    rows = len(weights)
    for ids in ([[-1]], [[0, rows]]):
        with pytest.raises(EngineError, match=f"expected 0 to {rows - 1}"):
            table.run({"input_ids": np.array(ids)})
    with pytest.raises(EngineError, match="input_ids is int32"):
        table.run({"input_ids": np.zeros((1, 1), np.int32)})


def test_tables_that_do_not_fit(nano, weights, tmp_path):
    bundle = _with_table(nano, tmp_path / "b", weights, "float16")
    width = weights.shape[1]
    for change, message in (
        ({"rows": 5}, f"expected {10 * width} for 5 rows of {width} float16"),
        ({"rows": 0}, "0 rows"),
        ({"dtype": "object"}, "rows of object, expected one of"),
        ({"dtype": "float32"}, "bytes, expected"),
        ({"file": "grs/none"}, "has no file"),
    ):
        table = dataclasses.replace(bundle.grs.embedding, **change)
        grs = dataclasses.replace(bundle.grs, embedding=table)
        wrong = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, grs=grs))
        with pytest.raises(BundleError, match=message):
            EmbeddingTable(wrong)
    with pytest.raises(BundleError, match="has no embedding table"):
        EmbeddingTable(nano)
    with (bundle.directory / FILE).open("r+b") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match="altered"):
        Bundle.open(bundle.directory)
    (bundle.directory / FILE).unlink()
    with pytest.raises(BundleError, match="is missing"):
        Bundle.open(bundle.directory)


def _large(nano, directory, rows):
    """A table of zeros that the file system need not store."""
    size = rows * nano.grs.decoder.hidden_size * 2
    (directory / "grs").mkdir(parents=True)
    with (directory / FILE).open("wb") as file:
        file.truncate(size)
    grs = dataclasses.replace(nano.grs, embedding=TableSpec(FILE, "float16", rows))
    files = nano.manifest.files | {FILE: FileSpec(size, "0" * 64)}
    graphs = {k: v for k, v in nano.manifest.graphs.items() if k != "grs/embed"}
    manifest = dataclasses.replace(nano.manifest, grs=grs, files=files, graphs=graphs)
    return Bundle(directory, manifest)


def test_memory_of_the_rows_in_use(nano, tmp_path):
    bundle = _large(nano, tmp_path / "large", 1 << 20)
    assert bundle.manifest.files[FILE].size == 256 << 20
    before = host_memory_mb()
    table = EmbeddingTable(bundle)
    ids = np.random.default_rng(0).integers(0, 1 << 20, (1, 500))
    assert not table.run({"input_ids": ids})["embeds"].any()
    assert host_memory_mb() - before < 32  # 500 rows and what the kernel reads around them


def test_the_planner_counts_rows_not_the_table(nano, tmp_path):
    plan = plan_memory(nano, 10**10, backend="onnx", device="cpu")
    mapped = plan_memory(
        _large(nano, tmp_path / "large", 1 << 20), 10**10, backend="onnx", device="cpu"
    )
    assert mapped.weights < plan.weights
    assert 0 < mapped.reasoning - plan.reasoning < 8 << 20
