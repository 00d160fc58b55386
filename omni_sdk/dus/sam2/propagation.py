"""One frame's work for many objects, in batches of bounded size. Knows memory banks, not schedules."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from omni_sdk.dus.sam2.graphs import PATCH, Decoded, Features, Sam2Graphs
from omni_sdk.dus.sam2.memory import Context, Memory, MemoryBank
from omni_sdk.dus.sam2.prompts import Clicks

NO_POINT = np.full((1, 1), -1, np.int64)
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Output:
    """One object on one frame.

    Attributes:
        logits: (4h, 4w) float32, > 0 on the object.
        pointer: (C,) float32.
        score: logit; > 0 means present.
        prompted: whether a prompt made it.
    """

    logits: NDArray[np.float32]
    pointer: NDArray[np.float32]
    score: float
    prompted: bool


class Propagator:
    """Tracks, prompts and memorises objects on one frame at a time.

    Objects whose contexts have the same layout share a batch; a batch is no larger than the bytes
    allowed for attention scores (4 per query, key and object, were they all held at once).
    """

    def __init__(self, graphs: Sam2Graphs, attention_bytes: int) -> None:
        self._graphs = graphs
        self._attention_bytes = attention_bytes

    def track(
        self, features: Features, frame_index: int, banks: Mapping[int, MemoryBank]
    ) -> dict[int, Output]:
        """Find objects on a frame from their memories; keys are object ids."""
        contexts = {object_id: bank.context(frame_index) for object_id, bank in banks.items()}
        outputs: dict[int, Output] = {}
        for group in _group({i: c.layout for i, c in contexts.items()}):
            for batch in self._batches(group, len(contexts[group[0]].slots)):
                decoded = self._track_batch(features, [contexts[i] for i in batch])
                outputs.update(_outputs(batch, decoded, prompted=False))
        return outputs

    def prompt(self, features: Features, clicks: Mapping[int, Clicks]) -> dict[int, Output]:
        """Find objects on a frame from clicks or boxes alone; keys are object ids."""
        outputs: dict[int, Output] = {}
        # A padded prompt token still takes part in attention, so only equal counts share a batch.
        for group in _group({i: len(c.labels) for i, c in clicks.items()}):
            for batch in self._batches(group, 1):
                decoded = self._graphs.decode(
                    features,
                    self._graphs.without_memory(features, len(batch)),
                    np.stack([clicks[i].points for i in batch]),
                    np.stack([clicks[i].labels for i in batch]),
                )
                outputs.update(_outputs(batch, decoded, prompted=True))
        return outputs

    def memorise(
        self, features: Features, frame_index: int, outputs: Mapping[int, Output]
    ) -> dict[int, Memory]:
        """Turn the outputs of a frame into memories; keys are object ids.

        Only prompted masks are binarised. transformers binarises all masks of a frame if any object
        is prompted there (`any(is_mask_from_pts)`), so that a prompt changes the other objects; Meta's
        code treats each object alone, as here.
        """
        memories = {}
        for batch in self._batches(list(outputs), 1):
            features_of = self._graphs.memorise(
                features,
                np.stack([outputs[i].logits for i in batch]),
                np.array([outputs[i].score for i in batch], np.float32),
                np.array([outputs[i].prompted for i in batch]),
            )
            for object_id, memory in zip(batch, features_of, strict=True):
                # A copy: a slice would keep the whole batch alive.
                memories[object_id] = Memory(frame_index, memory.copy(), outputs[object_id].pointer)
        return memories

    def _track_batch(self, features: Features, contexts: list[Context]) -> Decoded:
        conditioned = self._graphs.attend(
            features,
            np.stack([np.stack(c.features) for c in contexts]),
            np.array(contexts[0].slots, np.int64),
            np.stack([np.stack(c.pointers) for c in contexts]),
            np.array(contexts[0].distances, np.float32),
        )
        count = len(contexts)
        points = np.zeros((count, 1, 2), np.float32)
        return self._graphs.decode(features, conditioned, points, NO_POINT.repeat(count, 0))

    def _batches(self, objects: list[int], num_memories: int) -> Iterator[list[int]]:
        tokens = (self._graphs.spec.image_size // PATCH) ** 2
        size = max(1, self._attention_bytes // (4 * tokens * tokens * num_memories))
        return (objects[i : i + size] for i in range(0, len(objects), size))


def _group(keys: Mapping[int, Key]) -> Iterable[list[int]]:
    groups: dict[Key, list[int]] = {}
    for object_id, key in keys.items():
        groups.setdefault(key, []).append(object_id)
    return groups.values()


def _outputs(batch: list[int], decoded: Decoded, *, prompted: bool) -> dict[int, Output]:
    return {
        object_id: Output(
            decoded.logits[n], decoded.pointers[n].copy(), float(decoded.scores[n]), prompted
        )
        for n, object_id in enumerate(batch)
    }
