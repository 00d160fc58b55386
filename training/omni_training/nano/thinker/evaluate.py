"""A thinker on held-out clips: what it says, greedily and unaided, against the truth.

The clips come as frames rendered at the model's own size, or as mp4 files written, decoded and resized as
the pipeline does it. Every number is a mean over clips with its standard error.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from omni_sdk.config import GenerationConfig, SamplingConfig
from omni_sdk.demo import texts
from omni_sdk.demo.clip import write_clip
from omni_sdk.demo.evaluate import Statistic, statistic
from omni_sdk.demo.scene import Scene, make_scene
from omni_sdk.demo.world import FAMILIES, STEP_SECONDS, STEPS, held_out_seed
from omni_sdk.dus.grounder import ThinkerGrounder
from omni_sdk.grs.observe import observe
from omni_sdk.grs.processor import Processor, load_tokenizer
from omni_sdk.grs.reasoner import ThinkerReasoner
from omni_sdk.hf.checkpoint import load_thinker
from omni_sdk.hf.thinker import HfThinker
from omni_sdk.media.source import open_source
from omni_sdk.stages import Image, Observation
from omni_sdk.utils.timing import Stopwatch

from omni_training.nano.thinker.pictures import frames
from omni_training.nano.thinker.rows import RowMaker
from omni_training.nano.thinker.scores import (
    SIZE,
    draw_descriptions,
    middle_step,
    read_answer,
    score_answer,
    score_box,
)

BATCH = 50
FPS = 8.0


class ClipView(Protocol):
    """A clip as the model gets to see it."""

    def observation(self) -> Observation:
        """Return what the reasoner sees and hears."""

    def image(self, step: int) -> Image:
        """Return the grounder's picture at a step of the event grid."""

    def close(self) -> None:
        """Let go of files."""


class RenderedClip:
    """Frames rendered at the model's own sizes."""

    def __init__(self, scene: Scene, maker: RowMaker) -> None:
        """Keep the scene."""
        self._scene, self._maker = scene, maker
        self._rng = np.random.default_rng([scene.noise_seed, 1])

    def observation(self) -> Observation:
        """Return what the reasoner sees and hears."""
        return self._maker.observation(self._scene, self._rng)

    def image(self, step: int) -> Image:
        """Return the grounder's picture at a step."""
        side = self._maker.processor.image_size(*SIZE)[0]
        picture: Image = frames(self._scene, [step], side, self._rng)[0]
        return picture

    def close(self) -> None:
        """Do nothing."""


class WrittenClip:
    """An mp4 file, decoded and resized as the pipeline does it."""

    def __init__(self, scene: Scene, reasoner: ThinkerReasoner, folder: Path) -> None:
        """Write the file."""
        self._path = folder / f"{scene.family}_{scene.noise_seed}.mp4"
        write_clip(scene, self._path, size=SIZE, fps=FPS)
        self._reasoner = reasoner
        self._watch = Stopwatch()

    def observation(self) -> Observation:
        """Return what the reasoner sees and hears."""
        with open_source(self._path) as video:
            return observe(video, self._reasoner, SamplingConfig(), self._watch)

    def image(self, step: int) -> Image:
        """Return the decoded frame at a step."""
        with open_source(self._path) as video:
            picture: Image = video.fetch([round(step * STEP_SECONDS * FPS)]).frames[0]
        return picture

    def close(self) -> None:
        """Delete the file."""
        self._path.unlink()


class Evaluator:
    """Asks a checkpoint and scores its answers."""

    def __init__(self, checkpoint: Path, *, device: str = "cpu") -> None:
        """Load the checkpoint in float32.

        Raises:
            BundleError: it is incomplete, or not of a known layout.
        """
        loaded = load_thinker(checkpoint)
        tokenizer = load_tokenizer(loaded.tokenizer)
        self.processor = Processor(loaded.spec, tokenizer)
        self.thinker = HfThinker(loaded.model.to(device), loaded.spec, tokenizer)
        self.reasoner = ThinkerReasoner(self.thinker, self.processor)
        self.grounder = ThinkerGrounder(self.thinker, self.processor)
        self.maker = RowMaker(self.processor, tokenizer)

    def family(self, family: str, clips: int, *, mp4: bool = False) -> dict[str, Statistic]:
        """Return the statistics of a family's first held-out clips.

        `exact` is the share of answers whose descriptions are just the true ones ("[]" where nothing
        answers); `absent` the share of "[]"; `span_iou` and `box_iou` are means over the true answers, 0 for
        one that is not given; boxes are those of the same checkpoint's grounder in the middle of the span
        that the answer gives. `listed` compares colours and shapes of the listing, `motion` motions too.
        """
        values: dict[str, list[float]] = defaultdict(list)
        scenes = [make_scene(held_out_seed(family, i), family) for i in range(clips)]
        with tempfile.TemporaryDirectory() as folder:
            for start in range(0, clips, BATCH):
                chunk = scenes[start : start + BATCH]
                shown = [self._view(scene, Path(folder), mp4=mp4) for scene in chunk]
                for scores in self._chunk(chunk, shown):
                    for name, value in scores.items():
                        values[name].append(value)
                for clip in shown:
                    clip.close()
        return {name: statistic(v) for name, v in values.items()}

    def ground(self, count: int, *, mp4: bool = False) -> dict[str, Statistic]:
        """Return the grounder's statistics on held-out frames of all families.

        `box_iou` over objects of which at least a quarter is seen, `picked` the share of boxes that overlap
        the described object most among all visible, where there are two or more; `absent` the
        share of "[]" where neither word matches, `absent_half` where one does.
        """
        values: dict[str, list[float]] = defaultdict(list)
        with tempfile.TemporaryDirectory() as folder:
            for start in range(0, count, BATCH):
                asked: list[tuple[Scene, int, str, str]] = []
                images: list[Image] = []
                for number in range(start, min(count, start + BATCH)):
                    family = FAMILIES[number % len(FAMILIES)]
                    seed = held_out_seed(family, 50_000 + number)
                    scene = make_scene(seed, family)
                    rng = np.random.default_rng(seed)
                    step = int(rng.integers(STEPS))
                    clip = self._view(scene, Path(folder), mp4=mp4)
                    picture = clip.image(step)
                    clip.close()
                    for kind, name in draw_descriptions(scene, step, rng):
                        asked.append((scene, step, kind, name))
                        images.append(picture)
                names = [texts.describe(name) for _, _, _, name in asked]
                for item, boxes, picture in zip(
                    asked, self.grounder.ground(images, names), images, strict=True
                ):
                    score_box(*item, [b.box_xyxy for b in boxes], picture.shape[0], values)
        return {name: statistic(v) for name, v in values.items()}

    def _view(self, scene: Scene, folder: Path, *, mp4: bool) -> ClipView:
        if mp4:
            return WrittenClip(scene, self.reasoner, folder)
        return RenderedClip(scene, self.maker)

    def _chunk(
        self, scenes: Sequence[Scene], shown: Sequence[ClipView]
    ) -> Iterator[dict[str, float]]:
        requests = [
            self.processor.reason_request(clip.observation(), scene.query)
            for scene, clip in zip(scenes, shown, strict=True)
        ]
        room = self.processor.spec.prompts.max_new_tokens
        replies = self.thinker.generate(requests, GenerationConfig(max_new_tokens=room))
        answers = [read_answer(reply.text) for reply in replies]
        wanted = [
            (row, segment) for row, (_, found) in enumerate(answers) for segment in found or ()
        ]
        pictures = [shown[row].image(middle_step(segment)) for row, segment in wanted]
        grounded = self.grounder.ground(pictures, [segment.description for _, segment in wanted])
        boxes: dict[tuple[int, str], tuple[int, Any]] = {}
        for (row, segment), found_boxes, picture in zip(wanted, grounded, pictures, strict=True):
            scaled = [b.box_xyxy * (SIZE[0] / picture.shape[0]) for b in found_boxes]
            boxes[row, segment.description] = (middle_step(segment), scaled[0] if scaled else None)
        for row, (scene, (thinking, found)) in enumerate(zip(scenes, answers, strict=True)):
            mine = {d: b for (r, d), b in boxes.items() if r == row}
            yield score_answer(scene, thinking, found, mine)


def evaluate_thinker(
    checkpoint: Path,
    *,
    clips: int,
    mp4: bool = False,
    device: str = "cpu",
    families: Sequence[str] = FAMILIES,
) -> Iterator[tuple[str, dict[str, Statistic]]]:
    """Yield the statistics of each family, then those of the grounder; see `Evaluator`.

    Args:
        checkpoint: a thinker's folder.
        clips: of each family.
        mp4: read the clips from mp4 files.
        device: torch's name.
        families: to evaluate on.

    Raises:
        BundleError: the checkpoint is incomplete, or not of a known layout.
    """
    evaluator = Evaluator(checkpoint, device=device)
    for family in families:
        yield family, evaluator.family(family, clips, mp4=mp4)
    yield "grounder", evaluator.ground(clips, mp4=mp4)
