"""One thread that does the long work of the page: the network runs there alone, and what is looked at comes first."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

_T = TypeVar("_T")
SHOWN, ASKED, LATER = 0, 1, 2
"""Order of work: what the page waits for, what a button began, and what is computed ahead."""


class Worker:
    """A thread that takes work by its urgency, and in order within one."""

    def __init__(self) -> None:
        self._work: queue.PriorityQueue[tuple[int, int, Callable[[], None]]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        threading.Thread(target=self._run, name="view", daemon=True).start()

    def submit(self, urgency: int, work: Callable[[], _T]) -> Future[_T]:
        """Have work done; the future has its result, or its error."""
        future: Future[_T] = Future()

        def done() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except BaseException as error:  # the thread goes on
                future.set_exception(error)

        self._work.put((urgency, next(self._numbers), done))
        return future

    def _run(self) -> Any:
        while True:
            self._work.get()[2]()
