"""Threads that work ahead and behind: order, bounds, errors and ends."""

import threading
import time

import pytest

from ray_kplm.steps.stages import Afterwards, in_background


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stage")]


def test_items_come_in_order_and_from_another_thread():
    made = ((number, threading.current_thread().name) for number in range(50))
    assert list(in_background(made, 2, "stage")) == [(number, "stage") for number in range(50)]
    assert threads() == []


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_items_are_made_ahead_than_may_wait(ahead):
    made = []
    items = in_background((made.append(number) or number for number in range(100)), ahead, "stage")
    assert next(items) == 0
    deadline = time.monotonic() + 20
    while len(made) < ahead + 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(made) == ahead + 2  # one is taken, `ahead` wait, and one waits for room
    items.close()
    assert threads() == []


def test_an_error_comes_after_the_items_before_it():
    def failing():
        yield 1
        raise OSError("the disk is full")

    items = in_background(failing(), 1, "stage")
    assert next(items) == 1
    with pytest.raises(OSError, match="the disk is full"):
        next(items)
    assert threads() == []


def test_what_makes_the_items_is_closed_with_them():
    closed = []

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    items = in_background(in_background(endless(), 1, "stage-1"), 1, "stage-2")
    next(items)
    items.close()
    assert closed == ["stage-1"]
    assert threads() == []


def test_results_come_in_order_and_only_those_that_are_asked_for():
    done = []
    with Afterwards[int](1, "stage") as after:
        for number in range(5):
            after.call(done.append, number)
            after.finish(lambda number=number: number * 10)
        assert list(after.finished(wait=True)) == [0, 10, 20, 30, 40]
    assert done == [0, 1, 2, 3, 4]
    assert threads() == []


def test_the_caller_waits_if_too_much_waits():
    go, begun = threading.Event(), []

    def work():
        begun.append(1)
        go.wait(20)

    def give(after):
        for _ in range(4):
            after.call(work)
        given.set()

    given = threading.Event()
    with Afterwards[None](2, "stage") as after:
        giver = threading.Thread(target=give, args=[after])
        giver.start()
        assert not given.wait(0.2)  # the fourth waits until one of the three is done
        go.set()
        assert given.wait(20)
        giver.join()
    assert len(begun) == 4


def test_after_an_error_nothing_later_is_done():
    done, go = [], threading.Event()

    def fail():
        go.wait(20)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), Afterwards[None](3, "stage") as after:  # noqa: PT012
        after.call(fail)
        after.finish(done.append, 1)
        go.set()
        list(after.finished(wait=True))
    assert done == []
    assert threads() == []
