"""What the model is trained on is what it is shown at inference, and the fast forward is transformers'."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from omni_training.nano.thinker.learner import Learner
from omni_training.nano.thinker.packing import IGNORE, pack_rows
from omni_training.nano.thinker.pictures import frames
from omni_training.nano.thinker.task import ThinkerTask
from omni_training.nano.thinker.vocabulary import UNKNOWN, build_tokenizer
from tokenizers import Tokenizer

from omni_sdk.demo import texts
from omni_sdk.demo.scene import draw_scene, make_scene
from omni_sdk.hf.thinker import HfThinker


@pytest.fixture(scope="module")
def task(thinker_config: Any, tmp_path_factory: pytest.TempPathFactory) -> ThinkerTask:
    return ThinkerTask(thinker_config, tmp_path_factory.mktemp("untrained"))


@pytest.fixture(scope="module")
def learner(task: ThinkerTask) -> Learner:
    return task.module.eval()


@pytest.fixture(scope="module")
def tokenizer(thinker_config: Any) -> Tokenizer:
    return build_tokenizer(thinker_config.sizes.image_pixels)


def hf_states(learner: Any, tokenizer: Any, requests: list[Any]) -> torch.Tensor:
    """Return transformers' own last states of prompts of equal length."""
    processor = learner.maker.processor
    inputs = HfThinker(learner.thinker, processor.spec, tokenizer).inputs(requests)
    with torch.no_grad():
        out = learner.thinker.model(**inputs)
    return out.last_hidden_state


def test_reasoner_rows_equal_transformers(learner: Any, tokenizer: Any) -> None:
    scenes = [make_scene(i, "sound") for i in (1, 2, 3)]
    batch = learner.maker.reasoner_rows(scenes, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    requests = [
        learner.maker.processor.reason_request(learner.maker.observation(s, rng), s.query)
        for s in scenes
    ]
    expected = hf_states(learner, tokenizer, requests)
    with torch.no_grad():
        found = learner.states(batch)[0][:, : expected.shape[1]]
    assert torch.allclose(found, expected, atol=3e-5)


def test_packed_descriptions_equal_transformers_on_each_alone(learner: Any, tokenizer: Any) -> None:
    """Every description of a packed row gets the states it has in a row of its own."""
    maker = learner.maker
    rng = np.random.default_rng(8)
    scene, step = make_scene(4, "direct"), 9
    asked = maker.descriptions(rng, scene, step, 4, 0.7)
    patches: list[Any] = []
    row = maker._grounder_row(scene, step, asked, np.random.default_rng(1), patches)
    batch = pack_rows([row], packed=True, patches=torch.from_numpy(patches[0]))
    with torch.no_grad():
        states = learner.states(batch)[0][0]
    image = frames(scene, [step], 112, np.random.default_rng(1))[0]
    starts = np.flatnonzero(np.diff(row.segments, prepend=-1))
    for start, (name, _) in zip(starts[1:], asked, strict=True):
        request, _ = maker.processor.ground_request(image, texts.describe(name))
        expected = hf_states(learner, tokenizer, [request])[0]
        own = len(request.input_ids) - starts[1]
        assert torch.allclose(states[start : start + own], expected[-own:], atol=3e-5)


def test_targets_spell_the_true_completion(learner: Any, tokenizer: Any) -> None:
    scenes = [make_scene(i) for i in range(30)]
    batch = learner.maker.reasoner_rows(scenes, np.random.default_rng(5))
    for row, scene in enumerate(scenes):
        wanted = batch.targets[row][batch.targets[row] != IGNORE].tolist()
        assert tokenizer.decode(wanted[:-1], skip_special_tokens=False) == texts.grs_answer(scene)
        unknown = tokenizer.token_to_id(UNKNOWN)
        assert unknown not in learner.maker.encode(scene.query)
        assert len(wanted) <= learner.maker.processor.spec.prompts.max_new_tokens


def test_words_alone_teach_neither_percepts_nor_the_drilled_question(
    learner: Any, tokenizer: Any
) -> None:
    batch = learner.maker.words(np.random.default_rng(2), 20, 3)
    target = tokenizer.token_to_id(" target")
    for row in range(20):
        ids, targets = batch.ids[row], batch.targets[row]
        taught = tokenizer.decode(targets[targets != IGNORE].tolist(), skip_special_tokens=False)
        assert taught.startswith(" last ")
        count = int((ids == target).sum())
        assert count == (1 if row % 2 else 4)
        assert int((targets == target).sum()) == 1
        wanted = targets[:-1]
        assert bool(((wanted == IGNORE) | (wanted == ids[1:])).all())


def test_absent_descriptions_match_half(learner: Any) -> None:
    maker, rng = learner.maker, np.random.default_rng(6)
    half = absent = 0
    for number in range(150):
        scene, step = draw_scene(rng), number % 16
        seen = [o for o in scene.objects if o.visible(step / 2)]
        names = {o.name for o in seen}
        asked = maker.descriptions(rng, scene, step, 5, 0.7)
        assert len({name for name, _ in asked}) == 5
        for name, box in asked:
            color, shape = name.split()
            if box is None:
                assert name not in names
                absent += 1
                half += any(o.color == color or o.shape == shape for o in seen)
            else:
                assert name in names
                assert 0 <= box[0] < box[2] <= 112
                assert 0 <= box[1] < box[3] <= 112
    assert half / absent > 0.6


def test_half_of_the_patch_filters_see_just_change(learner: Any) -> None:
    """A pair of equal frames leaves them silent, whatever it shows."""
    filters = learner.thinker.model.visual.patch_embed.proj.weight
    half = len(filters) // 2
    still = torch.rand(3, 1, 8, 8).expand(3, 2, 8, 8)
    responses = (filters * still).sum((1, 2, 3, 4))
    assert responses[half:].abs().max() < 1e-5
    assert responses[:half].abs().max() > 0.1


@pytest.mark.parametrize("side", [144, 157, 350, 384, 720])
def test_square_sources_of_any_size_are_seen_at_the_size_of_training(
    learner: Any, side: int
) -> None:
    assert learner.maker.processor.image_size(side, side) == (112, 112)
    assert learner.maker.processor.frame_size(side, side) == (48, 48)
