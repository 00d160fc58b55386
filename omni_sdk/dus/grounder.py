"""System 2a over any thinker: full-resolution images and descriptions -> boxes in their pixels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from omni_sdk.config import GenerationConfig
from omni_sdk.errors import ModelOutputError
from omni_sdk.grs.parser import parse_boxes
from omni_sdk.stages import Box, GroundedBox

if TYPE_CHECKING:
    from omni_sdk.grs.processor import Processor
    from omni_sdk.grs.request import Thinker
    from omni_sdk.stages import Image

logger = logging.getLogger(__name__)


class ThinkerGrounder:
    """The `Grounder` of `omni_sdk.stages` on a thinker: the reasoner's model with another prompt.

    Args:
        thinker: runs requests.
        processor: of the same model.
    """

    def __init__(self, thinker: Thinker, processor: Processor) -> None:
        self._thinker = thinker
        self._processor = processor

    def ground(
        self, images: Sequence[Image], descriptions: Sequence[str]
    ) -> list[tuple[GroundedBox, ...]]:
        """Return the boxes of each (image, description) pair; none is a legal answer.

        All pairs go through the model in one batch. A pair whose text cannot be read has no boxes; the
        text is logged as a warning.

        Args:
            images: (H, W, 3) uint8 RGB of any sizes.
            descriptions: one for each image.

        Returns:
            For each pair its boxes: inside the image, with area, in the order of the text.

        Raises:
            ValueError: not as many descriptions as images.
            QueryError: a description is malformed, or too long for the model.
            LimitError: an image whose one side is more than 200 times the other.
        """
        if len(images) != len(descriptions):
            raise ValueError(
                f"expected one description per image, got {len(descriptions)} for {len(images)}"
            )
        if not images:
            return []
        pairs = [
            self._processor.ground_request(image, description)
            for image, description in zip(images, descriptions, strict=True)
        ]
        config = GenerationConfig(max_new_tokens=self._processor.spec.prompts.ground_max_new_tokens)
        completions = self._thinker.generate([request for request, _ in pairs], config)
        return [
            _read(completion.text, size, image.shape[:2], description)
            for completion, (_, size), image, description in zip(
                completions, pairs, images, descriptions, strict=True
            )
        ]


def _read(
    text: str, seen: tuple[int, int], original: tuple[int, ...], description: str
) -> tuple[GroundedBox, ...]:
    try:
        boxes = parse_boxes(text, width=seen[1], height=seen[0])
    except ModelOutputError as e:
        logger.warning("no boxes for %r: %s", description, e)
        return ()
    return tuple(
        GroundedBox(to_original(box, seen, original), label or description) for box, label in boxes
    )


def to_original(box: Box, seen: tuple[int, int], original: tuple[int, ...]) -> Box:
    """Map a box from the image as the model saw it to the image it was made from.

    The only place where boxes change their pixels.

    Args:
        box: (4,) float32 xyxy pixels of the image as seen.
        seen: its (height, width).
        original: (height, width) of the original image.

    Returns:
        (4,) float32 xyxy pixels of the original image, inside it.
    """
    scale = np.array([original[1] / seen[1], original[0] / seen[0]] * 2)
    limit = np.array([original[1], original[0]] * 2, np.float64)
    mapped: Box = np.minimum(box * scale, limit).astype(np.float32)
    return mapped
