"""What a model says about the held-out clips: greedy, batched, from arrays."""

from __future__ import annotations

import time

from omni_sdk.config import GenerationConfig
from omni_sdk.grs.processor import Processor
from omni_sdk.hf.thinker import HfThinker
from omni_sdk.utils.files import write_json

from omni_training.data.world import world_scene
from omni_training.data.world_samples import observe_scene
from omni_training.experiment.files import Experiment

BATCH = 30


def write_answers(experiment: Experiment, model: str) -> None:
    """Answer every held-out clip with a model's checkpoint."""
    answers, seconds = answer_clips(
        str(experiment.checkpoint(model)),
        experiment.settings.clips(),
        experiment.settings.completion_tokens,
    )
    write_json(
        experiment.answers(model), {"model": model, "cpu_seconds": seconds, "answers": answers}
    )


def answer_clips(
    checkpoint: str, clips: list[str], max_tokens: int
) -> tuple[dict[str, str], float]:
    """Return clip -> completion, and the CPU seconds that it took.

    Args:
        checkpoint: directory of a thinker.
        clips: sample names.
        max_tokens: of a completion.
    """
    started = time.process_time()
    thinker = HfThinker.from_checkpoint(checkpoint, device="auto")
    processor = Processor.from_directory(thinker.spec, checkpoint)
    config = GenerationConfig(max_new_tokens=max_tokens)
    answers: dict[str, str] = {}
    for first in range(0, len(clips), BATCH):
        names = clips[first : first + BATCH]
        scenes = [world_scene(name) for name in names]
        requests = [
            processor.reason_request(observe_scene(scene, processor), scene.query)
            for scene in scenes
        ]
        completions = thinker.generate(requests, config)
        answers |= {n: c.text for n, c in zip(names, completions, strict=True)}
    return answers, time.process_time() - started
