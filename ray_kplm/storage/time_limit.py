"""A time limit for requests to object stores, and a notice about file systems that block.

A request to an object store runs in a thread of its own, which the caller leaves behind when the limit is over. So a server
that accepts a connection and never answers, or that sends a byte a second, ends in an error, and Ctrl-C works meanwhile. What
a request does after it was left behind is not published: `check_wanted` stands before that act.

A call into a file system of this machine cannot be given up while the kernel waits for a server; a network file system that
is mounted hard waits for ever. Such a call is made in place, as a thread would cost more than it, and `watched` says that it
waits.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
SLOWEST_BYTES_S = 256 * 2**10
"""The limit grows by the time that the content takes at this rate: 2 Mbit/s."""
_SLICE_S = 1.0
"""The limit is counted in slices, so that time in which this process itself was suspended does not count."""
_WATCH_S = 5.0
_GRACE_S = 0.2


class TimeLimitError(Exception):
    """A request took longer than its limit."""


class TimeLimit:
    """How long a request may take, its repetitions included, and how long it has taken."""

    def __init__(self, limit_s: float, notice_s: float, notify: Callable[[], None]) -> None:
        """Set the limit.

        Args:
            limit_s: the limit, seconds.
            notice_s: the time after which `notify` is called, seconds.
            notify: called once if the request takes longer than that.
        """
        self.limit_s, self.waited_s = limit_s, 0.0
        self.is_abandoned = False
        self._notice_s, self._notify = notice_s, notify

    @property
    def left_s(self) -> float:
        """Return the time that is left, seconds."""
        return self.limit_s - self.waited_s

    def call(self, request: Callable[[], T]) -> T:
        """Return what the request returns, or raise what it raises.

        Raises:
            TimeLimitError: the limit is over.
        """
        answer = _Answer(self)
        try:
            worker = _idle.pop()
        except IndexError:
            worker = _Worker()
        worker.make(request, answer)
        try:
            while not answer.ready.wait(max(0.0, min(_SLICE_S, self.left_s))):
                self._count(max(1e-3, min(_SLICE_S, self.left_s)))
                if self.left_s <= 0 and not answer.ready.is_set():
                    raise TimeLimitError
        except BaseException:  # Ctrl-C as well
            self.is_abandoned = True
            _left_behind.append(answer)
            raise
        if answer.error is not None:
            raise answer.error
        return answer.value  # type: ignore[no-any-return]

    def sleep(self, pause_s: float) -> None:
        """Pause before the request is repeated."""
        time.sleep(pause_s)
        self._count(pause_s)

    def _count(self, seconds: float) -> None:
        before, self.waited_s = self.waited_s, self.waited_s + seconds
        if before < self._notice_s <= self.waited_s:
            self._notify()


def allow(content_bytes: int) -> None:
    """Extend the limit of the request that runs in this thread by what its content takes at the slowest rate."""
    limit = _limit_here()
    if limit is not None:
        limit.limit_s += content_bytes / SLOWEST_BYTES_S


def check_wanted() -> None:
    """Raise TimeLimitError if the request that runs in this thread was left behind: it must publish nothing any more."""
    limit = _limit_here()
    if limit is not None and limit.is_abandoned:
        raise TimeLimitError


def is_within_request() -> bool:
    """Return whether a request runs in this thread, whose limit holds for all that it does."""
    return _limit_here() is not None


class _Answer:
    """What becomes of a call."""

    def __init__(self, limit: TimeLimit) -> None:
        self.limit = limit
        self.value: Any = None
        self.error: BaseException | None = None
        self.ready = threading.Event()


class _Worker:
    """A thread that makes one request at a time. It is a daemon: where it is stuck, it does not keep the process alive."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], _Answer]] = SimpleQueue()
        threading.Thread(target=self._serve, name="storage", daemon=True).start()

    def make(self, request: Callable[[], Any], answer: _Answer) -> None:
        """Make the request, and set the answer."""
        self._calls.put((request, answer))

    def _serve(self) -> None:
        while True:
            request, answer = self._calls.get()
            _here.limit = answer.limit
            try:
                answer.value = request()
            except BaseException as error:
                answer.error = error
            _idle.append(self)
            answer.ready.set()
            del request, answer  # not kept until the next request


_here = threading.local()
_idle: list[_Worker] = []
"""Workers without a request."""
_left_behind: list[_Answer] = []
_STUCK = 4
"""Exit code of a process that would not end by itself: that of `StorageError`."""


def end_in_spite_of_stuck_requests() -> None:
    """End the process at once if a request that was left behind has not ended: pyarrow would wait for it at the exit.

    `ray_kplm.storage` registers it to run just before pyarrow's own exit function (pyarrow 25). `kplm` has its own exit codes.
    """
    if not all(answer.ready.wait(_GRACE_S) for answer in _left_behind):
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # it may be closed
                stream.flush()
        os._exit(_STUCK)


@contextmanager
def watched(notice_s: float, notify: Callable[[], None]) -> Iterator[None]:
    """Call `notify`, from another thread, if the block takes longer than `notice_s` seconds."""
    entry = object()
    _watch.blocks[entry] = (time.monotonic() + notice_s, notify)
    _watch.start()
    try:
        yield
    finally:
        _watch.blocks.pop(entry, None)


class _Watch:
    """A thread that looks every few seconds whether a block that is watched takes too long."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin without a thread and without blocks, as a forked process does."""
        self.blocks: dict[object, tuple[float, Callable[[], None]]] = {}
        self._is_started = False

    def start(self) -> None:
        """Start the thread, once."""
        if not self._is_started:
            self._is_started = True
            threading.Thread(target=self._look, name="storage-watch", daemon=True).start()

    def _look(self) -> None:
        while True:
            time.sleep(_WATCH_S)
            now = time.monotonic()
            for entry, (until, notify) in list(self.blocks.items()):
                if now > until and entry in self.blocks:
                    self.blocks.pop(entry, None)
                    notify()


_watch = _Watch()


def _forget_threads() -> None:
    _idle.clear()
    _left_behind.clear()
    _watch.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)  # a child has no threads but the one that forked


def _limit_here() -> TimeLimit | None:
    return getattr(_here, "limit", None)
