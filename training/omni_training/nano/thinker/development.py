"""What the model does with the true words before each token, on a fixed set of clips (teacher forcing)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from omni_sdk.demo.world import COLORS, SHAPES
from omni_sdk.metrics.boxes import box_iou
from tokenizers import Tokenizer

from omni_training.nano.thinker import dense
from omni_training.nano.thinker.config import ThinkerConfig
from omni_training.nano.thinker.learner import Learner
from omni_training.nano.thinker.packing import IGNORE, Batch
from omni_training.nano.thinker.vocabulary import BOX_OPENER, stamps, token_id

_DEV_STREAM = 999


class DevelopmentSet:
    """Fixed batches, drawn from a stream that training never uses, and what is right on them."""

    def __init__(self, learner: Learner, tokenizer: Tokenizer, config: ThinkerConfig) -> None:
        """Draw the batches."""
        clips, frames = config.development_clips, config.development_frames
        rng = np.random.default_rng([config.seed, _DEV_STREAM])
        maker = learner.maker
        self._learner = learner
        self._tokenizer = tokenizer
        self._clips = maker.reasoner(rng, clips)
        self._texts = maker.words(rng, clips, config.drills)
        self._frames = maker.grounder(rng, frames, config.descriptions, config.absent_half)
        self._pairs = dense.pair_batch(rng, maker, 64)
        self._images = dense.image_batch(rng, maker, 24)
        self._sounds = dense.sound_batch(rng, maker, 32)
        self._classes = _token_classes(tokenizer)
        self._landmarks = {
            name: token_id(tokenizer, text)
            for name, text in (
                ("target", " target"),
                ("close", "</think><answer>"),
                ("last", " last"),
            )
        }

    @torch.no_grad()  # type: ignore[untyped-decorator]  # torch is not followed by mypy
    def scores(self, stage: str) -> dict[str, float]:
        """Return the shares that are right for what a stage teaches."""
        learner = self._learner
        if stage == "dense":
            found: dict[str, float] = {}
            for prefix, batch in (("pair", self._pairs), ("image", self._images)):
                _, scores = learner.picture_loss(*batch)
                found |= {f"{prefix}_{k}": v for k, v in scores.items()}
            return found
        if stage == "sound":
            return learner.sound_loss(*self._sounds)[1]
        if stage == "text":
            return {f"text_{k}": v for k, v in self._token_scores(self._texts).items()}
        found = self._token_scores(self._clips)
        found |= {f"text_{k}": v for k, v in self._token_scores(self._texts).items()}
        return found | self._grounder_scores()

    def _predict(self, batch: Batch) -> np.ndarray[Any, np.dtype[np.int64]]:
        states = self._learner.states(batch)[0]
        _, best = self._learner.loss_of_tokens(batch, states)
        predicted = np.full(batch.targets.shape, IGNORE)
        predicted[(batch.targets != IGNORE).numpy()] = best.cpu().numpy()
        return predicted

    def _token_scores(self, batch: Batch) -> dict[str, float]:
        """Tokens of the listing by kind; digest, look-up and answer as wholes, the look-up by family too."""
        predicted, targets = self._predict(batch), batch.targets.numpy()
        right: dict[str, list[bool]] = defaultdict(list)
        for row in range(len(targets)):
            truth = targets[row]
            positions = np.flatnonzero(truth != IGNORE)
            ok = predicted[row] == truth
            part, parts = "listing", defaultdict(list)
            for position in positions:
                token = int(truth[position])
                if token == self._landmarks["last"] and part == "listing":
                    part = "digest"
                elif token == self._landmarks["target"]:
                    part = "lookup"
                elif token == self._landmarks["close"]:
                    part = "answer"
                parts[part].append(bool(ok[position]))
                if part == "listing" and token in self._classes:
                    right[self._classes[token]].append(bool(ok[position]))
            for name, flags in parts.items():
                if name != "listing":
                    right[name].append(all(flags))
            if batch.scenes and parts["lookup"]:
                right[f"lookup_{batch.scenes[row].family}"].append(all(parts["lookup"]))
        return {name: round(float(np.mean(v)), 3) for name, v in sorted(right.items())}

    def _grounder_scores(self) -> dict[str, float]:
        """Return box IoU where a box is wanted, and how often presence and absence are told."""
        predicted, targets = self._predict(self._frames), self._frames.targets.numpy()
        opener, empty = (token_id(self._tokenizer, t) for t in (BOX_OPENER, "[]"))
        first = self._learner.token_loss.first
        ious, present, absent = [], [], []
        for row, position in zip(
            *np.nonzero((targets == opener) | (targets == empty)), strict=True
        ):
            said = predicted[row, position]
            if targets[row, position] == empty:
                absent.append(said == empty)
                continue
            present.append(said == opener)
            boxes = [a[row, position + 1 : position + 9 : 2] - first for a in (predicted, targets)]
            value = (
                box_iou(boxes[:1], boxes[1:])[0, 0] if (boxes[0][2:] > boxes[0][:2]).all() else 0.0
            )
            ious.append(float(value))
        means = {"box_iou": ious, "box_present": present, "box_absent": absent}
        return {name: round(float(np.mean(v)), 3) for name, v in means.items()}


def _token_classes(tokenizer: Tokenizer) -> dict[int, str]:
    groups = {
        "colour": tuple(COLORS),
        "shape": SHAPES,
        "motion": ("left", "right", "still"),
        "time": stamps(),
        "tone": ("silent", "sound"),
        "stop": ("stops",),
    }
    return {
        token_id(tokenizer, f" {word}"): name for name, words in groups.items() for word in words
    }
