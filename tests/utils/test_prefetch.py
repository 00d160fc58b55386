"""Prefetching changes when items are made, and nothing else."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omni_sdk.utils.prefetch import Prefetch


def _source(count, log, error_at=None, error=None):
    log.append(("opened", threading.current_thread()))
    try:
        for i in range(count):
            if i == error_at:
                raise error
            log.append(("made", i))
            yield i
    finally:
        log.append(("closed", threading.current_thread()))


def _alive():
    return [t for t in threading.enumerate() if t.name == "omni-sdk prefetch"]


@given(st.integers(0, 20), st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_the_same_items_in_order(count, depth):
    items = Prefetch(lambda: iter(range(count)), depth)
    assert list(items) == list(range(count))
    assert list(items) == []
    items.close()


def test_one_thread_opens_advances_and_closes():
    log = []
    assert list(Prefetch(lambda: _source(3, log), 2)) == [0, 1, 2]
    (opened, first), *_, (closed, last) = log
    assert (opened, closed) == ("opened", "closed")
    assert first is last is not threading.current_thread()


def test_no_more_than_depth_ahead():
    log = []
    items = Prefetch(lambda: _source(100, log), 3)
    assert next(items) == 0
    deadline = time.monotonic() + 10
    while len(log) < 5 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert [entry for entry in log if entry[0] == "made"] == [("made", i) for i in range(4)]
    items.close()
    assert log[-1][0] == "closed"
    assert not _alive()


@pytest.mark.parametrize("error", [ValueError("bad frame"), KeyboardInterrupt(), MemoryError()])
def test_errors_come_in_their_place(error):
    items = Prefetch(lambda: _source(5, [], 3, error), 2)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(type(error)) as raised:
        next(items)
    assert raised.value is error
    with pytest.raises(StopIteration):
        next(items)


def test_an_error_while_opening():
    def fail():
        raise OSError("cannot open")

    with pytest.raises(OSError, match="cannot open"):
        next(Prefetch(fail, 1))


def test_closing_early():
    """While the source waits for room, and while it is in the middle of an item."""
    log, gate = [], threading.Event()

    def slow():
        yield 0
        gate.wait(10)
        yield 1

    waiting = Prefetch(lambda: _source(100, log), 1)
    next(waiting)
    waiting.close()
    waiting.close()
    assert log[-1][0] == "closed"
    assert list(waiting) == []
    busy = Prefetch(slow, 1)
    assert next(busy) == 0
    threading.Timer(0.05, gate.set).start()
    busy.close()
    assert list(busy) == []
    assert not _alive()


def test_time_is_accounted_for():
    def slow():
        for i in range(4):
            time.sleep(0.02)
            yield i

    items = Prefetch(slow, 4)
    next(items)
    time.sleep(0.12)
    list(items)
    assert items.busy_ms >= 75
    assert items.waited_ms < items.busy_ms


def test_depth():
    with pytest.raises(ValueError, match="depth"):
        Prefetch(lambda: iter([]), 0)
