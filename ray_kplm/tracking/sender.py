"""From the spool to the store, in the background: training never waits for a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from ray_kplm.storage import Folder
from ray_kplm.tracking.spool import Point, Spool
from ray_kplm.tracking.store import RunDeletedError, Store
from ray_kplm.tracking.system import SystemMetrics

_EVERY_S = 1.0
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
"""Between two attempts to reach a server that does not answer; each pause is twice the one before."""
_GRACE_S = 5.0
"""For the last attempt of a process that is being stopped."""
_REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")

Say = Callable[[str], None]


class Sender:
    """Points go to memory, within a second to the spool, and from there, in their order, to the store.

    What the store has got leaves the spool; so what an attempt, a process or a server did not survive is sent by the next one.
    """

    def __init__(self, store: Store, spool: Spool, say: Say) -> None:
        self.store, self.spool, self.say = store, spool, say
        self._new: list[Point] = []
        self._memory = threading.Lock()  # of what is new; never held while storage or the store is waited for
        self._lock = threading.Lock()  # of the spool
        self._sending = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._system: SystemMetrics | None = None
        self._pause, self._next = 0.0, 0.0
        self._waits = not spool.is_empty()
        self._warned = self._greeted = self._thin = self._complained = False

    def put(self, points: Sequence[Point]) -> None:
        """Never waits for more than memory."""
        with self._memory:
            self._new += points

    def put_file(self, path: str, content: bytes) -> None:
        """To the spool, now."""
        with self._lock:
            self.spool.put_file(path, content)
            self._waits = True

    def put_model(self, keep: Callable[[Folder], None]) -> None:
        """To the spool, now: `keep` writes it into the folder that it is given."""
        keep(self.spool.model)
        with self._lock:
            self._waits = True

    def start(self) -> None:
        """Send in the background from now on."""
        self._thread = threading.Thread(target=self._work, name="kplm-tracking", daemon=True)
        self._thread.start()

    def close(self, status: str, *, hurry: bool) -> bool:
        """Keep all that is new, and how the run ended, on storage, and try once more to send it; whether all arrived.

        hurry: give up after a few seconds, for a process that is being stopped. Else it takes as long as a store that answers
        needs; one that does not is given up at the first request.
        """
        self._stop.set()
        self._save()
        with self._lock:  # after the points: when the end is sent, they are
            self.spool.put_end(status)
            self._waits = True
        last = threading.Thread(target=self._finish, name="kplm-tracking-end", daemon=True)
        last.start()
        last.join(_GRACE_S if hurry else None)
        with self._lock:
            return not last.is_alive() and not self._waits

    def _finish(self) -> None:
        if self._thread:
            self._thread.join()  # at most what is under way
        self.send()

    def _work(self) -> None:
        while not self._stop.wait(_EVERY_S):
            try:
                self._measure()
                self._save()
            except Exception as error:  # whatever it is, training goes on
                self.failed(error)
            if time.monotonic() >= self._next:
                self.send()

    def _measure(self) -> None:
        began = self.store.began
        if self._system is None and began is not None:
            self._system = SystemMetrics(began, self.store.uri)
        if self._system is not None:
            self.put(self._system.due())

    def _save(self) -> None:
        """What is new, to storage."""
        with self._lock:
            with self._memory:
                new, self._new = self._new, []
            if new:
                self.spool.add(new)
                self._waits = True
            thin, self._thin = self.spool.is_thinned and not self._thin, self.spool.is_thinned
        if thin:
            self.say(
                f"{self.spool}: more numbers wait for MLflow than fit; the longest curves are kept at half their steps"
            )

    def send(self) -> bool:
        """All that waits, oldest first; whether it arrived."""
        with self._sending:
            with self._lock:
                if not self._waits:
                    return True
                self._waits = False  # what comes from here on says so
            try:
                self.store.connect()
                self._send_points()
                self._send_rest()
            except RunDeletedError as error:
                self.say(f"{error}: nothing is added to it")
                self.spool.discard()
                return False
            except Exception as error:  # whatever it is, training goes on
                self.failed(error)
                return False
            self._recovered()
            return True

    def _send_points(self) -> None:
        with self._lock:
            segments = self.spool.segments()
        for segment in segments:
            points = self.spool.read(segment)
            try:
                self.store.metrics(points)
            except Exception as error:
                if getattr(error, "error_code", "") not in _REFUSED:
                    raise
                self._refused(error)
            with self._lock:
                self.spool.drop(segment, len(points))
            self._save()

    def _send_rest(self) -> None:
        for path in self.spool.files():
            content = self.spool.read_file(path)
            self.store.file(path, content)
            with self._lock:
                if self.spool.read_file(path) == content:  # else it was put again meanwhile
                    self.spool.drop_file(path)
        if self.spool.has_model():
            self.store.model(self.spool.model)
            self.spool.model.delete()
        end = self.spool.end()
        if end and not self.spool.points:
            self.store.end(end["status"], end["time"])
            self.spool.drop_end()

    def _refused(self, error: Exception) -> None:
        """They would be refused again. The MLflow run may be gone: then another one is made."""
        self.store.lost()
        if not self._complained:
            self._complained = True
            self.say(f"MLflow at {self.store.uri} refuses some numbers ({first_line(error)}): they are left out")

    def failed(self, error: Exception) -> None:
        """Remember that the store does not answer, and say so the first time."""
        self.store.lost()
        with self._lock:
            self._waits = True
        self._pause = min(max(2 * self._pause, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)
        self._next = time.monotonic() + self._pause
        if not self._warned:
            self._warned = True
            self.say(
                f"MLflow at {self.store.uri} does not answer ({first_line(error)}): the run goes on, its numbers wait in "
                f"{self.spool} and are sent when it does"
            )

    def _recovered(self) -> None:
        self._pause = 0.0
        if self._warned and not self._greeted:
            self._greeted = True
            self.say(f"MLflow at {self.store.uri} answers again: what waited was sent")


def first_line(error: Exception) -> str:
    """Of a message, not too much."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= 200 else f"{lines[0][:200]} ..."
