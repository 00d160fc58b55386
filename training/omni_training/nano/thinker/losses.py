"""Loss of the next tokens: decisions weigh more than glue, coordinates may be nearly right."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor

from omni_training.nano.thinker.packing import IGNORE, token_weights
from omni_training.nano.thinker.vocabulary import token_id

COORDINATE_DEVIATION = 1.5
"""Of the soft targets, in pixels of an image of 96 pixels; grows with the image."""


class TokenLoss:
    """Weighted cross-entropy; targets of coordinates are spread over their neighbours (a Gaussian)."""

    def __init__(self, tokenizer: Tokenizer, image_pixels: int) -> None:
        """Keep weights and soft targets.

        Args:
            tokenizer: has a token for every number up to `image_pixels`, in order.
            image_pixels: side of the grounder's image.
        """
        first = token_id(tokenizer, "0")
        assert token_id(tokenizer, str(image_pixels)) == first + image_pixels
        self.first, self.last = first, first + image_pixels
        self._weights = token_weights(tokenizer)
        self._soft = soft_coordinates(image_pixels)

    def __call__(
        self, head: torch.nn.Module, states: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and the most likely token of each target.

        Args:
            head: hidden -> vocabulary.
            states: (B, L, hidden).
            targets: (B, L) int64; `IGNORE` where there is none.
        """
        wanted = targets != IGNORE
        truth = targets[wanted]
        log = head(states[wanted]).log_softmax(-1)
        weights = self._weights.to(log.device)[truth]
        loss = -log.gather(1, truth[:, None])[:, 0]
        number = (truth >= self.first) & (truth <= self.last)
        if number.any():
            soft = self._soft.to(log.device)[truth[number] - self.first]
            loss = loss.masked_scatter(
                number, -(soft * log[number, self.first : self.last + 1]).sum(-1)
            )
        return (loss * weights).sum() / weights.sum(), log.argmax(-1)


def soft_coordinates(image_pixels: int) -> Tensor:
    """Return (P + 1, P + 1): row v is the target of a coordinate v of an image of P pixels, sum 1."""
    deviation = COORDINATE_DEVIATION * image_pixels / 96
    numbers = torch.arange(image_pixels + 1, dtype=torch.float32)
    squares = (numbers[:, None] - numbers[None]) ** 2
    return torch.softmax(-squares / (2 * deviation**2), dim=1)
