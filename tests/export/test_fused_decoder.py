"""The decoder of fused operators against the exported one: numbers, padding, a cache with room, refusals."""

import dataclasses

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from omni_export.fused_decoder import fuse_decoder, read_weights
from omni_export.precision import PRECISIONS, expand_halves
from omni_export.samples import Sample, make_request
from onnx import helper

from omni_sdk.bundle.bundle import Bundle, embedded
from omni_sdk.config import GenerationConfig
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.errors import BundleError
from omni_sdk.grs.thinker import GraphThinker


@pytest.fixture(scope="module")
def nano():
    return Bundle.open(embedded("nano"))


@pytest.fixture(scope="module")
def exported(nano):
    model = onnx.load(nano.path(nano.graph("grs/decoder").file))
    expand_halves(model)
    return model


def _session(model):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


@pytest.fixture(scope="module")
def sessions(exported):
    return _session(exported), _session(fuse_decoder(exported))


def _inputs(spec, rng, *, batch, past, length, padding=0, capacity=None):
    shape = (batch, spec.num_kv_heads, past if capacity is None else capacity, spec.head_dim)
    mask = np.ones((batch, past + length), np.int64)
    mask[0, :padding] = 0
    values = {
        "inputs_embeds": rng.standard_normal((batch, length, spec.hidden_size)),
        **{
            f"past.{i}.{part}": rng.standard_normal(shape)
            for i in range(spec.num_layers)
            for part in ("key", "value")
        },
    }
    inputs = {name: value.astype(np.float32) for name, value in values.items()}
    positions = np.sort(rng.integers(0, 90, (3, batch, length)))
    return inputs | {"attention_mask": mask, "position_ids": positions}


@pytest.mark.parametrize(
    ("batch", "past", "length", "padding"),
    [(1, 0, 9, 0), (1, 8, 1, 0), (1, 5, 4, 0), (3, 0, 9, 4), (2, 11, 1, 6)],
)
def test_equal_to_the_exported_graph(nano, sessions, batch, past, length, padding):
    rng = np.random.default_rng(past + length)
    inputs = _inputs(nano.grs.decoder, rng, batch=batch, past=past, length=length, padding=padding)
    expected, found = (session.run(None, inputs) for session in sessions)
    np.testing.assert_allclose(found[0], expected[0], atol=2e-4 * expected[0].std())
    for a, b in zip(found[1:], expected[1:], strict=True):
        assert a.shape == b.shape
        for row in range(batch):  # what stands in padded places is never read
            first = padding if row == 0 else 0
            np.testing.assert_allclose(a[row, :, first:], b[row, :, first:], atol=1e-4 * b.std())


def test_a_cache_with_room_is_written_in_place(nano, exported, sessions):
    """One buffer as input and output: the step's keys and values land behind what it holds."""
    spec, past, room = nano.grs.decoder, 7, 12
    inputs = _inputs(spec, np.random.default_rng(5), batch=1, past=past, length=1)
    expected = dict(
        zip([o.name for o in sessions[0].get_outputs()], sessions[0].run(None, inputs), strict=True)
    )
    session = sessions[1]
    binding = session.io_binding()
    buffers = {}
    for name, value in inputs.items():
        if not name.startswith("past."):
            binding.bind_cpu_input(name, value)
            continue
        grown = np.zeros((*value.shape[:2], room, value.shape[3]), np.float32)
        grown[:, :, :past] = value
        buffers[name] = ort.OrtValue.ortvalue_from_numpy(grown)
        binding.bind_ortvalue_input(name, buffers[name])
        binding.bind_ortvalue_output(name.replace("past", "present"), buffers[name])
    binding.bind_output("logits")
    session.run_with_iobinding(binding)
    logits = binding.get_outputs()[-1].numpy()
    np.testing.assert_allclose(logits, expected["logits"], atol=2e-4 * logits.std())
    for name, buffer in buffers.items():
        present = expected[name.replace("past", "present")]
        held = buffer.numpy()[:, :, : past + 1]
        np.testing.assert_allclose(held, present, atol=1e-4 * present.std())


def test_operators(exported):
    fused = fuse_decoder(exported)
    onnx.checker.check_model(fused)
    kinds = {node.op_type for node in fused.graph.node}
    assert {"GroupQueryAttention", "RotaryEmbedding", "SkipSimplifiedLayerNormalization"} <= kinds
    assert not kinds & {"Softmax", "Tile"}
    assert len(fused.graph.node) < len(exported.graph.node) / 3
    (attention, *_) = (n for n in fused.graph.node if n.op_type == "GroupQueryAttention")
    assert len(attention.input) == 11  # the last one is the bias that makes padding right
    plain = fuse_decoder(exported, left_padding=False)
    (attention, *_) = (n for n in plain.graph.node if n.op_type == "GroupQueryAttention")
    assert len(attention.input) == 7


def test_without_left_padding_a_batch_is_done_row_by_row(nano, exported, tmp_path):
    """A graph that cannot be padded gives each request what it gives it alone."""
    file = tmp_path / "decoder.onnx"
    onnx.save(fuse_decoder(exported, left_padding=False), str(file))

    class Loader:
        def load(self, bundle, graph):
            engine = OnnxLoader("cpu", threads=1).load(bundle, graph)
            if graph == "grs/decoder":
                engine._session = ort.InferenceSession(
                    str(file), providers=["CPUExecutionProvider"]
                )
            return engine

    graphs = nano.manifest.graphs
    decoder = dataclasses.replace(graphs["grs/decoder"], left_padding=False)
    manifest = dataclasses.replace(nano.manifest, graphs=graphs | {"grs/decoder": decoder})
    requests = [make_request(nano.grs, Sample(text=n, seed=n)) for n in (9, 30)]
    config = GenerationConfig(max_new_tokens=12)
    found = GraphThinker(Loader(), Bundle(nano.directory, manifest)).generate(requests, config)
    expected = GraphThinker(OnnxLoader("cpu", threads=1), nano).generate(requests, config)
    for a, b in zip(found, expected, strict=True):
        assert a.token_ids.tolist() == b.token_ids.tolist()


def test_refusals(exported):
    def without(change):
        model = onnx.ModelProto()
        model.CopyFrom(exported)
        change(model.graph)
        return model

    def rename(graph):
        graph.input[3].name = "other"

    def drop(graph):
        products = [n for n in graph.node if n.op_type == "MatMul"]
        graph.node.remove(products[0])

    def no_sine(graph):
        for node in graph.node:
            if node.op_type == "Sin":
                node.op_type = "Sinh"

    for change, message in (
        (rename, "past.0.key"),
        (drop, "expected 7 and 2"),
        (no_sine, "three-axis"),
    ):
        with pytest.raises(BundleError, match=message):
            read_weights(without(change))
    empty = helper.make_model(helper.make_graph([], "g", [], []))
    with pytest.raises(BundleError, match=r"past\.0\.key"):
        PRECISIONS["fused"].convert(empty)
