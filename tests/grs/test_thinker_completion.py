import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models

from omni_sdk.grs.completion import CompletionBuilder

PIECES = ["<end>", "<media>", "ab", "c", "</", "answer", ">", " ", "d"]


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = Tokenizer(models.WordLevel({p: i for i, p in enumerate(PIECES)}, unk_token="d"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(p, special=True) for p in PIECES[:2]])
    return tokenizer


def run(tokenizer, ids, *, stop=(), limit=100):
    builder = CompletionBuilder(tokenizer, (0,), stop, limit)
    ended = [builder.add(token) for token in ids]
    assert builder.add(3) == (bool(ended) and ended[-1])  # ended rows ignore more
    done = builder.build(1.0, 2.0)
    return done.token_ids.tolist(), done.text, done.finish


def test_end_token_is_left_out(tokenizer):
    assert run(tokenizer, [2, 3, 0, 8]) == ([2, 3], "abc", "eos")
    assert run(tokenizer, [0]) == ([], "", "eos")


def test_length(tokenizer):
    assert run(tokenizer, [2, 3, 8, 8], limit=3) == ([2, 3, 8], "abcd", "length")


def test_special_tokens_stay_out_of_the_text(tokenizer):
    assert run(tokenizer, [2, 1, 3, 0]) == ([2, 1, 3], "abc", "eos")


def test_stop_text_over_several_tokens(tokenizer):
    ids, text, finish = run(tokenizer, [2, 3, 4, 5, 6, 8], stop=("</answer>",))
    assert (ids, text, finish) == ([2, 3], "abc", "stop")


def test_stop_text_inside_a_token(tokenizer):
    assert run(tokenizer, [3, 2, 3], stop=("b",)) == ([3], "ca", "stop")
    assert run(tokenizer, [2], stop=("a",)) == ([], "", "stop")


def test_earliest_of_several_stops_wins(tokenizer):
    assert run(tokenizer, [3, 8, 2], stop=("dab", "cd"))[1:] == ("", "stop")


@given(
    st.lists(st.integers(1, 8), min_size=1, max_size=20),
    st.text("abcd</> ", min_size=1, max_size=4),
)
@settings(deadline=None, max_examples=80)
def test_text_never_holds_a_stop(ids, stop):
    tokenizer = Tokenizer(models.WordLevel({p: i for i, p in enumerate(PIECES)}, unk_token="d"))
    tokenizer.decoder = decoders.Fuse()
    builder = CompletionBuilder(tokenizer, (0,), (stop,), 100)
    for token in ids:
        builder.add(token)
    done = builder.build(0, 0)
    whole = tokenizer.decode(ids)
    assert stop not in done.text
    assert done.text == (whole[: whole.find(stop)] if stop in whole else whole)
    assert done.text.startswith(tokenizer.decode(done.token_ids.tolist()))
    assert done.token_ids.tolist() == ids[: len(done.token_ids)]
