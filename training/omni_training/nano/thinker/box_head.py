"""The box of what a picture token shows, read from the language model before it knows what is asked.

An auxiliary loss on an early layer. Four numbers of each found description are a sparse teacher: after
"sft" the tower's tokens told the boxes to 1.4 units (a linear read-out), the language model said them to
2.0. Asked at every token for the box of the object that covers most of its cell, it makes the numbers ready
there, and later layers have but to choose. After "polish" both are right to 1.1 units (a stage of that
length without this loss was not tried). The head is thrown away after training.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from omni_sdk.demo.render import object_map
from omni_sdk.demo.scene import Scene
from omni_sdk.dus.boxes import mask_box, whole_pixels
from torch import Tensor, nn

from omni_training.nano.thinker.losses import soft_coordinates
from omni_training.nano.thinker.pictures import step_seconds

UNKNOWN = -1


class BoxHead(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Linear read-out of a box from the state at a picture token, each edge a choice of pixel."""

    _soft: Tensor

    def __init__(self, hidden: int, image_pixels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, 4 * (image_pixels + 1))
        self.register_buffer("_soft", soft_coordinates(image_pixels), persistent=False)

    def loss(self, states: Tensor, truth: Tensor) -> Tensor:
        """Return the mean cross-entropy with the soft targets of the answer's own coordinates.

        Args:
            states: (N, hidden).
            truth: (N, 4) int64 xyxy in pixels of the image, `UNKNOWN` where a token shows no object.
        """
        known = truth[:, 0] != UNKNOWN
        logits = self.linear(states[known]).view(-1, 4, len(self._soft))
        wrong = -(self._soft[truth[known]] * logits.log_softmax(-1)).sum(-1)
        return wrong.sum() / max(1, wrong.numel())


def box_targets(scene: Scene, step: int, grid: int, image_pixels: int) -> NDArray[np.int64]:
    """Return (grid^2, 4) boxes of what is seen most in each cell of a picture, row by row.

    Args:
        scene: shown.
        step: of the event grid.
        grid: cells per side.
        image_pixels: side of the picture, a multiple of `grid`.

    Returns:
        xyxy in pixels of the picture; `UNKNOWN` where the background is all there is. The box is of the
        object's visible part, as the grounder is asked for it.
    """
    seen = object_map(scene, step_seconds(step), (image_pixels, image_pixels))
    cell = image_pixels // grid
    cells = seen.reshape(grid, cell, grid, cell)
    truth = np.full((grid, grid, 4), UNKNOWN, np.int64)
    most = np.zeros((grid, grid), np.int64)
    for index in range(len(scene.objects)):
        box = mask_box(seen == index + 1)
        if box is None:
            continue
        cover = (cells == index + 1).sum((1, 3))
        truth[cover > most] = whole_pixels(box)
        most = np.maximum(most, cover)
    return truth.reshape(-1, 4)
