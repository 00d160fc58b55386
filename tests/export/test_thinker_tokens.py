"""The graphs give transformers' tokens."""

import dataclasses

import numpy as np
import pytest
import torch
from omni_export.samples import Sample, make_request
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from omni_sdk.config import GenerationConfig
from omni_sdk.errors import QueryError
from omni_sdk.grs.thinker import GraphThinker

STEPS = 64
RAGGED = (3, 10, 6)  # neither side is a whole number of windows of 8 patches
CASES = {
    "video": [Sample(video=RAGGED, seed=1)],
    "audio in video": [Sample(video=(4, 8, 10), audio_frames=733, audio_in_video=True, seed=2)],
    "video and separate sound": [Sample(video=RAGGED, audio_frames=333, seed=3)],
    "no media": [Sample(text=40, seed=4)],
    "sound only": [Sample(audio_frames=401, seed=5)],
    "long prompt": [
        Sample(text=900, video=(6, 12, 16), audio_frames=900, audio_in_video=True, seed=6)
    ],
    "batch of two, left-padded": [
        Sample(text=7, video=(2, 8, 8), audio_frames=150, audio_in_video=True, seed=7),
        Sample(text=31, video=(4, 10, 6), audio_frames=777, audio_in_video=True, seed=8),
    ],
    "image only": [Sample(image=(1, 18, 20), seed=9)],
    "batch of image, text and video": [
        Sample(image=(1, 6, 4), seed=10),
        Sample(text=5, seed=11),
        Sample(video=(2, 4, 6), image=(1, 4, 4), seed=12),
    ],
}


def _config(**options):
    return GenerationConfig(max_new_tokens=options.pop("max_new_tokens", STEPS), **options)


@pytest.mark.parametrize("name", CASES)
def test_tokens_equal_transformers(name, graphs, reference):
    requests = [make_request(graphs.spec, sample) for sample in CASES[name]]
    found = graphs.generate(requests, _config())
    expected = reference.generate(requests, _config())
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours.token_ids) == STEPS
        # A model that repeats itself would prove little.
        assert len(set(ours.token_ids.tolist())) > 10
        np.testing.assert_array_equal(ours.token_ids, theirs.token_ids)
        assert (ours.text, ours.finish) == (theirs.text, theirs.finish) == (theirs.text, "length")


def test_reference_is_plain_generate(thinker_checkpoint, reference):
    """Our way of loading and calling transformers changes nothing: its own way gives the same."""
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        thinker_checkpoint, dtype=torch.float32
    )
    theirs, ours = model.state_dict(), reference.model.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    request = make_request(reference.spec, CASES["audio in video"][0])
    vision = request.vision[0]
    out = model.generate(
        input_ids=torch.from_numpy(request.input_ids)[None],
        attention_mask=torch.ones(1, len(request.input_ids), dtype=torch.int64),
        pixel_values_videos=torch.from_numpy(vision.pixel_values),
        video_grid_thw=torch.tensor([vision.grid_thw]),
        video_second_per_grid=torch.tensor([vision.seconds_per_grid]),
        input_features=torch.from_numpy(request.mel[0])[None],
        feature_attention_mask=torch.ones(1, request.mel[0].shape[1], dtype=torch.int64),
        use_audio_in_video=True,
        suppress_tokens=list(reference.spec.tokens.suppress),
        max_new_tokens=STEPS,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=256,
    )
    tokens = out[0, len(request.input_ids) :].numpy()
    np.testing.assert_array_equal(tokens, reference.generate([request], _config())[0].token_ids)


def test_same_request_same_answer_and_batch_gives_each_rows_own(graphs):
    cases = [case for name, case in CASES.items() if name != "long prompt"]
    requests = [make_request(graphs.spec, s) for case in cases for s in case]
    once = graphs.generate(requests, _config(max_new_tokens=24))
    again = graphs.generate(requests, _config(max_new_tokens=24))
    alone = [graphs.generate([r], _config(max_new_tokens=24))[0] for r in requests]
    for a, b, c in zip(once, again, alone, strict=True):
        np.testing.assert_array_equal(a.token_ids, b.token_ids)
        np.testing.assert_array_equal(a.token_ids, c.token_ids)


def test_sampled_tokens_equal_torchs_and_follow_the_seed(graphs, reference):
    requests = [make_request(graphs.spec, s) for s in CASES["batch of two, left-padded"]]
    texts = set()
    for seed in (0, 1):
        config = _config(temperature=0.9, top_p=0.8, seed=seed, max_new_tokens=32)
        ours, theirs = graphs.generate(requests, config), reference.generate(requests, config)
        assert [c.token_ids.tolist() for c in ours] == [c.token_ids.tolist() for c in theirs]
        alone = graphs.generate(requests[1:], config)
        assert alone[0].token_ids.tolist() == ours[1].token_ids.tolist()
        texts.add(tuple(ours[0].token_ids))
    assert len(texts) == 2


def test_encoding_in_pieces_changes_nothing(graphs, endless, loader):
    request = make_request(graphs.spec, CASES["long prompt"][0])
    small = GraphThinker(loader, endless, max_patches=200, max_chunks=1)
    whole = graphs._prompt([request])["inputs_embeds"]
    pieces = small._prompt([request])["inputs_embeds"]
    np.testing.assert_allclose(pieces, whole, atol=1e-5)
    assert len(list(small._vision_calls(request.vision))) == 6
    mixed = [
        v for s in CASES.values() for sample in s for v in make_request(graphs.spec, sample).vision
    ]
    for limit in (1, 130, 500):
        thinker = GraphThinker(loader, endless, max_patches=limit)
        calls = list(thinker._vision_calls(mixed))
        np.testing.assert_array_equal(
            np.concatenate([pixels for _, pixels in calls]),
            np.concatenate([v.pixel_values for v in mixed]),
        )
        assert all(len(p) <= limit or g == [(1, *g[0][1:])] for g, p in calls)


def test_rows_end_on_their_own(bundle, loader, graphs, reference):
    """An end token or a stop text ends its row; the others go on as if alone."""
    requests = [make_request(graphs.spec, s) for s in CASES["batch of two, left-padded"]]
    free = graphs.generate(requests, _config())
    ids = [c.token_ids.tolist() for c in free]
    only_first = [t for t in ids[0] if t not in ids[1] and ids[0].index(t) >= 5]
    end = only_first[0]
    tokens = dataclasses.replace(graphs.spec.tokens, eos=(end,))
    spec = dataclasses.replace(graphs.spec, tokens=tokens)
    thinker = GraphThinker(loader, bundle)
    thinker.spec = spec
    found = thinker.generate(requests, _config())
    at = ids[0].index(end)
    assert (found[0].finish, found[0].token_ids.tolist()) == ("eos", ids[0][:at])
    assert (found[1].finish, found[1].token_ids.tolist()) == ("length", ids[1])

    text = free[1].text
    start = next(
        i for i in range(20, 50) if text.find(text[i : i + 2]) == i and text[i : i + 2].isascii()
    )
    stop = text[start : start + 2]
    for thinker in (graphs, reference):
        stopped = thinker.generate(requests, _config(stop=(stop, "never written")))
        assert (stopped[1].finish, stopped[1].text) == ("stop", text[:start])
        assert stopped[1].token_ids.tolist() == ids[1][: len(stopped[1].token_ids)]
        assert len(stopped[1].token_ids) < STEPS


def test_suppressed_tokens_never_come(graphs):
    request = make_request(graphs.spec, CASES["video"][0])
    config = _config(temperature=50.0, max_new_tokens=300)  # nearly uniform
    tokens = set(graphs.generate([request], config)[0].token_ids.tolist())
    assert len(tokens) > 100
    assert not tokens & set(graphs.spec.tokens.suppress)


def test_too_long_prompts_are_refused(graphs, reference):
    request = make_request(graphs.spec, Sample(text=2000))
    for thinker in (graphs, reference):
        with pytest.raises(QueryError, match="2048"):
            thinker.generate([request], _config(max_new_tokens=49))
    assert graphs.generate([], _config()) == []
    far = dataclasses.replace(
        make_request(graphs.spec, Sample(text=4)), position_ids=np.full((3, 4), 2000)
    )
    with pytest.raises(QueryError, match="positions"):
        graphs.generate([far], _config(max_new_tokens=48))


def test_malformed_requests_are_refused(graphs):
    request = make_request(graphs.spec, CASES["video"][0])
    with pytest.raises(ValueError, match="video placeholders"):
        graphs.generate([dataclasses.replace(request, vision=())], _config())
    with pytest.raises(ValueError, match="position_ids"):
        graphs.generate(
            [dataclasses.replace(request, position_ids=request.position_ids[:, 1:])], _config()
        )
    with pytest.raises(ValueError, match="max_new_tokens"):
        graphs.generate([request], GenerationConfig())


def test_a_forced_answer_is_the_same_in_transformers(graphs, reference):
    """Rows whose thought is closed and a row that is left alone, in one batch."""
    requests = [make_request(graphs.spec, s) for s in CASES["batch of two, left-padded"]]
    requests[0] = dataclasses.replace(requests[0], moments=True)
    free = graphs.generate(requests, _config())
    config = _config(thinking_budget=20)
    ours, theirs = graphs.generate(requests, config), reference.generate(requests, config)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.token_ids, b.token_ids)
        assert a.text == b.text
    assert [c.thinking_cut for c in ours] == [c.thinking_cut for c in theirs] == [True, False]
    assert "</think><answer>" in ours[0].text
    np.testing.assert_array_equal(ours[0].token_ids[:20], free[0].token_ids[:20])
    np.testing.assert_array_equal(ours[1].token_ids, free[1].token_ids)
