"""Make the next items of a lazy source in a thread while the current one is in use."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """An iterator over a source that is opened, advanced and closed in one background thread.

    At most `depth` items are held beyond the one in use. What the source raises is raised here, in its
    place. Whoever may stop early must call `close`, which waits for the item in the making.

    Args:
        open_source: makes the iterator; called in the thread.
        depth: at least 1.

    Attributes:
        busy_ms: time spent inside the source.
        waited_ms: of it, how long `next` had to wait.
    """

    def __init__(self, open_source: Callable[[], Iterator[T]], depth: int) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.busy_ms = 0.0
        self.waited_ms = 0.0
        self._open = open_source
        self._room = depth
        self._items: deque[T] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._stopped = False
        self._changed = threading.Condition()
        # A daemon: a source that hangs must not keep the interpreter from ending.
        self._thread = threading.Thread(target=self._work, name="omni-sdk prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        started = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended)
            self.waited_ms += 1e3 * (time.perf_counter() - started)
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """End the source; may be called more than once. Later calls of `next` end the iteration."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._error = None
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            source = self._open()
            try:
                self._advance(source)
            finally:
                if (close := getattr(source, "close", None)) is not None:
                    close()
        except BaseException as e:  # handed to the thread that asks for the next item
            error = e
        with self._changed:
            self._error = None if self._stopped else error
            self._ended = True
            self._changed.notify_all()

    def _advance(self, source: Iterator[T]) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or len(self._items) < self._room)
                if self._stopped:
                    return
            started = time.perf_counter()
            try:
                item = next(source)
            except StopIteration:
                return
            finally:
                self.busy_ms += 1e3 * (time.perf_counter() - started)
            with self._changed:
                if not self._stopped:
                    self._items.append(item)
                    self._changed.notify_all()
