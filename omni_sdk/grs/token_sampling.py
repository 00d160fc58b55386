"""From logits to a token: greedy, or temperature and nucleus, with a seeded generator per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from omni_sdk.errors import EngineError

if TYPE_CHECKING:
    from omni_sdk.config import GenerationConfig


class TokenSampler:
    """Chooses the tokens of one completion.

    Every row of a batch has a sampler of its own with the same seed, so a row's text does not depend on
    what else is in the batch. One uniform number is drawn per token.

    Args:
        config: temperature, top_p and seed.
        suppress: token ids that are never chosen.
    """

    def __init__(self, config: GenerationConfig, suppress: Sequence[int]) -> None:
        self._temperature = config.temperature
        self._top_p = config.top_p
        self._suppress = np.array(sorted(suppress), np.int64)
        self._generator = np.random.default_rng(config.seed % 2**64)

    def __call__(self, logits: NDArray[np.float32], allowed: Sequence[int] | None = None) -> int:
        """Choose a token.

        Args:
            logits: (V,) float32.
            allowed: the token ids to choose from; None: all.

        Raises:
            EngineError: a NaN among the logits, or nothing finite left.
        """
        scores = logits.astype(np.float64)
        scores[self._suppress] = -np.inf
        if allowed is not None:
            rest = np.ones(len(scores), bool)
            rest[np.asarray(allowed, np.int64)] = False
            scores[rest] = -np.inf
        best = int(scores.argmax())  # the first of equals, as torch does; a NaN if there is one
        if not np.isfinite(scores[best]):
            raise EngineError(
                "the decoder's logits are not finite; if this is a half-precision or quantised variant, "
                "use the float32 graphs"
            )
        if self._temperature == 0:
            return best
        return self._draw((scores - scores[best]) / self._temperature)

    def _draw(self, scores: NDArray[np.float64]) -> int:
        """Draw from the smallest set of most likely tokens whose mass reaches top_p."""
        order = np.argsort(-scores, kind="stable")
        mass = np.cumsum(np.exp(scores[order]))
        mass /= mass[-1]
        kept = min(int(np.searchsorted(mass, self._top_p)) + 1, len(order))
        point = self._generator.random() * mass[kept - 1]
        return int(order[min(int(np.searchsorted(mass, point, side="right")), kept - 1)])
