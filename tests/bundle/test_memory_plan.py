"""The memory planner on manifests of real sizes, and what follows from its plans."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_sdk.bundle.bundle import Bundle, embedded
from omni_sdk.bundle.manifest import DecoderSpec, FileSpec, GraphVariant, ParityRow
from omni_sdk.bundle.memory_plan import (
    apply_plan,
    cache_bytes,
    longest_prompt,
    parse_bytes,
    plan_memory,
    tracking_bytes,
)
from omni_sdk.bundle.variants import variant_choices
from omni_sdk.cli import main
from omni_sdk.errors import EngineError, MemoryBudgetError
from omni_sdk.loading import check_backend
from omni_sdk.pipeline import Pipeline

GB = 10**9
# hidden size, layers, key-value heads, parameters (Qwen2.5-Omni's published configurations; head size 128)
SIZES = {"3B": (2048, 36, 2, 3.1e9), "7B": (3584, 28, 4, 7.6e9)}


def _bundle(size: str, *, variants: bool = True, image_size: int = 1024) -> Bundle:
    """The nano manifest with a real model's shapes and file sizes."""
    nano = Bundle.open(embedded("nano") or Path())
    hidden, layers, kv, parameters = SIZES[size]
    manifest = nano.manifest
    assert manifest.grs is not None
    assert manifest.dus is not None
    grs = dataclasses.replace(
        manifest.grs,
        decoder=DecoderSpec(hidden, layers, kv, 128, 152064, 32768, 25, 2.0),
        vision=dataclasses.replace(
            manifest.grs.vision,
            patch_size=14,
            merge_size=2,
            temporal_patch_size=2,
            video_pixels=(16 * 784, 128 * 784),
            image_pixels=(64 * 784, 900 * 784),
        ),
        sampling=dataclasses.replace(manifest.grs.sampling, min_frames=8, max_frames=24),
        audio=dataclasses.replace(manifest.grs.audio, max_seconds=60.0),
        prompts=dataclasses.replace(manifest.grs.prompts, max_new_tokens=1024),
    )
    dus = dataclasses.replace(
        manifest.dus, image_size=image_size, hidden_size=256, memory_size=64, num_memories=7
    )
    files = dict(manifest.files)
    graphs = dict(manifest.graphs)
    if variants:
        for name, share in (("fp16", 0.5), ("int8", 0.28), ("int4", 0.16)):
            file = f"grs/decoder_{name}.onnx"
            files[file] = FileSpec(int(parameters * 4 * share), "0" * 64)
            backends = ("onnx", "tensorrt") if name == "fp16" else ("onnx",)
            decoder = graphs["grs/decoder"]
            made = decoder.variants | {name: GraphVariant(file, name, backends)}
            graphs["grs/decoder"] = dataclasses.replace(decoder, variants=made)
    files["grs/decoder.onnx"] = FileSpec(int(parameters * 4), "0" * 64)
    return Bundle(
        nano.directory,
        dataclasses.replace(manifest, grs=grs, dus=dus, files=files, graphs=graphs),
    )


def test_known_sizes() -> None:
    bundle = _bundle("7B")
    # 28 layers x 2 x 4 heads x 128 x 4 bytes
    assert cache_bytes(bundle.grs, 1) == 114_688
    # 12 rows of 128 tokens, 60 s of sound, text
    assert longest_prompt(bundle.grs, 24, 128 * 784) == 12 * 128 + 1500 + 256
    # SAM 2.1 at 1024 px: about 2.5 times 471 MB for 7 memories; here 10
    assert 1.1 * GB < tracking_bytes(bundle.dus) < 1.8 * GB
    assert tracking_bytes(dataclasses.replace(bundle.dus, image_size=512)) < 0.2 * GB


@pytest.mark.parametrize(
    ("size", "budget", "variants"),
    [
        ("3B", 24 * GB, ()),
        ("3B", 12 * GB, ("fp16",)),
        ("3B", 8 * GB, ("int8",)),
        ("7B", 64 * GB, ()),
        ("7B", 24 * GB, ("fp16",)),
        ("7B", 16 * GB, ("int8",)),
        ("7B", 9 * GB, ("int4",)),
    ],
)
def test_the_best_variant_that_fits(size: str, budget: int, variants: tuple[str, ...]) -> None:
    plan = plan_memory(_bundle(size), budget, backend="onnx", device="cuda")
    assert plan.variants == variants
    assert plan.total <= budget
    assert plan.max_frames is not None
    assert 8 <= plan.max_frames <= 24


def _with_variants(bundle: Bundle, variants: dict[str, tuple[str, ...]], **rows: float) -> Bundle:
    """Variants by name with the graphs that have them; `rows`: measured loss of the decoder's."""
    graphs, files = dict(bundle.manifest.graphs), dict(bundle.manifest.files)
    for name, keys in variants.items():
        for key in keys:
            file = f"{key}_{name}.onnx"
            files[file] = FileSpec(files[graphs[key].file].size // 2, "0" * 64)
            variant = GraphVariant(file, name, ("onnx",))
            graphs[key] = dataclasses.replace(
                graphs[key], variants=graphs[key].variants | {name: variant}
            )
    parity = tuple(
        ParityRow(f"grs/decoder@{name}", "", "", value, 9.0) for name, value in rows.items()
    )
    manifest = dataclasses.replace(bundle.manifest, graphs=graphs, files=files, parity=parity)
    return dataclasses.replace(bundle, manifest=manifest)


def test_choices_follow_the_manifest_whatever_variants_are_called() -> None:
    nano = _bundle("3B", variants=False)
    every = tuple(nano.manifest.graphs)
    decoder = ("grs/decoder",)
    bundle = _with_variants(
        nano, {"half": every, "new": decoder, "rough": decoder}, half=0.01, new=0.2, rough=0.9
    )
    nearly, last = variant_choices(bundle, "onnx")
    assert nearly == [(), ("half",), ("half", "new"), ("new",)]
    assert last == [("half", "rough"), ("rough",)]
    assert variant_choices(bundle, "tensorrt") == ([()], [])
    # measured to be good, a rough-looking one is taken like any other
    better = _with_variants(nano, {"int4": decoder}, int4=0.1)
    assert variant_choices(better, "onnx") == ([(), ("int4",)], [])
    assert variant_choices(_with_variants(nano, {"int4": decoder}), "onnx") == ([()], [("int4",)])


def test_fewer_pixels_before_int4() -> None:
    bundle = _bundle("7B")
    full = plan_memory(bundle, 16 * GB, backend="onnx", device="cuda")
    assert (full.max_frames, full.max_pixels) == (24, 128 * 784)
    less = plan_memory(bundle, full.total - 1, backend="onnx", device="cuda")
    assert less.variants == full.variants
    assert less.max_pixels is not None
    assert less.max_pixels < 128 * 784


def test_tensorrt_gets_no_variant_that_it_cannot_run() -> None:
    plan = plan_memory(_bundle("7B"), 64 * GB, backend="tensorrt", device="cuda")
    assert plan.variants == ()
    with pytest.raises(MemoryBudgetError):
        plan_memory(_bundle("7B"), 12 * GB, backend="tensorrt", device="cuda")


def test_a_device_gets_no_variant_that_it_has_no_kernels_for() -> None:
    bundle = _bundle("7B")
    decoder = bundle.graph("grs/decoder")
    made = {"int8": dataclasses.replace(decoder.variants["int8"], devices=("cpu",))}
    graphs = {"grs/decoder": dataclasses.replace(decoder, variants=made)}
    manifest = dataclasses.replace(bundle.manifest, graphs=bundle.manifest.graphs | graphs)
    bundle = dataclasses.replace(bundle, manifest=manifest)
    budget = 16 * GB  # int8 fits, float32 does not
    assert plan_memory(bundle, budget, backend="onnx", device="cpu").variants == ("int8",)
    with pytest.raises(MemoryBudgetError):
        plan_memory(bundle, budget, backend="onnx", device="cuda:0")
    chosen = bundle.with_variants("int8")
    check_backend(chosen, "onnx", "cpu")
    with pytest.raises(EngineError, match=r"grs/decoder .* kernels for cpu, not for cuda:1"):
        check_backend(chosen, "onnx", "cuda:1")


def test_what_does_not_fit() -> None:
    with pytest.raises(
        MemoryBudgetError, match=r"does not fit 4.00 GB; the smallest plan needs .*--variant int8"
    ):
        plan_memory(_bundle("7B"), 4 * GB, backend="onnx", device="cpu")
    with pytest.raises(MemoryBudgetError, match=r"weights 30\.\d+ GB"):
        plan_memory(_bundle("7B", variants=False), 16 * GB, backend="onnx", device="cuda")


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 80 * GB))
def test_a_plan_fits_or_is_refused(budget: int) -> None:
    bundle = _bundle("3B")
    try:
        plan = plan_memory(bundle, budget, backend="onnx", device="cuda")
    except MemoryBudgetError:
        assert budget < 6 * GB
        return
    assert plan.total <= budget
    planned = apply_plan(bundle, plan)
    assert planned.grs.sampling.max_frames == plan.max_frames
    assert planned.grs.vision.video_pixels[1] == plan.max_pixels
    low, high = planned.grs.vision.video_pixels
    assert low <= high


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GB", 8 * GB), ("7.5 GiB", int(7.5 * 2**30)), ("900mb", 900 * 10**6), ("12", 12), (5, 5)],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "8TB", "0", "1e9", "0.0001", 0, -3, "8 G B"])
def test_no_sizes(text: str | int) -> None:
    with pytest.raises(ValueError, match=r"expected a size|above 0"):
        parse_bytes(text)


def test_from_pretrained(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="omni_sdk.loading"):
        pipeline = Pipeline.from_pretrained("nano", device="cpu", memory_budget="2GB")
    assert pipeline.reasoner is not None
    assert "memory plan: " in caplog.text
    with pytest.raises(MemoryBudgetError, match=r"does not fit 0\.01 GB"):
        Pipeline.from_pretrained("nano", device="cpu", memory_budget="10MB")
    with pytest.raises(ValueError, match="one of the two"):
        Pipeline.from_pretrained("nano", device="cpu", memory_budget="2GB", variant="fp16")
    Pipeline.from_pretrained("nano", device="cpu", memory_budget="auto")


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "none.mp4", "q", "--memory", "10MB"]) == 1
    assert "does not fit" in capsys.readouterr().err
    assert main(["run", "none.mp4", "q", "--memory", "ten"]) == 1
    assert "expected a size" in capsys.readouterr().err
