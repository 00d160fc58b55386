"""The order of prompts in a run, of one or of several kinds of task.

Note [Order after a resume]
    TRL's `RepeatSampler` draws each pass from one generator that goes on from pass to pass. A resumed run
    makes it anew, so from the second pass on it repeats the first pass's order, and trains on other prompts
    than a run that was never stopped. Here a pass's order depends on the seed and the number of the pass
    alone, and the trainer's own state, which a checkpoint holds, says which pass it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

import torch
from torch.utils.data import Sampler


class GroupSampler(Sampler[int]):  # type: ignore[misc]
    """TRL's `RepeatSampler`, with the prompts of one generated batch all of one group.

    Prompts are shuffled within their group and cut into batches; what does not fill a batch is left out of
    that pass (as TRL leaves it out at the end); then the batches of all groups are shuffled. Each pass
    draws anew; see Note [Order after a resume]. Every process makes the same order from the same seed.
    """

    def __init__(
        self,
        groups: Sequence[str],
        *,
        mini_repeat_count: int,
        batch_size: int,
        repeat_count: int,
        seed: int,
        passes: Callable[[], int] | None = None,
    ) -> None:
        """Prepare an order.

        Args:
            groups: of each prompt, in the order of the data set.
            mini_repeat_count: rollouts of a prompt.
            batch_size: prompts of a generated batch.
            repeat_count: times that a batch is asked for.
            seed: of the shuffles.
            passes: tells how many passes are complete, asked when one begins; None: those begun here.

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
        self._seed = seed
        self._begun = 0
        self._passes = passes

    def __iter__(self) -> Iterator[int]:
        number = self._begun if self._passes is None else self._passes()
        self._begun += 1
        # Python's own generator mixes the words of a text; torch's takes neighbouring seeds as they are.
        generator = torch.Generator().manual_seed(Random(f"{self._seed} {number}").getrandbits(63))
        batches: list[list[int]] = []
        for members in self._members.values():
            order = [members[i] for i in _permutation(len(members), generator)]
            whole = len(order) // self._size * self._size
            batches += [order[i : i + self._size] for i in range(0, whole, self._size)]
        for batch in _permutation(len(batches), generator):
            for _ in range(self._repeat):
                for index in batches[batch]:
                    yield from [index] * self._mini

    def __len__(self) -> int:
        return self._batches * self._size * self._mini * self._repeat


def _permutation(count: int, generator: torch.Generator) -> list[int]:
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order
