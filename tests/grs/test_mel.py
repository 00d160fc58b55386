"""log-mel and its chunks against transformers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor
from transformers.audio_utils import mel_filter_bank
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import chunk_and_pad_features

from omni_sdk.errors import MediaError
from omni_sdk.grs.mel import chunk_mel, log_mel, mel_filters, num_audio_tokens, num_mel_frames

TOLERANCE = 1e-5
"""The extractor's float32 transform errs by up to 9e-6 on noise and on real recordings (ours is float64)."""


def extractor(spec, *, seconds: int | None = None) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(
        feature_size=spec.num_mel_bins,
        sampling_rate=spec.sampling_rate,
        hop_length=spec.hop_length,
        chunk_length=seconds or spec.chunk_seconds,
        n_fft=spec.n_fft,
        return_attention_mask=True,
    )


def upstream(oracle: WhisperFeatureExtractor, samples: np.ndarray) -> np.ndarray:
    out = oracle(samples, sampling_rate=16000, return_tensors="np", return_attention_mask=True)
    return out["input_features"][0][:, out["attention_mask"][0].astype(bool)]


def sound(num_samples: int, seed: int = 0) -> np.ndarray:
    """A gliding tone with noise and pauses."""
    rng = np.random.default_rng(seed)
    t = np.arange(num_samples) / 16000
    tone = 0.1 * np.sin(2 * np.pi * (200 + 300 * t) * t) * (np.sin(3 * t) > -0.5)
    return (tone + 0.05 * rng.standard_normal(num_samples)).astype(np.float32)


@pytest.mark.parametrize("num_samples", [480, 4001, 16000, 16160, 30 * 16000 + 77])
def test_log_mel_of_the_real_setting(audio_spec, num_samples):
    samples = sound(num_samples)
    expected = upstream(extractor(audio_spec), samples)
    mel = log_mel(samples, audio_spec)
    assert mel.shape == expected.shape == (128, num_mel_frames(num_samples, audio_spec))
    assert mel.dtype == np.float32
    np.testing.assert_allclose(mel, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("num_samples", [1500, 12345, 126000, 127000, 127999, 128000, 150000])
def test_log_mel_of_the_nano_setting(nano_audio_spec, num_samples):
    samples = sound(num_samples, seed=1)
    expected = upstream(extractor(nano_audio_spec), samples)
    mel = log_mel(samples, nano_audio_spec)
    assert mel.shape == expected.shape
    np.testing.assert_allclose(mel, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("num_samples", [47000, 47900, 48000, 50000])
def test_the_padded_signal_is_mirrored_at_its_true_end(audio_spec, num_samples):
    spec = replace(audio_spec, chunk_seconds=3)
    samples = sound(num_samples, seed=2)
    expected = upstream(extractor(spec), samples)
    np.testing.assert_allclose(log_mel(samples, spec), expected, rtol=0, atol=TOLERANCE)


def test_a_hop_that_does_not_divide_the_chunk(audio_spec):
    spec = replace(audio_spec, chunk_seconds=1, hop_length=300)
    for num_samples in (15000, 15999, 16000):
        samples = sound(num_samples)
        expected = upstream(extractor(spec), samples)
        np.testing.assert_allclose(log_mel(samples, spec), expected, rtol=0, atol=TOLERANCE)


def test_the_maximum_counts_frames_past_the_end(audio_spec):
    """A click on the last sample is loudest in a frame that the mask drops."""
    samples = 1e-6 * sound(3200)
    samples[-1] = 1.0
    expected = upstream(extractor(audio_spec), samples)
    mel = log_mel(samples, audio_spec)
    np.testing.assert_allclose(mel, expected, rtol=0, atol=TOLERANCE)
    alone = log_mel(samples[:-1], audio_spec)
    assert np.abs(mel[:, :-2] - alone[:, : mel.shape[1] - 2]).max() > 0.1


@pytest.mark.parametrize("loudness", [0.5, 1e-3])
def test_pure_tones_against_the_float64_path(audio_spec, loudness):
    """torch's float32 transform leaves up to 1e-4 of its own noise far below a pure tone."""
    spec = replace(audio_spec, chunk_seconds=4)
    t = np.arange(32000) / 16000
    samples = (loudness * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    padded = np.pad(samples, (0, 32000))
    expected = extractor(spec)._np_extract_fbank_features(padded[None], "cpu")[0][:, :200]
    np.testing.assert_allclose(log_mel(samples, spec), expected, rtol=0, atol=1e-6)


def test_silence(audio_spec):
    mel = log_mel(np.zeros(8000, np.float32), audio_spec)
    assert mel.shape == (128, 50)
    assert np.all(mel == np.float32(-1.5))


def test_long_sounds_are_cut(audio_spec):
    spec = replace(audio_spec, max_seconds=1.5)
    samples = sound(40000)
    assert np.array_equal(log_mel(samples, spec), log_mel(samples[:24000], spec))


def test_blocks_do_not_show(audio_spec, monkeypatch):
    samples = sound(16000)
    whole = log_mel(samples, audio_spec)
    monkeypatch.setattr("omni_sdk.grs.mel._FRAMES_PER_BLOCK", 7)
    np.testing.assert_allclose(log_mel(samples, audio_spec), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("n_fft", "bins", "rate"), [(400, 128, 16000), (2048, 32, 16000)])
def test_filters_equal_upstream(n_fft, bins, rate):
    expected = mel_filter_bank(n_fft // 2 + 1, bins, 0.0, 8000.0, rate, "slaney", "slaney")
    np.testing.assert_allclose(mel_filters(n_fft, bins, rate), expected, rtol=0, atol=1e-12)


def test_unusable_samples(audio_spec):
    with pytest.raises(MediaError, match="NaN"):
        log_mel(np.array([0.0, np.nan] * 400, np.float32), audio_spec)
    with pytest.raises(ValueError, match="mono"):
        log_mel(np.zeros((2, 100), np.float32), audio_spec)
    assert log_mel(np.zeros(0, np.float32), audio_spec).shape == (128, 0)


def test_chunks_equal_upstream():
    rng = np.random.default_rng(0)
    lengths = [777, 200, 3, 401]
    mels = [rng.standard_normal((128, n)).astype(np.float32) for n in lengths]
    chunks, sizes, tokens = chunk_mel(mels, 100)
    padded, expected = chunk_and_pad_features(
        torch.from_numpy(np.concatenate(mels, 1)), torch.tensor(lengths), 100
    )
    assert chunks.shape == (9, 128, 200)
    assert np.array_equal(chunks, padded.numpy())
    assert np.array_equal(sizes, expected.numpy())
    assert sizes.dtype == np.int64
    assert tokens == [num_audio_tokens(n) for n in lengths] == [194, 50, 1, 100]


def test_number_of_tokens():
    assert [num_audio_tokens(n) for n in (0, 1, 2, 3, 4, 64, 200, 1000)] == [
        0, 0, 0, 1, 1, 16, 50, 250,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="at least one"):
        chunk_mel([np.zeros((128, 0), np.float32)], 100)
