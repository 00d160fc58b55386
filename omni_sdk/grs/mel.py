"""Sound -> log-mel frames -> chunks of the audio graph (numpy only).

Upstream: WhisperFeatureExtractor (the transform), Qwen2_5OmniAudioEncoder (chunks and token counts).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omni_sdk.errors import MediaError

if TYPE_CHECKING:
    from omni_sdk.bundle.manifest import AudioSpec

TOP_HZ = 8000.0
"""Upper edge of the mel bands; fixed in WhisperFeatureExtractor whatever the sampling rate."""
_POWER_FLOOR = 1e-10
_FRAMES_PER_BLOCK = 2048


def num_mel_frames(num_samples: int, spec: AudioSpec) -> int:
    """Return how many mel frames stand for a sound: its samples / hop, rounded up, and capped."""
    samples = min(num_samples, _max_samples(spec))
    return min(-(-samples // spec.hop_length), _chunk_samples(spec) // spec.hop_length)


def num_audio_tokens(num_frames: int) -> int:
    """Return how many tokens stand for this many mel frames: two poolings by 2; 0 below 3 frames."""
    return ((num_frames - 1) // 2 + 1 - 2) // 2 + 1


def log_mel(samples: NDArray[np.float32], spec: AudioSpec) -> NDArray[np.float32]:
    """Return the log-mel spectrogram of a sound.

    As WhisperFeatureExtractor with padding to `chunk_seconds`: zeros follow the sound, the padded signal
    is mirrored at its true ends, the spectrum is clipped to 8 decades below its maximum. Frames that see
    only padding are never computed: they are silent, so they cannot be that maximum.

    Args:
        samples: (N,) float32 mono at `spec.sampling_rate`; what exceeds `max_seconds` or `chunk_seconds`
            is cut.
        spec: the transform.

    Returns:
        (num_mel_bins, L) float32 with L = `num_mel_frames(N, spec)`.

    Raises:
        ValueError: not one-dimensional.
        MediaError: a sample is NaN or infinite.
    """
    if samples.ndim != 1:
        raise ValueError(f"expected (N,) mono samples, got shape {samples.shape}")
    samples = samples[: _max_samples(spec)]
    if not np.isfinite(samples).all():
        raise MediaError("the sound holds NaN or infinite samples; decode or convert it again")
    num_frames = num_mel_frames(len(samples), spec)
    if num_frames == 0:
        return np.zeros((spec.num_mel_bins, 0), np.float32)
    signal, num_computed = _padded(samples, spec)
    windows = np.lib.stride_tricks.sliding_window_view(signal, spec.n_fft)[:: spec.hop_length]
    filters = mel_filters(spec.n_fft, spec.num_mel_bins, spec.sampling_rate)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(spec.n_fft) / spec.n_fft)  # periodic Hann
    log = np.empty((spec.num_mel_bins, num_computed))
    for start in range(0, num_computed, _FRAMES_PER_BLOCK):
        block = windows[start : min(start + _FRAMES_PER_BLOCK, num_computed)]
        spectrum = np.fft.rfft(block * window)
        power = spectrum.real**2 + spectrum.imag**2
        log[:, start : start + len(block)] = (power @ filters).T
    log = np.log10(np.maximum(log, _POWER_FLOOR))
    # The maximum is taken over all computed frames: those just past the end still see its last samples.
    log = np.maximum(log[:, :num_frames], log.max() - 8.0)
    return np.ascontiguousarray((log + 4.0) / 4.0, dtype=np.float32)


def chunk_mel(
    mels: Sequence[NDArray[np.float32]], n_window: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], list[int]]:
    """Cut spectrograms into the audio graph's chunks; a chunk never holds two sounds.

    Args:
        mels: for each sound (M, L) float32, L >= 1; at least one sound.
        n_window: half of a chunk's mel frames.

    Returns:
        (nC, M, 2 * n_window) float32 chunks, padded with zeros; (nC,) int64 real frames of each; and the
        number of tokens of each sound. Sound s owns the next ceil(L_s / (2 * n_window)) chunks; their
        embeddings (n_window / 2 rows each), joined and cut to its tokens, stand for it.

    Raises:
        ValueError: no sound, or one without frames.
    """
    if not mels or any(mel.shape[1] == 0 for mel in mels):
        raise ValueError("expected at least one sound, each with at least one mel frame")
    size = 2 * n_window
    counts = [-(-mel.shape[1] // size) for mel in mels]
    chunks = np.zeros((sum(counts), mels[0].shape[0], size), np.float32)
    lengths = np.full(len(chunks), size, np.int64)
    first = 0
    for mel, count in zip(mels, counts, strict=True):
        for i in range(count):
            part = mel[:, i * size : (i + 1) * size]
            chunks[first + i, :, : part.shape[1]] = part
        lengths[first + count - 1] = mel.shape[1] - (count - 1) * size
        first += count
    return chunks, lengths, [num_audio_tokens(mel.shape[1]) for mel in mels]


@functools.lru_cache(maxsize=4)
def mel_filters(n_fft: int, num_mel_bins: int, sampling_rate: int) -> NDArray[np.float64]:
    """Return triangular filters from 0 to 8 kHz, (n_fft // 2 + 1, num_mel_bins) float64, read-only.

    Slaney's scale (linear below 1 kHz, logarithmic above) and area normalisation, as in his Auditory
    Toolbox and librosa.
    """
    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(TOP_HZ), num_mel_bins + 2))
    bins = np.linspace(0.0, sampling_rate // 2, n_fft // 2 + 1)
    rising = (bins[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - bins[:, None]) / np.diff(edges)[1:]
    filters = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))
    filters.flags.writeable = False
    return filters


_LOG_STEP = np.log(6.4) / 27.0  # Slaney: 27 bands from 1 kHz to 6.4 kHz
_LINEAR_MELS = 15.0  # 1 kHz, at 3 mel per 200 Hz


def _hz_to_mel(hz: float) -> float:
    if hz < 1000.0:
        return hz * 3.0 / 200.0
    return _LINEAR_MELS + float(np.log(hz / 1000.0) / _LOG_STEP)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = mel * 200.0 / 3.0
    return np.where(mel < _LINEAR_MELS, linear, 1000.0 * np.exp(_LOG_STEP * (mel - _LINEAR_MELS)))


def _chunk_samples(spec: AudioSpec) -> int:
    return spec.chunk_seconds * spec.sampling_rate


def _max_samples(spec: AudioSpec) -> int:
    return min(_chunk_samples(spec), int(spec.max_seconds * spec.sampling_rate))


def _padded(samples: NDArray[np.float32], spec: AudioSpec) -> tuple[NDArray[np.float64], int]:
    """Return the padded signal as far as it matters, and the number of frames that see the sound."""
    half, total = spec.n_fft // 2, _chunk_samples(spec)
    # Frame t is centred on sample t * hop; the first one that sees only padding starts at the end.
    seeing = -(-(len(samples) + half) // spec.hop_length)
    num_frames = min(seeing, total // spec.hop_length)
    # One more half window behind the last centre, plus what a mirror at the end would reach back for.
    length = min(total, len(samples) + spec.n_fft + spec.hop_length)
    signal = np.zeros(length)
    signal[: len(samples)] = samples
    return np.pad(signal, half, mode="reflect"), num_frames
