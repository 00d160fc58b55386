"""A decoder whose key-value cache is float16: the runtime follows the manifest's dtypes."""

import numpy as np
import pytest
from omni_export.variants import add_variants

from omni_sdk.bundle.bundle import Bundle, embedded
from omni_sdk.bundle.memory_plan import plan_memory
from omni_sdk.demo.clip import write_clip
from omni_sdk.demo.scene import make_scene
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.graphs.golden import golden_error, golden_inputs, golden_outputs
from omni_sdk.pipeline import Pipeline


@pytest.fixture(scope="module", params=["fp16", "fused-fp16"])
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def half(tmp_path_factory, variant):
    """The shipped bundle with a variant of its decoder that is float16 inside and in its cache."""
    directory = tmp_path_factory.mktemp("half") / "bundle"
    add_variants(embedded("nano"), directory, [variant])
    return Bundle.open(directory)


def test_the_variant_says_what_its_cache_is(half, variant):
    chosen = half.with_variants(variant).graph("grs/decoder")
    kinds = {t.name.partition(".")[0]: t.dtype for t in (*chosen.inputs, *chosen.outputs)}
    assert kinds["past"] == kinds["present"] == "float16"
    assert kinds["inputs_embeds"] == kinds["logits"] == "float32"
    base = half.graph("grs/decoder")
    assert {t.dtype for t in base.inputs if t.name.startswith("past.")} == {"float32"}


def test_numbers_and_answers(half, variant, tmp_path):
    loader = OnnxLoader("cpu", threads=1)
    found = [
        golden_outputs(loader.load(b, "grs/decoder").run, golden_inputs(b, "grs/decoder"))
        for b in (half, half.with_variants(variant))
    ]
    assert golden_error(found[1], found[0])[0] < 0.05
    path = tmp_path / "clip.mp4"
    query = write_clip(make_scene(5400000, "sound"), path, size=(128, 128), fps=2.0).query
    answers = [
        Pipeline.from_pretrained(half.directory, device="cpu", threads=1, variant=v)
        .reason(path, query)
        .answer
        for v in ((), variant)
    ]
    assert answers[0] == answers[1]


def test_a_linked_cache_stays_half(half, variant):
    from omni_sdk.engines.linked import start_linked

    bundle = half.with_variants(variant)
    engine = OnnxLoader("cpu", threads=1).load(bundle, "grs/decoder")
    calls = golden_inputs(bundle, "grs/decoder")
    cache = {n: v for n, v in calls["prefill"].items() if n.startswith("past.")}
    links = {n.replace("past", "present"): n for n in cache}
    run = start_linked(engine, links, cache)
    rest = {n: v for n, v in calls["prefill"].items() if n not in cache}
    assert run.run(rest)["logits"].dtype == np.float32
    assert all("float16" in value.data_type() for value in run._held.values())


def test_the_planner_halves_the_cache(half, variant):
    plans = [
        plan_memory(b, 10**10, backend="onnx", device="cpu")
        for b in (half, half.with_variants(variant))
    ]
    assert plans[1].cache * 2 == plans[0].cache
