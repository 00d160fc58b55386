"""SAM 2 over a whole clip: prompts on several frames -> a mask of each object in every frame.

Note [One run]
    Forward from the first prompted frame to the end of the clip. On a prompted frame, the objects known
    so far are tracked first and the new boxes matched with them (Hungarian, on the IoU of the box and
    the box around the mask tracked there); a matched box conditions its object again, the others start
    new objects. Then one walk backward, from the last object's first prompted frame to frame 0, in
    which each object joins at its own first prompted frame.

    An object's masks are those of a transformers session that holds it alone: propagate to the frame
    before the next prompt, prompt there, go on; then propagate in reverse from the first prompt.
    Sessions with several objects differ, see `Propagator.memorise`, and a prompt on a frame that was
    already propagated is no conditioning frame there; here every prompted frame is one. Masks grow from
    the low resolution to the source's in one bilinear step, as in Meta's predictor (transformers'
    `post_process_masks` passes through S x S pixels).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from omni_sdk.dus.assignment import match_by_iou
from omni_sdk.dus.boxes import box_iou
from omni_sdk.dus.flow.gap import MAX_GAP, Gap
from omni_sdk.dus.masks import logits_to_rle, logits_to_rles, rle_box
from omni_sdk.dus.sam2.graphs import Features, Sam2Graphs
from omni_sdk.dus.sam2.memory import MemoryBank, MemoryLimits
from omni_sdk.dus.sam2.prompts import Clicks, PlannedPrompt, plan_prompts
from omni_sdk.dus.sam2.propagation import Output, Propagator
from omni_sdk.errors import MediaError
from omni_sdk.stages import FrameMasks, ObjectMask
from omni_sdk.utils.prefetch import Prefetch

if TYPE_CHECKING:
    from omni_sdk.bundle.bundle import Bundle
    from omni_sdk.config import TrackingConfig
    from omni_sdk.engines.base import EngineLoader
    from omni_sdk.media.frames import VideoFrame
    from omni_sdk.stages import FrameSource, KeyframePrompt

MAX_OBJECTS = 256
ATTENTION_BYTES = 512 << 20


class Sam2Tracker:
    """`omni_sdk.stages.Tracker` over the SAM 2 graphs; holds no state of a run."""

    def __init__(
        self,
        graphs: Sam2Graphs,
        *,
        max_objects: int = MAX_OBJECTS,
        attention_bytes: int = ATTENTION_BYTES,
    ) -> None:
        """Wrap graphs.

        Args:
            graphs: the model.
            max_objects: most boxes in one run.
            attention_bytes: bound, in bytes, on the attention scores of objects that share a batch.
        """
        self._graphs = graphs
        self._max_objects = max_objects
        self._attention_bytes = attention_bytes

    @classmethod
    def open(cls, loader: EngineLoader, bundle: Bundle) -> Sam2Tracker:
        """Load a bundle's tracker; raises what `Sam2Graphs.open` raises."""
        return cls(Sam2Graphs.open(loader, bundle))

    @property
    def image_size(self) -> int:
        """Side S in pixels of the square images that the tracker reads."""
        return self._graphs.spec.image_size

    @property
    def graphs(self) -> Sam2Graphs:
        """The model that every run works with."""
        return self._graphs

    def with_graphs(self, graphs: Sam2Graphs) -> Sam2Tracker:
        """Return a tracker with the same bounds over other graphs, e.g. ones that remember encodings."""
        return Sam2Tracker(
            graphs, max_objects=self._max_objects, attention_bytes=self._attention_bytes
        )

    def track(
        self, frames: FrameSource, prompts: Sequence[KeyframePrompt], config: TrackingConfig
    ) -> Sam2Run:
        """Prepare a run; frames are read and masks made while it is iterated.

        Args:
            frames: the source.
            prompts: in any order; clicks without a box name earlier objects by `object_ids` only.
            config: options. Without `backward`, frames before the first prompted one are neither read
                nor yielded, and an object has no entry before its own first prompt.

        Raises:
            PromptError: see `plan_prompts`. While iterating: none.
        """
        planned = plan_prompts(
            prompts,
            num_frames=frames.num_frames,
            size_hw=(frames.height, frames.width),
            image_size=self.image_size,
            max_objects=self._max_objects,
        )
        spec = self._graphs.spec
        limits = MemoryLimits(
            spec.num_memories,
            min(frames.num_frames, spec.max_object_pointers),
            config.max_conditioning,
            # Pointers are kept as far back as even strides of that length would keep them.
            stride=MAX_GAP if config.stride == "auto" else config.stride,
            by_order=config.stride == "auto",
        )
        propagator = Propagator(self._graphs, self._attention_bytes)
        return Sam2Run(self._graphs, propagator, frames, planned, limits, config)


class Sam2Run:
    """A run in progress; see `omni_sdk.stages.TrackingRun`. Iterating again goes on, it does not restart.

    Attributes:
        object_ids: for each prompt, in the caller's order, the objects of its boxes; complete at the
            end.
        timings_ms: "encode", "propagate" (attention, decoder, memory), "mask" (to RLE, matching) and
            "carry" (masks of frames that were not tracked).
    """

    def __init__(
        self,
        graphs: Sam2Graphs,
        propagator: Propagator,
        frames: FrameSource,
        prompts: list[PlannedPrompt],
        limits: MemoryLimits,
        config: TrackingConfig,
    ) -> None:
        self.object_ids: list[tuple[int, ...]] = [()] * len(prompts)
        self.timings_ms = {"encode": 0.0, "propagate": 0.0, "mask": 0.0}
        if config.stride != 1:
            self.timings_ms["carry"] = 0.0
        self._graphs = graphs
        self._propagator = propagator
        self._frames = frames
        self._size = (frames.height, frames.width)
        self._waiting_prompts = [p for p in prompts if p.clicks]
        self._given_ids = {i for p in prompts for i in p.object_ids or ()}
        self._limits = limits
        self._config = config
        self._banks: dict[int, MemoryBank] = {}
        self._ahead: Features | None = None
        self._frame_masks = self._run()

    def close(self) -> None:
        """End the run early; what was being encoded ahead is finished first."""
        self._frame_masks.close()

    def __iter__(self) -> Iterator[FrameMasks]:
        return self._frame_masks

    def _run(self) -> Generator[FrameMasks, None, None]:
        waiting: list[FrameMasks] = []  # until no prompt to come can start an object
        early: dict[int, FrameMasks] = {}  # until the backward walk has added the later objects
        for done in self._forward():
            waiting.append(done)
            if self._config.backward and self._may_start_objects():
                continue
            last = self._last_start() if self._config.backward else 0
            for item in waiting:
                if item.frame_index < last:
                    early[item.frame_index] = item
                else:
                    yield item
            waiting.clear()
        if self._config.backward:
            for done in self._backward():
                known = early.pop(done.frame_index, done)
                masks = {m.object_id: m for m in (*known.masks, *done.masks)}
                yield replace(done, masks=tuple(mask for _, mask in sorted(masks.items())))
        # Frames that the source did not give a second time keep what the forward pass found.
        for done in early.values():
            yield done

    def _may_start_objects(self) -> bool:
        known = self._banks.keys()
        return any(p.object_ids is None or set(p.object_ids) - known for p in self._waiting_prompts)

    def _last_start(self) -> int:
        """The last of the objects' first prompted frames."""
        return max(bank.first for bank in self._banks.values())

    def _forward(self) -> Iterator[FrameMasks]:
        start = self._waiting_prompts[0].frame_index
        gap = self._new_gap()
        for frame in self._walk(self._frames.forward, start, self._frames.num_frames):
            here = [p for p in self._waiting_prompts if p.frame_index == frame.frame_index]
            if gap is not None and not here and self._hold(gap, frame, self._banks.keys()):
                continue
            features = self._encode(frame)
            del self._waiting_prompts[: len(here)]
            yield from self._fill(gap, frame, self._step(frame, features, here))
        yield from self._fill_rest(gap)
        if self._waiting_prompts:
            missing = self._waiting_prompts[0].frame_index
            raise MediaError(f"frame {missing} holds a prompt, but the source ended before it")

    def _step(self, frame: VideoFrame, features: Features, here: list[PlannedPrompt]) -> FrameMasks:
        """One frame forward, prompts included."""
        index = frame.frame_index
        renewed = {i for p in here for i in p.object_ids or ()}
        with self._timed("propagate"):
            tracked = {i: bank for i, bank in self._banks.items() if i not in renewed}
            outputs = self._propagator.track(features, index, tracked)
        for prompt in here:
            clicks = self._assign(prompt, outputs)
            with self._timed("propagate"):
                outputs.update(self._propagator.prompt(features, clicks))
        with self._timed("propagate"):
            memories = self._propagator.memorise(features, index, outputs)
        for object_id, memory in memories.items():
            bank = self._banks.setdefault(object_id, MemoryBank(self._limits))
            if outputs[object_id].prompted:
                bank.condition(memory)
            else:
                bank.remember(memory)
        return self._finish(frame, outputs)

    def _assign(self, prompt: PlannedPrompt, outputs: dict[int, Output]) -> dict[int, Clicks]:
        """Give each box of a prompt its object; return those that are to be prompted.

        `outputs` holds the objects on this frame, those of an earlier prompt of the same frame
        included: a second box on one of these names it again and changes nothing.
        """
        ids = prompt.object_ids or self._matched_ids(prompt, outputs)
        self.object_ids[prompt.position] = ids
        return {
            object_id: clicks
            for object_id, clicks in zip(ids, prompt.clicks, strict=True)
            if object_id not in outputs or not outputs[object_id].prompted
        }

    def _matched_ids(self, prompt: PlannedPrompt, outputs: dict[int, Output]) -> tuple[int, ...]:
        with self._timed("mask"):
            known, known_boxes = [], []
            for object_id, output in outputs.items():
                box = rle_box(logits_to_rle(output.logits, self._size), self._size)
                if output.score > 0 and any(box):
                    known.append(object_id)
                    known_boxes.append(box)
            # A click has no box: it starts a new object unless the caller names one.
            boxes = [np.zeros(4) if c.box_xyxy is None else c.box_xyxy for c in prompt.clicks]
            matches = match_by_iou(
                box_iou(np.stack(boxes), np.reshape(known_boxes, (-1, 4))), self._config.match_iou
            )
            taken = self._given_ids | self._banks.keys() | outputs.keys()
            fresh = (i for i in count(1) if i not in taken)
            return tuple(known[m] if m >= 0 else next(fresh) for m in matches)

    def _backward(self) -> Iterator[FrameMasks]:
        last = self._last_start()
        if last == 0:
            return
        for bank in self._banks.values():
            bank.rewind()
        gap = self._new_gap()
        for frame in self._walk(self._frames.backward, last - 1, -1):
            banks = {i: bank for i, bank in self._banks.items() if bank.first > frame.frame_index}
            if gap is not None and self._hold(gap, frame, banks.keys()):
                continue
            features = self._encode(frame)
            with self._timed("propagate"):
                outputs = self._propagator.track(features, frame.frame_index, banks)
                memories = self._propagator.memorise(features, frame.frame_index, outputs)
            for object_id, memory in memories.items():
                banks[object_id].remember(memory)
            yield from self._fill(gap, frame, self._finish(frame, outputs))
        yield from self._fill_rest(gap)

    def _new_gap(self) -> Gap | None:
        stride = self._config.stride
        return None if stride == 1 else Gap(stride, self._size)

    def _walk(
        self, walk: Callable[..., Iterator[VideoFrame]], start: int, stop: int
    ) -> Iterator[VideoFrame]:
        stride = self._config.stride
        frames = walk(start, stop, luma=stride != 1)
        return self._encoded_ahead(frames) if self._config.encode_ahead and stride == 1 else frames

    def _encoded_ahead(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Yield frames whose features are there, or nearly: the next one's are made meanwhile."""
        pairs = Prefetch(lambda: ((f, self._graphs.encode(f.image)) for f in frames), 1)
        try:
            while True:
                with self._timed("encode"):
                    pair = next(pairs, None)
                if pair is None:
                    return
                frame, self._ahead = pair
                yield frame
        finally:
            pairs.close()

    def _hold(self, gap: Gap, frame: VideoFrame, object_ids: Iterable[int]) -> bool:
        with self._timed("carry"):
            return gap.hold(frame, set(object_ids))

    def _fill(self, gap: Gap | None, frame: VideoFrame, done: FrameMasks) -> Iterator[FrameMasks]:
        """A tracked frame, after the frames that waited for it."""
        if gap is not None:
            with self._timed("carry"):
                filled = gap.fill(frame, done.masks)
            yield from filled
        yield done

    def _fill_rest(self, gap: Gap | None) -> Iterator[FrameMasks]:
        if gap is not None:
            with self._timed("carry"):
                filled = gap.rest()
            yield from filled

    def _encode(self, frame: VideoFrame) -> Features:
        if (ahead := self._ahead) is not None:
            self._ahead = None
            return ahead
        with self._timed("encode"):
            return self._graphs.encode(frame.image)

    def _finish(self, frame: VideoFrame, outputs: dict[int, Output]) -> FrameMasks:
        with self._timed("mask"):
            # Logits of an absent object are -1024 everywhere: its mask is empty.
            logits = np.stack([output.logits for output in outputs.values()])
            masks = [
                ObjectMask(i, counts, output.score)
                for (i, output), counts in zip(
                    outputs.items(), logits_to_rles(logits, self._size), strict=True
                )
            ]
        ordered = tuple(sorted(masks, key=lambda mask: mask.object_id))
        return FrameMasks(frame.frame_index, frame.pts_seconds, ordered)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings_ms[name] += 1e3 * (time.perf_counter() - start)
