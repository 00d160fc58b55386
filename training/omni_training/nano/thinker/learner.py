"""One optimiser step's loss, for each stage of the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from omni_sdk.grs.processor import Processor
from tokenizers import Tokenizer
from torch import Tensor, nn

from omni_training.nano.thinker import dense
from omni_training.nano.thinker.box_head import BoxHead, box_targets
from omni_training.nano.thinker.config import ThinkerConfig
from omni_training.nano.thinker.forward import audio_forward, language_forward, vision_forward
from omni_training.nano.thinker.losses import TokenLoss
from omni_training.nano.thinker.packing import Batch
from omni_training.nano.thinker.rows import RowMaker
from omni_training.nano.thinker.table_head import TableHead, table_truth

TAP_LAYER = 2
"""Layers of the language model after which its state is read by the auxiliary heads."""
Scores = dict[str, float]


class Learner(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """The thinker with the heads that only training needs, and the loss of every kind of batch."""

    def __init__(
        self, thinker: Any, config: ThinkerConfig, processor: Processor, tokenizer: Tokenizer
    ) -> None:
        """Put the heads beside the thinker; they are drawn from the configuration's seed."""
        super().__init__()
        self.thinker = thinker
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.picture_head = dense.PictureHead(config.sizes.hidden)
            self.sound_head = dense.SoundHead(config.sizes.hidden)
            self.table_head = TableHead(config.sizes.hidden)
            self.box_head = BoxHead(config.sizes.hidden, config.sizes.image_pixels)
        self.config = config
        self.maker = RowMaker(processor, tokenizer)
        self.token_loss = TokenLoss(tokenizer, config.sizes.image_pixels)
        self._frozen_towers = False

    def parameters_of(self, stage: str) -> Iterator[tuple[str, nn.Parameter, float]]:
        """Yield name, parameter and learning-rate factor of what a stage trains."""
        towers = ("thinker.model.visual.", "thinker.model.audio_tower.")
        parts = {
            "dense": (towers[0], "picture_head."),
            "sound": (towers[1], "sound_head."),
            "text": ("thinker.model.language_model.", "thinker.lm_head."),
            "sft": ("thinker.", "picture_head.", "table_head."),
            "polish": ("thinker.", "picture_head.", "table_head.", "box_head."),
        }[stage]
        mixed = stage in ("sft", "polish")
        for name, parameter in self.named_parameters():
            if name.startswith(parts) and parameter.requires_grad:
                slow = mixed and name.startswith((*towers, "picture_head."))
                yield name, parameter, self.config.tower_rate if slow else 1.0

    def step(self, stage: str, number: int, rng: np.random.Generator) -> tuple[Tensor, Scores]:
        """Draw a batch and return its loss; the same numbers and generator give the same loss."""
        steps: dict[str, Callable[[int, np.random.Generator], tuple[Tensor, Scores]]] = {
            "dense": self._dense,
            "sound": self._sound,
            "text": self._text,
            "sft": self._sft,
            "polish": self._polish,
        }
        self._frozen_towers = (
            stage == "sft" and number < self.config.frozen_share * self.config.sft.steps
        )
        return steps[stage](number, rng)

    def states(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return last and tapped state of the language model, and the picture tokens."""
        device = self.thinker.lm_head.weight.device
        model, config = self.thinker.model, self.thinker.config
        ids = batch.ids.to(device)
        embeds = model.language_model.embed_tokens(ids)
        pictures = None
        if batch.patches is not None:
            still = batch.mel is None
            size = self.config.sizes
            grid = (size.image_pixels if still else size.frame_pixels) // size.patch
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen_towers):
                pictures = vision_forward(model.visual, batch.patches.to(device), grid)
            here = ids == (config.image_token_id if still else config.video_token_id)
            embeds = embeds.masked_scatter(here[..., None], pictures)
        if batch.mel is not None:
            here = ids == config.audio_token_id
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen_towers):
                sounds = audio_forward(model.audio_tower, batch.mel.to(device))
            embeds = embeds.masked_scatter(here[..., None], sounds)
        mask = None if batch.mask is None else batch.mask.to(device)
        last, tapped = language_forward(
            model.language_model, embeds, batch.positions.to(device), mask, TAP_LAYER
        )
        return last, tapped, pictures

    def row_ends(self, batch: Batch) -> Tensor:
        """Return (rows,) positions of the last token of each temporal row of the reasoner's clips."""
        size = self.config.sizes
        per_row = (size.frame_pixels // size.patch // size.merge) ** 2
        positions = (batch.ids[0] == self.thinker.config.video_token_id).nonzero()[:, 0]
        return positions[per_row - 1 :: per_row]

    def _dense(self, number: int, rng: np.random.Generator) -> tuple[Tensor, Scores]:
        config = self.config
        if number % config.image_every == config.image_every - 1:
            patches, grid, truth = dense.image_batch(rng, self.maker, config.images)
            prefix = "image_"
        else:
            patches, grid, truth = dense.pair_batch(rng, self.maker, config.pairs)
            prefix = "pair_"
        loss, scores = self.picture_loss(patches, grid, truth)
        return loss, {prefix + k: v for k, v in scores.items()}

    def picture_loss(
        self, patches: Tensor, grid: int, truth: dense.PictureTargets
    ) -> tuple[Tensor, Scores]:
        """Return the dense loss of a batch of pictures, and what is right."""
        device = self.picture_head.linear.weight.device
        tokens = vision_forward(self.thinker.model.visual, patches.to(device), grid)
        return self.picture_head.loss(tokens.flatten(0, 1), truth.to(device))

    def _sound(self, number: int, rng: np.random.Generator) -> tuple[Tensor, Scores]:
        return self.sound_loss(*dense.sound_batch(rng, self.maker, self.config.sounds))

    def sound_loss(self, mel: Tensor, tones: Tensor) -> tuple[Tensor, Scores]:
        """Return the loss of a batch of sounds, and what is right."""
        device = self.sound_head.linear.weight.device
        tokens = audio_forward(self.thinker.model.audio_tower, mel.to(device))
        return self.sound_head.loss(tokens, tones.to(device))

    def _text(self, number: int, rng: np.random.Generator) -> tuple[Tensor, Scores]:
        return self._words(rng, self.config.texts)

    def _sft(self, number: int, rng: np.random.Generator) -> tuple[Tensor, Scores]:
        mixture = self.config.mixture
        return self._mixed(mixture[number % len(mixture)], rng, box_weight=0.0)

    def _polish(self, number: int, rng: np.random.Generator) -> tuple[Tensor, Scores]:
        mixture = self.config.polish_mixture
        return self._mixed(mixture[number % len(mixture)], rng, box_weight=self.config.box_weight)

    def _mixed(
        self, kind: str, rng: np.random.Generator, *, box_weight: float
    ) -> tuple[Tensor, Scores]:
        if kind == "t":
            return self._words(rng, self.config.texts_beside)
        if kind == "g":
            return self._reason(rng)
        return self._ground(rng, box_weight)

    def _words(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Scores]:
        batch = self.maker.words(rng, count, self.config.drills)
        loss, _ = self.loss_of_tokens(batch, self.states(batch)[0])
        return loss, {"text_loss": float(loss.detach())}

    def _reason(self, rng: np.random.Generator) -> tuple[Tensor, Scores]:
        batch = self.maker.reasoner(rng, self.config.clips)
        last, tapped, _ = self.states(batch)
        loss, _ = self.loss_of_tokens(batch, last)
        ends = self.row_ends(batch)
        truth = table_truth(batch.scenes, len(ends)).to(last.device)
        table, _ = self.table_head.loss(tapped[:, ends], truth)
        scores = {"reason_loss": float(loss.detach()), "table_loss": float(table.detach())}
        return loss + self.config.table_weight * table, scores

    def _ground(self, rng: np.random.Generator, box_weight: float) -> tuple[Tensor, Scores]:
        config = self.config
        batch = self.maker.grounder(rng, config.frames, config.descriptions, config.absent_half)
        last, tapped, pictures = self.states(batch)
        loss, _ = self.loss_of_tokens(batch, last)
        scores = {"ground_loss": float(loss.detach())}
        size = config.sizes
        grid = size.image_pixels // size.patch // size.merge
        shown = list(zip(batch.scenes, batch.steps, strict=True))
        if box_weight:
            truth = np.concatenate([box_targets(s, t, grid, size.image_pixels) for s, t in shown])
            here = (batch.ids == self.thinker.config.image_token_id).to(last.device)
            boxes = self.box_head.loss(tapped[here], torch.from_numpy(truth).to(last.device))
            loss = loss + box_weight * boxes
            scores["box_loss"] = float(boxes.detach())
        if self._frozen_towers:
            return loss, scores
        assert pictures is not None
        truth_of = [dense.image_targets(scene, step, grid) for scene, step in shown]
        seen, _ = self.picture_head.loss(
            pictures.flatten(0, 1), dense.join(truth_of).to(last.device)
        )
        scores["picture_loss"] = float(seen.detach())
        return loss + config.dense_weight * seen, scores

    def loss_of_tokens(self, batch: Batch, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of a batch's targets and the most likely token for each of them."""
        return self.token_loss(self.thinker.lm_head, states, batch.targets.to(states.device))
