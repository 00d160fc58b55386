"""A thought that outlasts its budget is closed, and only such a one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from omni_sdk.config import GenerationConfig
from omni_sdk.errors import EngineError
from omni_sdk.grs.completion import CLOSE_THOUGHT, CompletionBuilder
from omni_sdk.grs.parser import awaits_answer, split_answer
from omni_sdk.grs.token_sampling import TokenSampler

PIECES = [
    "<end>",
    "<think>",
    "</think>",
    "<answer>",
    "a",
    "b",
    '[{"start_time":',
    "[]",
    "</answer>",
]
END, THINK, CLOSE, ANSWER, A, B, MOMENT, NONE, _ = range(9)


@pytest.fixture(scope="module")
def tokenizer():
    """Pieces that the closing text splits into, as a byte-pair vocabulary would."""
    vocabulary = [("<unk>", 0.0), *((piece, -1.0) for piece in PIECES)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, 0))
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def _run(tokenizer, chosen, budget, *, moments=True, limit=12):
    """Feed tokens (by place in PIECES) as a model that never sees what was forced."""
    row = CompletionBuilder(
        tokenizer, (END + 1,), (), limit, thinking_budget=budget, moments=moments
    )
    waiting = list(chosen)
    while waiting and not row.finish:
        forced = row.forced()
        row.add(waiting.pop(0) + 1 if forced is None else forced)
    return row.build(0.0, 0.0)


def test_an_endless_thought_is_closed_and_the_answer_follows(tokenizer):
    done = _run(tokenizer, [THINK, A, A, A, NONE, END], 4)
    assert done.text == "<think>aaa</think><answer>[]"
    assert (done.thinking_cut, done.finish) == (True, "eos")
    assert split_answer(done.text) == ("aaa", "[]")


@pytest.mark.parametrize(
    ("chosen", "moments"),
    [
        ([THINK, A, CLOSE, ANSWER, B, B, B, END], True),  # closed in time
        ([THINK, A, ANSWER, B, B, B, B, END], True),  # closed in another way
        ([MOMENT, A, A, A, A, A, END], True),  # an answer without tags has begun
        ([A, A, A, A, A, A, END], False),  # plain words may be the answer
        ([THINK, A, END], True),  # ended before
    ],
)
def test_what_is_left_alone(tokenizer, chosen, moments):
    done = _run(tokenizer, chosen, 4, moments=moments)
    assert not done.thinking_cut
    assert done.token_ids.tolist() == [c + 1 for c in chosen[:-1]]


def test_text_without_tags_where_moments_are_due(tokenizer):
    done = _run(tokenizer, [A, A, A, A, NONE, END], 2)
    assert done.text == "aa</think><answer>aa[]"
    assert done.thinking_cut
    assert _run(tokenizer, [A] * 3, 0).text.startswith(CLOSE_THOUGHT)


@given(st.lists(st.integers(1, 8), max_size=20), st.integers(0, 14), st.booleans())
@settings(deadline=None, max_examples=100)
def test_never_more_tokens_than_allowed_and_no_thought_stays_open(chosen, budget, moments):
    vocabulary = [("<unk>", 0.0), *((piece, -1.0) for piece in PIECES)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, 0))
    tokenizer.decoder = decoders.Fuse()
    done = _run(tokenizer, [*chosen, END], budget, moments=moments)
    assert len(done.token_ids) <= 12
    ids = done.token_ids.tolist()
    open_at = [
        n
        for n in range(budget, len(ids))
        if awaits_answer(tokenizer.decode(ids[:n]), moments=moments)
    ]
    assert [ids[n] for n in open_at] == [CLOSE + 1] * len(open_at)
    free = _run(tokenizer, [*chosen, END], None, moments=moments)
    assert not free.thinking_cut
    if not done.thinking_cut:
        assert done.token_ids.tolist() == free.token_ids.tolist()
    else:
        assert CLOSE_THOUGHT in done.text or done.finish == "length"


def test_a_list_is_begun_after_a_cut(tokenizer):
    """The model chooses how the answer begins, once, and only where moments are asked for."""
    row = CompletionBuilder(tokenizer, (END + 1,), (), 20, thinking_budget=1, moments=True)
    assert row.allowed() is None
    row.add(THINK + 1)
    for piece in (CLOSE, ANSWER):
        assert row.forced() == piece + 1
        row.add(piece + 1)
    assert row.forced() is None
    assert sorted(row.allowed()) == [MOMENT + 1, NONE + 1]
    assert row.allowed() is None
    words = CompletionBuilder(tokenizer, (END + 1,), (), 20, thinking_budget=1)
    words.add(THINK + 1)
    while (token := words.forced()) is not None:
        words.add(token)
    assert words.allowed() is None


def test_choosing_among_allowed_tokens():
    logits = np.array([5.0, 1.0, 9.0, 3.0, 4.0], np.float32)
    greedy = TokenSampler(GenerationConfig(), suppress=[4])
    assert greedy(logits) == 2
    assert greedy(logits, [0, 1, 3]) == 0
    assert greedy(logits, [3, 4]) == 3
    drawn = TokenSampler(GenerationConfig(temperature=5.0, seed=1), suppress=[])
    assert {drawn(logits, [1, 3]) for _ in range(50)} == {1, 3}
    with pytest.raises(EngineError, match="not finite"):
        greedy(logits, [4])


def test_bad_budget():
    with pytest.raises(ValueError, match="thinking_budget"):
        GenerationConfig(thinking_budget=-1)
