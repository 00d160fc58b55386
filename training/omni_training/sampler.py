"""The order of prompts in a run with several kinds of task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class GroupSampler(Sampler[int]):  # type: ignore[misc]
    """TRL's `RepeatSampler`, with the prompts of one generated batch all of one group.

    Prompts are shuffled within their group and cut into batches; what does not fill a batch is left out of
    that pass (as TRL leaves it out at the end); then the batches of all groups are shuffled. Each epoch
    draws anew. Every process makes the same order from the same seed.
    """

    def __init__(
        self,
        groups: Sequence[str],
        *,
        mini_repeat_count: int,
        batch_size: int,
        repeat_count: int,
        seed: int,
    ) -> None:
        """Prepare an order.

        Args:
            groups: of each prompt, in the order of the data set.
            mini_repeat_count: rollouts of a prompt.
            batch_size: prompts of a generated batch.
            repeat_count: times that a batch is asked for.
            seed: of the shuffles.

        Raises:
            ValueError: no group fills a batch.
        """
        self._members: dict[str, list[int]] = {}
        for index, group in enumerate(groups):
            self._members.setdefault(group, []).append(index)
        self._mini, self._size, self._repeat = mini_repeat_count, batch_size, repeat_count
        self._batches = sum(len(m) // batch_size for m in self._members.values())
        if not self._batches:
            sizes = {g: len(m) for g, m in self._members.items()}
            raise ValueError(f"no group fills a batch of {batch_size} prompts: {sizes}")
        self._generator = torch.Generator()
        self._generator.manual_seed(seed)

    def __iter__(self) -> Iterator[int]:
        batches: list[list[int]] = []
        for members in self._members.values():
            order = [members[i] for i in self._permutation(len(members))]
            whole = len(order) // self._size * self._size
            batches += [order[i : i + self._size] for i in range(0, whole, self._size)]
        for number in self._permutation(len(batches)):
            for _ in range(self._repeat):
                for index in batches[number]:
                    yield from [index] * self._mini

    def __len__(self) -> int:
        return self._batches * self._size * self._mini * self._repeat

    def _permutation(self, count: int) -> list[int]:
        order: list[int] = torch.randperm(count, generator=self._generator).tolist()
        return order
