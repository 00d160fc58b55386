"""The sound of a scene: tones whose pitch tells which shape makes them, over faint noise."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from omni_sdk.demo.scene import Scene
from omni_sdk.demo.world import DURATION_SECONDS, PITCH_HZ, STEP_SECONDS

TONE_AMPLITUDE = 0.3
NOISE_AMPLITUDE = 0.004
DETUNE = 0.04
MIN_SAMPLING_RATE, MAX_SAMPLING_RATE = 8_000, 192_000
_NOISE_SAMPLES = 1 << 21


def waveform(scene: Scene, sampling_rate: int = 16_000) -> NDArray[np.float32]:
    """Return the sound of a scene.

    Args:
        scene: a scene.
        sampling_rate: in Hz, 8,000 to 192,000; 16,000 is what models are trained on.

    Returns:
        (8 * sampling_rate,) float32 mono in [-1, 1].

    Raises:
        ValueError: a sampling rate outside the range.
    """
    if not MIN_SAMPLING_RATE <= sampling_rate <= MAX_SAMPLING_RATE:
        raise ValueError(
            f"sampling_rate must be {MIN_SAMPLING_RATE} to {MAX_SAMPLING_RATE} Hz, got {sampling_rate}"
        )
    offset, detune = _draws(scene)
    table = _noise_table()
    count = round(DURATION_SECONDS * sampling_rate)
    offset %= len(table) - count
    wave = table[offset : offset + count] * np.float32(NOISE_AMPLITUDE)
    for tone in scene.tones:
        start, end = (round(step * STEP_SECONDS * sampling_rate) for step in (tone.start, tone.end))
        times = np.arange(end - start, dtype=np.float32) / sampling_rate
        pitch = PITCH_HZ[scene.tone_shape(tone)] * detune
        wave[start:end] += (TONE_AMPLITUDE * np.sin(2 * np.pi * pitch * times)).astype(np.float32)
    return wave


def tone_pitch_hz(scene: Scene) -> float | None:
    """Return the pitch of the scene's (first drawn) tone, or None if it is silent."""
    if scene.tone is None:
        return None
    return PITCH_HZ[scene.tone_shape(scene.tone)] * _draws(scene)[1]


def _draws(scene: Scene) -> tuple[int, float]:
    """Return where in the noise table the scene's noise starts, and the tone's detuning factor.

    The offset's range is that of 16 kHz at every sampling rate, so the pitch never depends on the rate.
    """
    rng = np.random.default_rng(scene.noise_seed + 2)
    offset = int(rng.integers(0, _NOISE_SAMPLES - round(DURATION_SECONDS * 16_000)))
    return offset, float(rng.uniform(1 - DETUNE, 1 + DETUNE))


@lru_cache(maxsize=1)
def _noise_table() -> NDArray[np.float32]:
    """8 MB of white noise that all scenes cut their piece from."""
    return np.random.default_rng(7).standard_normal(_NOISE_SAMPLES).astype(np.float32)
