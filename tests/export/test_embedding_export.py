"""A large embedding leaves the graphs and becomes a table; the tokens stay transformers'."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from omni_export import embedding_table
from omni_export.embedding_table import FILE, split_embedding, write_table
from omni_export.samples import Sample, make_request
from omni_export.thinker_graphs import thinker_plans

from omni_sdk.bundle.bundle import Bundle, write_manifest
from omni_sdk.config import GenerationConfig
from omni_sdk.grs.thinker import GraphThinker


def test_small_ones_stay_graphs(reference, tmp_path):
    plans = thinker_plans(reference.model, reference.spec)
    assert split_embedding(plans, reference.model, reference.spec, tmp_path) == (
        plans,
        reference.spec,
    )
    assert not list(tmp_path.iterdir())


def test_tokens_from_a_table(bundle, graphs, reference, loader, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_table, "TABLE_BYTES", 1)
    directory = tmp_path / "b"
    shutil.copytree(bundle.directory, directory)
    (directory / "manifest.json").unlink()
    plans = thinker_plans(reference.model, reference.spec)
    rest, spec = split_embedding(plans, reference.model, graphs.spec, directory)
    assert [p.name for p in rest] == ["grs/vision", "grs/audio", "grs/decoder"]
    assert spec.embedding.file == FILE
    assert (
        spec.embedding.dtype == "float16"
    )  # this checkpoint's weights are halves, so that is exact
    graph_table = {k: v for k, v in bundle.manifest.graphs.items() if k != "grs/embed"}
    (directory / "grs" / "embed.onnx").unlink()
    write_manifest(directory, dataclasses.replace(bundle.manifest, graphs=graph_table, grs=spec))
    mapped = GraphThinker(loader, Bundle.open(directory))
    request = make_request(spec, Sample(video=(3, 10, 6), seed=1))
    config = GenerationConfig(max_new_tokens=24)
    ours, theirs = (t.generate([request], config)[0] for t in (mapped, reference))
    np.testing.assert_array_equal(ours.token_ids, theirs.token_ids)


@pytest.mark.parametrize(
    ("dtype", "scale", "stored"),
    [
        (torch.bfloat16, 0.02, "float16"),
        (torch.float32, 0.02, "float32"),
        (torch.bfloat16, 1e6, "float32"),
    ],
)
def test_halves_only_where_they_are_exact(tmp_path, monkeypatch, dtype, scale, stored):
    monkeypatch.setattr(embedding_table, "_ROWS", 7)
    torch.manual_seed(0)
    weight = (torch.randn(50, 16) * scale).to(dtype)
    spec = write_table(weight, tmp_path, FILE)
    assert (spec.dtype, spec.rows) == (stored, 50)
    found = np.fromfile(tmp_path / FILE, spec.dtype).reshape(50, 16).astype(np.float32)
    np.testing.assert_allclose(found, weight.float().numpy(), atol=1e-5 * scale)
