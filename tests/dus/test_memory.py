from __future__ import annotations

from types import MethodType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Sam2VideoModel

from omni_sdk.dus.sam2.memory import Context, Memory, MemoryBank, MemoryLimits

MEMORIES, POINTERS = 7, 16


def _memory(index: int) -> Memory:
    """A memory that tells which frame it is of."""
    return Memory(index, np.full((1, 1), index, np.float32), np.full(1, index, np.float32))


class Upstream:
    """transformers' own selection, on a session whose outputs only name their frames."""

    def __init__(self, num_frames: int, max_conditioning: int) -> None:
        config = SimpleNamespace(
            max_cond_frame_num=max_conditioning, max_object_pointers_in_encoder=POINTERS
        )
        self._self = SimpleNamespace(config=config, num_maskmem=MEMORIES, training=False)
        self._self._select_closest_cond_frames = MethodType(
            Sam2VideoModel._select_closest_cond_frames, self._self
        )
        outputs = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        self._session = SimpleNamespace(output_dict_per_obj={0: outputs})
        self._outputs = outputs
        self._num_frames = num_frames

    def store(self, index: int, *, prompted: bool) -> None:
        kind = "cond_frame_outputs" if prompted else "non_cond_frame_outputs"
        self._outputs[kind][index] = {"frame": index, "object_pointer": torch.tensor(index)}

    def select(
        self, index: int, *, reverse: bool
    ) -> tuple[set[tuple[int, int]], set[tuple[int, float]]]:
        found = Sam2VideoModel._gather_memory_frame_outputs(
            self._self, self._session, 0, index, reverse
        )
        memories = {(out["frame"], (k - 1) % MEMORIES) for k, out in found if out is not None}
        offsets, tokens, most = Sam2VideoModel._get_object_pointers(
            self._self, self._session, 0, index, self._num_frames, torch.device("cpu"), reverse
        )
        pairs = zip(tokens, offsets, strict=True)
        return memories, {(int(t), round(o / max(most - 1, 1), 6)) for t, o in pairs}


def _ours(context: Context) -> tuple[set[tuple[int, int]], set[tuple[int, float]]]:
    memories = [int(f[0, 0]) for f in context.features]
    pointers = [int(p[0]) for p in context.pointers]
    assert len(set(memories)) == len(memories)
    assert len(set(pointers)) == len(pointers)
    distances = [round(d, 6) for d in context.distances]
    return (
        set(zip(memories, context.slots, strict=True)),
        set(zip(pointers, distances, strict=True)),
    )


@settings(deadline=None, max_examples=80)
@given(
    st.integers(2, 45).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1, max_size=12))
    ),
    st.integers(1, 14),
)
def test_selects_what_transformers_selects(
    run: tuple[int, set[int]], max_conditioning: int
) -> None:
    num_frames, prompted = run
    bank = MemoryBank(MemoryLimits(MEMORIES, min(num_frames, POINTERS), max_conditioning))
    upstream = Upstream(num_frames, max_conditioning)
    first = min(prompted)

    def compare(index: int, *, reverse: bool) -> None:
        memories, pointers = _ours(bank.context(index))
        expected_memories, expected_pointers = upstream.select(index, reverse=reverse)
        assert memories == expected_memories
        # The one difference: pointers of prompted frames that are not selected are left out.
        selected = {frame for frame, slot in memories if slot == MEMORIES - 1}
        left_out = prompted - selected
        assert pointers == {p for p in expected_pointers if p[0] not in left_out}
        if max_conditioning >= len(prompted):
            assert pointers == expected_pointers

    for index in range(first, num_frames):
        if index not in prompted:
            compare(index, reverse=False)
            bank.remember(_memory(index))
        else:
            bank.condition(_memory(index))
        upstream.store(index, prompted=index in prompted)
    bank.rewind()
    for index in range(first - 1, -1, -1):
        compare(index, reverse=True)
        bank.remember(_memory(index))
        upstream.store(index, prompted=False)


def test_size_does_not_grow() -> None:
    bank = MemoryBank(MemoryLimits(MEMORIES, POINTERS, 2))
    for index in range(400):
        (bank.condition if index % 3 == 0 else bank.remember)(_memory(index))
    held = len(bank.conditioning) + len(bank.recent) + len(bank.pointers) + len(bank.early)
    assert held + len(bank.early_pointers) < 60
    assert bank.first == 0


def test_stride_counts_steps_for_memories_and_real_frames_for_pointers() -> None:
    bank = MemoryBank(MemoryLimits(MEMORIES, POINTERS, 4, stride=4))
    bank.condition(_memory(0))
    for index in (4, 8, 12):
        bank.remember(_memory(index))
    context = bank.context(16)
    assert dict(zip((int(f[0, 0]) for f in context.features), context.slots, strict=True)) == {
        0: 6,
        4: 2,
        8: 1,
        12: 0,
    }
    assert [round(15 * d) for d in context.distances] == [16, 4, 8, 12]


def test_layout_tells_batches_apart() -> None:
    limits = MemoryLimits(MEMORIES, POINTERS, 4)
    a, b, c = (MemoryBank(limits) for _ in range(3))
    a.condition(_memory(0))
    b.condition(_memory(0))
    c.condition(_memory(1))
    assert a.context(3).layout == b.context(3).layout != c.context(3).layout


@pytest.mark.parametrize("num_frames", [1, 2])
def test_short_clips(num_frames: int) -> None:
    bank = MemoryBank(MemoryLimits(MEMORIES, num_frames, 4))
    bank.condition(_memory(0))
    assert bank.context(1).distances == (1.0,)
