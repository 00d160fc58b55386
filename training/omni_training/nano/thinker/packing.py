"""Rows of tokens with targets, padded and packed into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from omni_sdk.demo.scene import Scene
from tokenizers import Tokenizer
from torch import Tensor

from omni_training.nano.thinker.model import END, PAD
from omni_training.nano.thinker.vocabulary import GLUE, token_id

IGNORE = -100
GLUE_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows for one step.

    Attributes:
        ids: (B, L) int64.
        positions: (3, B, L) int64.
        targets: (B, L) int64, the next token where a loss is wanted, else `IGNORE`.
        mask: (B, 1, L, L) bool; None: causal.
        patches: (N, P) float32 of all pictures; None: no pictures.
        mel: (B, bins, frames) float32; None: no sound.
        scenes: shown, for auxiliary targets.
        steps: of the event grid at which the grounder's frames are shown.
    """

    ids: Tensor
    positions: Tensor
    targets: Tensor
    mask: Tensor | None = None
    patches: Tensor | None = None
    mel: Tensor | None = None
    scenes: tuple[Scene, ...] = ()
    steps: tuple[int, ...] = ()


@dataclass(slots=True)
class Row:
    """One row before it is padded.

    Attributes:
        ids: of its S tokens.
        positions: (3, S) int64.
        targets: the token that follows each one, or `IGNORE`.
        segments: 0 for what every segment sees, else the number of the segment that a token belongs to.
    """

    ids: list[int]
    positions: NDArray[np.int64]
    targets: list[int]
    segments: list[int]


def token_weights(tokenizer: Tokenizer) -> Tensor:
    """Return (V,) loss weights: 1 for what is decided, `GLUE_WEIGHT` for what follows of itself."""
    weights = torch.ones(tokenizer.get_vocab_size())
    glue = {i for piece in GLUE if (i := tokenizer.token_to_id(piece)) is not None}
    glue -= {token_id(tokenizer, text) for text in ('"}]', '"},{"start_time":"')}
    weights[sorted(glue | {PAD, END})] = GLUE_WEIGHT
    return weights


def make_row(ids: NDArray[np.int64], positions: NDArray[np.int64], reply: list[int]) -> Row:
    """Join prompt and reply; targets are shifted, so that position i predicts token i + 1."""
    follow = int(positions.max()) + 1 + np.arange(len(reply))
    targets = [IGNORE] * (len(ids) - 1) + reply + [IGNORE]
    whole = np.concatenate([positions, np.broadcast_to(follow, (3, len(reply)))], axis=1)
    return Row([*ids.tolist(), *reply], whole, targets, [0] * (len(ids) + len(reply)))


def pack_rows(
    rows: Sequence[Row],
    *,
    packed: bool = False,
    patches: Tensor | None = None,
    mel: Tensor | None = None,
    scenes: tuple[Scene, ...] = (),
    steps: tuple[int, ...] = (),
) -> Batch:
    """Pad rows on the right; padding is never attended to by what comes before it."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), PAD)
    targets = torch.full((len(rows), length), IGNORE)
    positions = torch.zeros(3, len(rows), length, dtype=torch.long)
    segments = torch.full((len(rows), length), -1)
    for i, row in enumerate(rows):
        end = len(row.ids)
        ids[i, :end] = torch.tensor(row.ids)
        targets[i, :end] = torch.tensor(row.targets)
        positions[:, i, :end] = torch.from_numpy(row.positions)
        segments[i, :end] = torch.tensor(row.segments)
    mask = None
    if packed:
        same = segments[:, :, None] == segments[:, None, :]
        mask = (same | (segments == 0)[:, None, :]).tril()[:, None]
    return Batch(ids, positions, targets, mask, patches, mel, scenes, steps)
