"""A tiny nano training: the real class and all stages at a few thousand parameters."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def tiny_config() -> Any:
    """Return a configuration whose training takes seconds."""
    from omni_training.nano.thinker.config import ThinkerConfig, ThinkerSizes, ThinkerStage

    return ThinkerConfig(
        seed=3,
        sizes=ThinkerSizes(
            hidden=32, layers=3, heads=2, kv_heads=1, intermediate=64, vision_hidden=32, vision_depth=1,
            vision_heads=2, vision_intermediate=48, audio_hidden=32, image_pixels=112,
        ),
        dense=ThinkerStage(steps=4, learning_rate=2e-3, warmup=2, report=2),
        sound=ThinkerStage(steps=2, learning_rate=2e-3, warmup=1, report=2),
        text=ThinkerStage(steps=2, learning_rate=2e-3, warmup=1, report=2),
        sft=ThinkerStage(steps=5, learning_rate=2e-3, warmup=1, report=5),
        polish=ThinkerStage(steps=7, learning_rate=2e-3, warmup=1, report=7),
        pairs=4, images=2, sounds=2, texts=4, texts_beside=2, drills=2, clips=2, frames=2, descriptions=3,
        early=(0.4,), development_clips=4, development_frames=3,
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_learner(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a maker of (learner, tokenizer) for a configuration."""
    from omni_training.nano.thinker.learner import Learner
    from omni_training.nano.thinker.model import build_thinker, save_thinker
    from omni_training.nano.thinker.vocabulary import build_tokenizer

    from omni_sdk.grs.processor import Processor
    from omni_sdk.hf.checkpoint import read_spec

    def maker(config: Any) -> Any:
        tokenizer = build_tokenizer(config.sizes.image_pixels)
        thinker = build_thinker(config.sizes, tokenizer, config.seed)
        folder = save_thinker(
            thinker, tokenizer, config.sizes, tmp_path_factory.mktemp("nano") / "initial"
        )
        processor = Processor.from_directory(read_spec(folder), folder)
        return Learner(thinker, config, processor, tokenizer), tokenizer

    return maker
