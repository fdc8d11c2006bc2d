"""Stages of a worker that overlap: what one reads, the next decodes, the network computes and another writes.

Threads are joined by queues of bounded length, so memory is bounded by their lengths. An error in a thread reaches the caller
as it is, and no thread is left when an iterator ends or is closed.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_LOOK_S = 0.05
"""Time between two looks of a thread that waits for room whether it is still wanted."""


class _End:
    """The last in a queue: the end of the items, or the error that ended them."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def in_background(items: Iterator[T], ahead: int, name: str) -> Generator[T]:
    """Yield items that a thread makes while the caller works on those before.

    Args:
        items: Are made in the thread.
        ahead: Number of finished items that may wait for the caller.
        name: Of the thread.
    """
    waiting: queue.Queue[Any] = queue.Queue(ahead)
    unwanted = threading.Event()

    def put(item: Any) -> bool:
        while not unwanted.is_set():
            with suppress(queue.Full):
                waiting.put(item, timeout=_LOOK_S)
                return True
        return False

    def make() -> None:
        end = _End()
        try:
            for item in items:
                if not put(item):
                    break
        except BaseException as error:
            end = _End(error)
        finally:
            if isinstance(items, Generator):
                items.close()
        put(end)

    thread = threading.Thread(target=make, name=name, daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        unwanted.set()
        thread.join()


class Afterwards(Generic[R]):
    """A thread that does what follows, in the order in which it is given, while the caller goes on.

    After an error nothing that was given later is done. A context manager: what is still to do when its block ends is done, or
    given up if an error ended the block.
    """

    def __init__(self, behind: int, name: str) -> None:
        """Do nothing yet.

        Args:
            behind: Number of calls that may wait; with more the caller waits.
            name: Of the thread.
        """
        self._behind, self._calls = behind, deque[Future[Any]]()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._results = deque[Future[R]]()
        self._error: BaseException | None = None

    def __enter__(self) -> Afterwards[R]:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=kind is not None)

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have a function called, after a wait if too many calls wait. Raises the error of an earlier call."""
        self._submit(function, *arguments)

    def finish(self, function: Callable[..., R], *arguments: Any) -> None:
        """Have a function called whose result `finished` yields: see `call`."""
        self._results.append(self._submit(function, *arguments))

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        while len(self._calls) > self._behind:
            self._calls.popleft().result()
        self._calls.append(self._thread.submit(self._call, function, *arguments))
        return self._calls[-1]

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self._error is not None:
            raise self._error
        try:
            return function(*arguments)
        except BaseException as error:
            self._error = error
            raise

    def finished(self, *, wait: bool = False) -> Iterator[R]:
        """Yield the results that are there, in order; with `wait` all of them."""
        while self._results and (wait or self._results[0].done()):
            yield self._results.popleft().result()
