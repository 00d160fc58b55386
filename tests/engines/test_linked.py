"""Linked tensors: a decoder fed its own cache gives the same numbers, wherever the cache is held."""

import gc

import numpy as np
import pytest

from omni_sdk.bundle.bundle import Bundle, embedded
from omni_sdk.engines.linked import _NumpyLinks, start_linked
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.errors import EngineError
from omni_sdk.graphs.golden import hashed


@pytest.fixture(scope="module")
def nano():
    return Bundle.open(embedded("nano"))


@pytest.fixture(scope="module")
def engine(nano):
    return OnnxLoader("cpu", threads=1).load(nano, "grs/decoder")


def _names(nano):
    count = nano.grs.decoder.num_layers
    return [f"{i}.{part}" for i in range(count) for part in ("key", "value")]


def _call(nano, past, length, seed):
    return {
        "inputs_embeds": hashed((2, length, nano.grs.decoder.hidden_size), seed),
        "attention_mask": np.ones((2, past + length), np.int64),
        "position_ids": np.tile(np.arange(past, past + length), (3, 2, 1)),
    }


def _empty(nano):
    decoder = nano.grs.decoder
    empty = np.zeros((2, decoder.num_kv_heads, 0, decoder.head_dim), np.float32)
    return {f"past.{n}": empty for n in _names(nano)}


def _links(nano):
    return {f"present.{n}": f"past.{n}" for n in _names(nano)}


def test_the_same_numbers_as_by_hand(nano, engine):
    bound = start_linked(engine, _links(nano), _empty(nano))
    assert not isinstance(bound, _NumpyLinks)
    passed = _NumpyLinks(engine, _links(nano), _empty(nano))
    past, held = 0, _empty(nano)
    kept = []
    for step, length in enumerate((7, 1, 1, 3)):
        inputs = _call(nano, past, length, step)
        out = engine.run(inputs | held)
        held = {f"past.{n}": out[f"present.{n}"] for n in _names(nano)}
        for run in (bound, passed):
            found = run.run(inputs)
            assert set(found) == {"logits"}
            np.testing.assert_array_equal(found["logits"], out["logits"])
        kept.append((found["logits"], out["logits"].copy()))
        past += length
    del bound, passed, run
    gc.collect()
    for found, expected in kept:  # what was returned does not live in what was freed
        np.testing.assert_array_equal(found, expected)


def test_two_rows_do_not_mix(nano, engine):
    runs = [start_linked(engine, _links(nano), _empty(nano)) for _ in range(2)]
    prompts = [_call(nano, 0, 5, seed) for seed in (1, 2)]
    first = [run.run(p)["logits"] for run, p in zip(runs, prompts, strict=True)]
    assert not np.array_equal(first[0], first[1])
    step = _call(nano, 5, 1, 9)
    a, b = (run.run(step)["logits"] for run in runs)
    alone = start_linked(engine, _links(nano), _empty(nano))
    alone.run(prompts[0])
    np.testing.assert_array_equal(alone.run(step)["logits"], a)
    assert not np.array_equal(a, b)


def test_what_does_not_fit(nano, engine):
    run = start_linked(engine, _links(nano), _empty(nano))
    with pytest.raises(EngineError, match="inputs"):
        run.run({})
    wrong = _call(nano, 0, 3, 0)
    with pytest.raises(EngineError, match="attention_mask is int32"):
        run.run(wrong | {"attention_mask": np.ones((2, 3), np.int32)})
    run.run(_call(nano, 0, 3, 0))
    with pytest.raises(EngineError, match="onnxruntime failed"):
        run.run(_call(nano, 9, 1, 0))  # the mask is for a cache of 9 places, 3 are held
    with pytest.raises(EngineError, match="expected"):
        run.run(_call(nano, 3, 1, 0) | {"past.0.key": np.zeros((2, 2, 3, 32), np.float32)})


def test_the_device_of_linked_outputs(engine):
    assert engine.output_device() == ("cpu", 0)
