import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_sdk.config import GenerationConfig
from omni_sdk.errors import EngineError
from omni_sdk.grs.token_sampling import TokenSampler

LOGITS = st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=40).map(
    lambda values: np.array(values, np.float32)
)


@given(LOGITS, st.sets(st.integers(0, 1)))
@settings(deadline=None, max_examples=60)
def test_greedy_is_the_first_best_allowed(logits, suppress):
    allowed = [i for i in range(len(logits)) if i not in suppress]
    best = max(allowed, key=lambda i: (logits[i], -i))
    assert TokenSampler(GenerationConfig(), sorted(suppress))(logits) == best


@given(LOGITS, st.floats(0.05, 5), st.floats(0.01, 1), st.integers(0, 2**40))
@settings(deadline=None, max_examples=100)
def test_choice_lies_in_the_nucleus(logits, temperature, top_p, seed):
    scaled = logits.astype(np.float64) / temperature
    p = np.exp(scaled - scaled.max())
    p /= p.sum()
    sampler = TokenSampler(GenerationConfig(temperature=temperature, top_p=top_p, seed=seed), ())
    for _ in range(5):
        chosen = sampler(logits)
        # In the nucleus: the tokens more likely than it have not yet gathered the mass.
        assert p[p > p[chosen]].sum() < top_p + 1e-9


def test_frequencies_are_the_probabilities():
    p = np.array([0.5, 0.25, 0.15, 0.1])
    for top_p, expected in (
        (1.0, p),
        (0.75, [2 / 3, 1 / 3, 0, 0]),
        (0.8, np.array([0.5, 0.25, 0.15, 0]) / 0.9),
    ):
        sampler = TokenSampler(GenerationConfig(temperature=1.0, top_p=top_p, seed=1), ())
        counts = np.bincount(
            [sampler(np.log(p).astype(np.float32)) for _ in range(8000)], minlength=4
        )
        np.testing.assert_allclose(counts / 8000, expected, atol=0.02)


def test_temperature_scales_logits():
    sampler = TokenSampler(GenerationConfig(temperature=2.0), ())
    logits = np.log(np.array([0.8, 0.2], np.float32))
    share = np.mean([sampler(logits) for _ in range(8000)])
    assert share == pytest.approx(0.2**0.5 / (0.2**0.5 + 0.8**0.5), abs=0.02)


def test_suppressed_tokens_are_never_drawn():
    sampler = TokenSampler(GenerationConfig(temperature=10.0, seed=-3), (1, 2))
    assert {sampler(np.zeros(4, np.float32)) for _ in range(200)} == {0, 3}


def test_seed_decides():
    def draw(seed):
        sampler = TokenSampler(GenerationConfig(temperature=1.0, seed=seed), ())
        return [sampler(np.zeros(50, np.float32)) for _ in range(20)]

    assert draw(5) == draw(5) != draw(6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_logits_are_an_error(bad, temperature):
    logits = np.array([0.0, bad, 1.0], np.float32)
    with pytest.raises(EngineError, match="not finite"):
        TokenSampler(GenerationConfig(temperature=temperature), ())(logits)
    assert TokenSampler(GenerationConfig(temperature=temperature, top_p=0.1), (1,))(logits) == 2
