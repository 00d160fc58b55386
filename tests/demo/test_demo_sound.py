"""The sound of scenes."""

from __future__ import annotations

import numpy as np
import pytest

from omni_sdk.demo.scene import make_scene
from omni_sdk.demo.sound import tone_pitch_hz, waveform
from omni_sdk.demo.world import PITCH_HZ, STEP_SECONDS, held_out_seed

# Samples 0, 16000, 31999, 64000, 90001, 127999: what models are trained on.
GOLDEN = [
    (5_400_000, "sound", (-0.0021940, -0.0030104, -0.0028055, 0.2877474, 0.0034648, 0.0056743)),
    (5_400_001, "sound", (0.0062133, -0.0031922, 0.0022197, -0.0000760, -0.2984713, -0.0051135)),
    (
        5_900_000,
        "distractor",
        (0.0026233, -0.0002356, -0.0483649, -0.2810224, 0.0054230, -0.1471078),
    ),
]


@pytest.mark.parametrize(("seed", "family", "samples"), GOLDEN)
def test_samples_are_those_of_the_training_data(
    seed: int, family: str, samples: tuple[float, ...]
) -> None:
    wave = waveform(make_scene(seed, family))
    assert wave.shape == (128_000,)
    assert wave.dtype == np.float32
    picked = wave[[0, 16000, 31999, 64000, 90001, 127999]]
    # The tone's phase grows up to 6e4 in float32, so the sine differs by 1e-3 between libraries.
    np.testing.assert_allclose(picked, samples, atol=2e-3)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 192_000])
def test_the_tone_says_which_shape_and_when(rate: int) -> None:
    for seed in range(5_400_000, 5_400_004):
        scene = make_scene(seed, "sound")
        assert scene.tone is not None
        wave = waveform(scene, rate)
        assert len(wave) == 8 * rate
        start, end = (round(s * STEP_SECONDS * rate) for s in (scene.tone.start, scene.tone.end))
        tone = wave[start:end]
        spectrum = np.abs(np.fft.rfft(tone * np.hanning(len(tone))))
        peak = float(spectrum.argmax() * rate / len(tone))
        pitch = tone_pitch_hz(scene)
        assert pitch is not None
        assert peak == pytest.approx(pitch, abs=1.0)
        shape = min(PITCH_HZ, key=lambda s: abs(PITCH_HZ[s] - peak))
        assert shape == scene.objects[scene.tone.source].shape
        rest = np.concatenate([wave[:start], wave[end:]])
        assert np.abs(rest).max() < 0.03
        assert np.sqrt(np.mean(tone**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.01)


def test_both_tones_are_heard() -> None:
    scene = make_scene(held_out_seed("distractor", 0), "distractor")
    wave = waveform(scene)
    for tone in scene.tones:
        part = wave[int(tone.start * 8000) : int(tone.end * 8000)]
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part))))
        peak = spectrum.argmax() * 16_000 / len(part)
        assert peak == pytest.approx(PITCH_HZ[scene.tone_shape(tone)], rel=0.05)


def test_silence() -> None:
    scene = next(s for s in (make_scene(i, "null") for i in range(50)) if s.tone is None)
    assert tone_pitch_hz(scene) is None
    assert 0 < np.abs(waveform(scene)).max() < 0.03


@pytest.mark.parametrize("rate", [0, 7_999, 192_001])
def test_rates_out_of_range(rate: int) -> None:
    with pytest.raises(ValueError, match="sampling_rate"):
        waveform(make_scene(0), rate)
