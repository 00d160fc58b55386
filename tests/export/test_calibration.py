"""4-bit weights fitted to clips: what is recorded, and that fitting pays on the task."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from omni_export import gptq as gptq_module
from omni_export.calibration import clip_row, record
from omni_export.cli import main
from omni_export.gptq import gptq, inverse_factor
from omni_export.precision import PRECISIONS, expand_halves
from omni_export.variants import add_variants

from omni_sdk.bundle.bundle import Bundle, embedded
from omni_sdk.demo.clip import write_clip
from omni_sdk.demo.scene import make_scene
from omni_sdk.engines.onnx import OnnxLoader
from omni_sdk.errors import BundleError, MediaError
from omni_sdk.grs.cache import empty_cache


@pytest.fixture(scope="module")
def nano():
    return Bundle.open(embedded("nano"))


@pytest.fixture(scope="module")
def loader():
    return OnnxLoader("cpu", threads=1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Six clips of the demo's world that share a question: four to fit, two held out."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"{i}.mp4" for i in range(6)]
    for i, path in enumerate(paths):
        write_clip(make_scene(5_400_000 + i, "sound"), path, size=(128, 128), fps=2.0)
    return paths


QUESTION = make_scene(5_400_000, "sound").query


def test_recorded_calls_are_one_completion(nano, loader, clips):
    data = record(nano, loader, clips[:1], QUESTION)
    assert len(data) == 1
    (calls,) = data.completions
    assert calls[0]["inputs_embeds"].shape[1] > 20  # the prompt, then single tokens
    assert {c["inputs_embeds"].shape[1] for c in calls[1:]} == {1}
    (sequence,) = data.sequences()
    length = sequence["inputs_embeds"].shape[1]
    assert sequence["attention_mask"].shape == (1, length)
    assert sequence["position_ids"].shape == (3, 1, length)
    # the sequence in one call ends in the logits of the last step
    decoder = loader.load(nano, "grs/decoder")
    row = clip_row(data, nano, nano, "same", loader, 0.0)
    assert (row.value, row.tolerance) == (0.0, 0.0)
    whole = decoder.run(sequence)["logits"]
    cache = empty_cache(nano.graph("grs/decoder"))
    for call in calls:
        found = decoder.run(call | cache)
        cache = {name: found[name.replace("past.", "present.")] for name in cache}
    np.testing.assert_allclose(whole, found["logits"], atol=1e-3 * whole.std())


def test_fitted_weights_are_closer_on_other_clips(nano, loader, clips):
    data, held_out = (record(nano, loader, part, QUESTION) for part in (clips[:4], clips[4:]))

    def model():
        found = onnx.load(nano.path(nano.graph("grs/decoder").file))
        expand_halves(found)
        return found

    precision = PRECISIONS["int4"]
    sessions = [
        ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])
        for m in (model(), precision.convert(model()), precision.calibrate(model(), data))
    ]
    distances = {"rounded": [], "fitted": []}
    for sequence in held_out.sequences():
        exact, *others = (session.run(["logits"], sequence)[0] for session in sessions)
        for name, found in zip(distances, others, strict=True):
            distances[name].append(float(np.abs(found - exact).mean() / exact.std()))
    assert np.mean(distances["fitted"]) < 0.97 * np.mean(distances["rounded"]), distances


def test_gptq_beats_rounding_on_correlated_inputs():
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((400, 8)) @ rng.standard_normal((8, 64))
    inputs += 0.1 * rng.standard_normal(inputs.shape)
    weight = rng.standard_normal((64, 24)).astype(np.float32)
    errors = []
    for hessian in (inputs.T @ inputs, np.eye(64)):  # the identity is rounding to the nearest
        values, scales = gptq(weight, inverse_factor(hessian), 32)
        assert values.max() <= 15
        back = (values.astype(np.float64) - 8) * scales.repeat(32, 0)
        errors.append(np.square(inputs @ (back - weight)).mean())
        assert np.abs(back - weight).max() < 2 * np.abs(scales).max() or hessian[0, 1]
    assert errors[0] < 0.3 * errors[1]


def test_batches_of_rows_and_slices_of_columns_change_nothing(monkeypatch):
    """Errors reach later rows at once or in batches, columns do not depend on each other."""
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((500, 16)) @ rng.standard_normal((16, 160))
    inputs += 0.3 * rng.standard_normal(inputs.shape)
    factor = inverse_factor(inputs.T @ inputs)
    weight = rng.standard_normal((160, 50)).astype(np.float32)
    found = []
    for rows, columns in ((160, 50), (32, 50), (64, 16)):
        monkeypatch.setattr(gptq_module, "_ROWS", rows)
        monkeypatch.setattr(gptq_module, "_COLUMNS", columns)
        found.append(gptq(weight, factor, 32))
    for values, scales in found[1:]:
        assert np.array_equal(values, found[0][0])
        np.testing.assert_allclose(scales, found[0][1], rtol=1e-6)


def test_passes_change_nothing(nano, loader, clips, monkeypatch):
    """Hessians that do not fit beside each other are gathered one after the other."""
    data = record(nano, loader, clips[:1], QUESTION)
    models = []
    for memory in (1 << 30, 1):
        monkeypatch.setattr(gptq_module, "HESSIAN_BYTES", memory)
        model = onnx.load(nano.path(nano.graph("grs/decoder").file))
        expand_halves(model)
        models.append(PRECISIONS["int4"].calibrate(model, data).SerializeToString())
    assert models[0] == models[1]


def test_the_command_writes_fitted_weights(nano, clips, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["variants", str(nano.directory), "--out", str(out), "--variant", "int4"]
    arguments += ["--calibrate", *map(str, clips[:1]), "--question", QUESTION]
    assert main(arguments) == 0
    assert "grs/decoder@int4: tokens on the calibration clips" in capsys.readouterr().out
    label = Bundle.open(out).graph("grs/decoder").variants["int4"].precision
    assert label == "int4 weights, blocks of 32, fitted to 1 clips (GPTQ)"


def test_refusals(nano, loader, tmp_path, capsys):
    with pytest.raises(BundleError, match="at least one clip"):
        record(nano, loader, [])
    with pytest.raises(MediaError, match="no such file"):
        add_variants(nano.directory, tmp_path / "out", ["int4"], clips=[tmp_path / "no.mp4"])
    assert not (tmp_path / "out").exists()
    arguments = ["variants", str(nano.directory), "--out", str(tmp_path / "out")]
    arguments += ["--variant", "int4", "--calibrate", str(tmp_path / "no.mp4")]
    assert main(arguments) == 1
    assert "no such file" in capsys.readouterr().err
