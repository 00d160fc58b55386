"""Scenes -> rows of tokens with targets: the reasoner's, the grounder's (packed) and rows of words alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from omni_sdk.demo import texts
from omni_sdk.demo.render import object_map
from omni_sdk.demo.scene import Scene, draw_scene
from omni_sdk.demo.sound import waveform
from omni_sdk.demo.world import COLORS, DIGEST, DURATION_SECONDS, SHAPES, STEP_SECONDS, STEPS
from omni_sdk.dus.boxes import mask_box, whole_pixels
from omni_sdk.grs.processor import Processor
from omni_sdk.media.clock import Clock
from omni_sdk.stages import Observation
from tokenizers import Tokenizer

from omni_training.nano.thinker.model import END, START
from omni_training.nano.thinker.packing import IGNORE, Batch, Row, make_row, pack_rows
from omni_training.nano.thinker.pictures import frames, step_seconds

STAGE_SIDE = 384
"""Side in pixels of the clips that the demo writes; only its aspect matters here."""
MIN_VISIBLE = 0.25
"""Share of an object's area that must be seen for the grounder to be asked to find it."""

_MATCHABLE = (*COLORS, *SHAPES)


class RowMaker:
    """Makes batches with the SDK's own processor, so that training and inference see the same input."""

    def __init__(self, processor: Processor, tokenizer: Tokenizer) -> None:
        """Keep the processor of the checkpoint that is trained."""
        self.processor = processor
        self._tokenizer = tokenizer
        steps = np.arange(STEPS)
        self._clock = Clock(
            steps, (steps * STEP_SECONDS).astype(np.float64), DURATION_SECONDS, 1 / STEP_SECONDS
        )
        self._image_side = processor.image_size(STAGE_SIDE, STAGE_SIDE)[0]
        self._frame_side = processor.frame_size(STAGE_SIDE, STAGE_SIDE)[0]

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text without special ones."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def observation(self, scene: Scene, rng: np.random.Generator) -> Observation:
        """Return what the reasoner sees and hears of a scene."""
        shown = frames(scene, range(STEPS), self._frame_side, rng)
        return Observation(shown, self._clock, waveform(scene))

    def reasoner(self, rng: np.random.Generator, count: int) -> Batch:
        """Draw clips with a query and the true completion."""
        return self.reasoner_rows([draw_scene(rng) for _ in range(count)], rng)

    def reasoner_rows(self, scenes: Sequence[Scene], rng: np.random.Generator) -> Batch:
        """Return a row for each scene."""
        rows, patches, mels = [], [], []
        for scene in scenes:
            request = self.processor.reason_request(self.observation(scene, rng), scene.query)
            reply = [*self.encode(texts.grs_answer(scene)), END]
            rows.append(make_row(request.input_ids, request.position_ids, reply))
            patches.append(request.vision[0].pixel_values)
            mels.append(request.mel[0])
        return pack_rows(
            rows,
            patches=torch.from_numpy(np.concatenate(patches)),
            mel=torch.from_numpy(np.stack(mels)),
            scenes=tuple(scenes),
        )

    def grounder(
        self, rng: np.random.Generator, count: int, descriptions: int, absent_half: float
    ) -> Batch:
        """Draw frames; each row shows one and asks for several descriptions, which do not see each other."""
        rows: list[Row] = []
        patches: list[NDArray[np.floating]] = []
        scenes, steps = [], []
        while len(rows) < count:
            scene, step = draw_scene(rng), int(rng.integers(STEPS))
            asked = self.descriptions(rng, scene, step, descriptions, absent_half)
            rows.append(self._grounder_row(scene, step, asked, rng, patches))
            scenes.append(scene)
            steps.append(step)
        return pack_rows(
            rows,
            packed=True,
            patches=torch.from_numpy(np.concatenate(patches)),
            scenes=tuple(scenes),
            steps=tuple(steps),
        )

    def descriptions(
        self, rng: np.random.Generator, scene: Scene, step: int, count: int, absent_half: float
    ) -> list[tuple[str, tuple[int, int, int, int] | None]]:
        """Draw descriptions of a frame: every object that is seen well, then absent ones.

        Of the absent ones `absent_half` match a visible object in colour or in shape alone; the others are
        any names that nothing visible has. Objects that are hardly seen are not asked for.

        Returns:
            (description, box in pixels of the grounder's image or None) in random order.
        """
        side = (self._image_side, self._image_side)
        seen = object_map(scene, step_seconds(step), side)
        boxes: dict[str, tuple[int, int, int, int]] = {}
        visible, unsure = [], set()
        for index, item in enumerate(scene.objects):
            pixels = seen == index + 1
            area, box = int(pixels.sum()), mask_box(pixels)
            if box is None:
                continue
            visible.append(item)
            if area >= MIN_VISIBLE * _full_area(item.shape, item.radius, side[0]):
                boxes[item.name] = whole_pixels(box)
            else:
                unsure.add(item.name)
        found: list[tuple[str, tuple[int, int, int, int] | None]] = list(boxes.items())
        found = [found[i] for i in rng.permutation(len(found))[: count - 1]]
        taken = {item.name for item in visible} | unsure
        while len(found) < count:
            color = tuple(COLORS)[int(rng.integers(len(COLORS)))]
            shape = SHAPES[int(rng.integers(len(SHAPES)))]
            if visible and rng.random() < absent_half:
                who = visible[int(rng.integers(len(visible)))]
                color, shape = (who.color, shape) if rng.random() < 0.5 else (color, who.shape)
            name = f"{color} {shape}"
            if name not in taken:
                taken.add(name)
                found.append((name, None))
        return [found[i] for i in rng.permutation(count)]

    def words(self, rng: np.random.Generator, count: int, drills: int) -> Batch:
        """Draw rows without media: the query, the true listing (no loss), then digest, look-up and answer.

        In every second row further look-ups take the place of the answer: drills.
        """
        rows = []
        for number in range(count):
            scene = draw_scene(rng)
            word = texts.deciding_word(scene.query)
            listing = self.encode(f"<think>{texts.listing(scene)}")
            reply = self.encode(texts.digest(scene) + texts.lookup(scene, word))
            free = [False] * len(reply)
            if number % 2:
                reply += [*self.encode(f"</think><answer>{texts.json_answer(scene)}</answer>"), END]
                free += [False] * (len(reply) - len(free))
            else:
                for other in self._drill_words(rng, scene, drills):
                    chain = self.encode(texts.lookup(scene, other))
                    reply += chain
                    free += [True, True, *[False] * (len(chain) - 2)]
            ids = self._text_prompt(scene.query)
            positions = np.broadcast_to(np.arange(len(ids)), (3, len(ids)))
            row = make_row(np.array(ids), positions, listing + reply)
            for position, skip in enumerate([True] * len(listing) + free):
                if skip:
                    row.targets[len(ids) - 1 + position] = IGNORE
            rows.append(row)
        return pack_rows(rows)

    def _drill_words(self, rng: np.random.Generator, scene: Scene, count: int) -> list[str]:
        """Draw deciding words, as many of what is there as of what is not."""
        present = [w for item in scene.objects for w in (item.color, item.shape)]
        absent = [w for w in _MATCHABLE if w not in present]
        choice = [*DIGEST, *present]
        choice += [absent[i] for i in rng.permutation(len(absent))[:3]]
        return [choice[i] for i in rng.permutation(len(choice))[:count]]

    def _text_prompt(self, query: str) -> list[int]:
        encode = self.encode
        return [
            START, *encode("user\n"), *encode(query), END, *encode("\n"), START,
            *encode("assistant\n"),
        ]  # fmt: skip

    def _grounder_row(
        self,
        scene: Scene,
        step: int,
        asked: Sequence[tuple[str, tuple[int, int, int, int] | None]],
        rng: np.random.Generator,
        patches: list[NDArray[np.floating]],
    ) -> Row:
        image = frames(scene, [step], self._image_side, rng)[0]
        row: Row | None = None
        shared = 0
        for number, (name, box) in enumerate(asked):
            description = texts.describe(name)
            request, _ = self.processor.ground_request(image, description)
            reply = [*self.encode(texts.grounder_answer(description, box)), END]
            single = make_row(request.input_ids, request.position_ids, reply)
            if row is None:
                patches.append(request.vision[0].pixel_values)
                end = self.processor.spec.tokens.vision_end
                shared = int(np.flatnonzero(request.input_ids == end)[0]) + 1
                row = single
                row.segments = [0] * shared + [1] * (len(row.ids) - shared)
                continue
            row.ids += single.ids[shared:]
            row.targets += single.targets[shared:]
            row.positions = np.concatenate([row.positions, single.positions[:, shared:]], axis=1)
            row.segments += [number + 1] * (len(single.ids) - shared)
        assert row is not None
        return row


def _full_area(shape: str, radius: int, side: int) -> float:
    """Return the area in pixels of a shape that nothing hides, to a few percent."""
    unit = side / 96
    long = 2 * radius + 1
    if shape == "circle":
        return float(np.pi) * (radius * unit) ** 2
    thick = 2 * int(radius * (0.33 if shape == "cross" else 0.42)) + 1
    area = long * thick if shape != "cross" else 2 * long * thick - thick**2
    return area * unit**2
