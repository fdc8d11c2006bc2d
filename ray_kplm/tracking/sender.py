"""Send the queue to MLflow in the background: training does not wait for a server."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ray_kplm.errors import RunError
from ray_kplm.storage import NO_SPACE, Folder
from ray_kplm.tracking.messages import first_line, is_full
from ray_kplm.tracking.spool import FACTS, Point, Spool, milliseconds
from ray_kplm.tracking.store import MlflowRun, RunDeletedError

_INTERVAL_S = 1.0
_MIN_PAUSE_S, _MAX_PAUSE_S = 1.0, 30.0
"""Between two attempts to reach a server that does not answer; each pause is twice the previous one."""
_STOP_TIMEOUT_S = 5.0
"""For the last attempt of a process that is being stopped."""
_SYSTEM_INTERVAL_S = 10.0
_REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""Error codes of requests that would fail again."""


class _Abandoned(Exception):
    """The sender was closed before it had sent everything: another one may use the queue by now."""


class Sender:
    """Takes points into memory, writes them to the queue within a second, and sends them from there in their order.

    What the store has received is removed from the queue. So what is left when an attempt, the process or the server fails is
    sent by the next one.
    """

    def __init__(self, mlflow_run: MlflowRun, spool: Spool, log: Callable[[str], None]) -> None:
        """Make a sender; `start` starts its thread, `send` sends in the calling one.

        Args:
            mlflow_run: where to send to.
            spool: the queue.
            log: gets one line at a time about the state of the server.
        """
        self.mlflow_run, self.spool, self.log = mlflow_run, spool, log
        self._new: list[Point] = []
        self._memory = threading.Lock()  # of `_new`; never held during a request to storage or to MLflow
        self._lock = threading.Lock()  # of the spool and of what is below
        self._sending = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._system_metrics: SystemMetrics | None = None
        self._pause, self._next = 0.0, 0.0
        self._pending = not spool.is_empty()
        self._abandoned = False
        self._failure_logged = self._recovery_logged = self._thinning_logged = self._refusal_logged = False

    def put(self, points: Sequence[Point]) -> None:
        """Take points; never waits for storage or for MLflow."""
        with self._memory:
            self._new += points

    def put_file(self, path: str, content: bytes) -> None:
        """Write an artifact to the queue."""
        with self._lock:
            self.spool.put_file(path, content)
            self._pending = True

    def put_model(self, export: Callable[[Folder], None]) -> None:
        """Write a model to the queue: `export` is called with the folder to write it to."""
        export(self.spool.model)
        with self._lock:
            self._pending = True

    def start(self) -> None:
        """Start to send in the background."""
        self._thread = threading.Thread(target=self._run, name="kplm-tracking", daemon=True)
        self._thread.start()

    def close(self, status: str, *, fast: bool) -> bool:
        """Write all that is new and the final status to the queue, and try once more to send it.

        After the return this sender does not touch the queue any more, even if a request of it is still open.

        Args:
            status: FINISHED, FAILED or KILLED.
            fast: give up after a few seconds, for a process that is being stopped. Otherwise this takes as long as a server
                that answers needs; one that does not is given up at the first request.

        Returns:
            Whether everything was sent.
        """
        self._stop.set()
        self._save()
        with self._lock:  # after the points: the end is sent when they are
            self.spool.put_end(status)
            self._pending = True
        last = threading.Thread(target=self._finish, name="kplm-tracking-end", daemon=True)
        last.start()
        last.join(_STOP_TIMEOUT_S if fast else None)
        with self._lock:
            self._abandoned = True
            return not last.is_alive() and not self._pending

    def _finish(self) -> None:
        if self._thread:
            self._thread.join()  # waits for an open request at most
        self.send()

    def _run(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            try:
                self._measure_system()
                self._save()
            except Exception as error:  # no error of tracking may end the training
                self.failed(error)
            if time.monotonic() >= self._next:
                self.send()

    def _measure_system(self) -> None:
        began = self.mlflow_run.began
        if self._system_metrics is None and began is not None:
            self._system_metrics = SystemMetrics(began, self.mlflow_run.uri)
        if self._system_metrics is not None:
            self.put(self._system_metrics.measure())

    def _save(self) -> None:
        """Write the new points to the queue."""
        with self._lock:
            if self._abandoned:
                return
            with self._memory:
                new, self._new = self._new, []
            if new:
                self.spool.add(new)
                self._pending = True
            newly_thinned = self.spool.is_thinned and not self._thinning_logged
            self._thinning_logged = self.spool.is_thinned
        if newly_thinned:
            self.log(
                f"{self.spool}: more numbers are waiting for MLflow than the queue holds; the longest curves keep every second "
                "step"
            )

    def send(self) -> bool:
        """Send the whole queue, oldest first, and return whether everything was sent."""
        with self._sending:
            with self._lock:
                if self._abandoned or not self._pending:
                    return not self._pending
                self._pending = False  # what is added from here on sets it again
            try:
                self.spool.check_owner()
                self.mlflow_run.connect()
                self._send_points()
                self._send_files()
                self._send_model()
                self._send_end()
            except (_Abandoned, RunError):  # the latter: another driver took over the run directory, and its queue
                return False
            except RunDeletedError as error:
                self.log(f"{error}: nothing is added to it")
                with self._lock:
                    if not self._abandoned:
                        self.spool.clear()
                return False
            except Exception as error:  # no error of tracking may end the training
                self.failed(error)
                return False
            self._log_recovery()
            return True

    @contextmanager
    def _queue(self) -> Iterator[Spool]:
        """Hold the lock and give access to the queue. Raises _Abandoned if this sender was closed."""
        with self._lock:
            if self._abandoned:
                raise _Abandoned
            yield self.spool

    def _send_points(self) -> None:
        with self._queue() as spool:
            segments = spool.segments()
        for segment in segments:
            with self._queue() as spool:
                points = spool.read(segment)
            try:
                self.mlflow_run.log_metrics(points)
            except Exception as error:
                if getattr(error, "error_code", "") not in _REFUSED:
                    raise
                self._refused(error)
            with self._queue() as spool:
                spool.remove(segment)
            self._save()

    def _send_files(self) -> None:
        with self._queue() as spool:
            paths = spool.files()
        for path in paths:
            with self._queue() as spool:
                content = spool.read_file(path)
            if content is None:  # sent by another process
                continue
            self.mlflow_run.log_file(path, content)
            with self._queue() as spool:
                if spool.read_file(path) == content:  # otherwise it was replaced during the request
                    spool.remove_file(path)

    def _send_model(self) -> None:
        with self._queue() as spool:
            if not spool.has_model():
                return

        def save_facts(facts: dict[str, Any]) -> None:
            with self._queue() as spool:
                spool.model.write_json(FACTS, facts)

        self.mlflow_run.log_model(self.spool.model, save_facts)
        with self._queue() as spool:
            spool.model.delete()

    def _send_end(self) -> None:
        with self._queue() as spool:
            end = None if spool.points else spool.end()
        if end:
            self.mlflow_run.set_terminated(end["status"], end["time"])
            with self._queue() as spool:
                spool.remove_end()

    def _refused(self, error: Exception) -> None:
        """Leave out points that MLflow would refuse again. If that is because the run is gone, `connect` creates another."""
        self.mlflow_run.disconnect()
        if not self._refusal_logged:
            self._refusal_logged = True
            self.log(f"MLflow at {self.mlflow_run.uri} refuses some numbers ({first_line(error)}): they are left out")

    def failed(self, error: Exception) -> None:
        """Note that MLflow does not take what is sent: pause before the next attempt, and log it the first time."""
        self.mlflow_run.disconnect()
        with self._lock:
            if self._abandoned:
                return
            self._pending = True
        self._pause = min(max(2 * self._pause, _MIN_PAUSE_S), _MAX_PAUSE_S)
        self._next = time.monotonic() + self._pause
        if not self._failure_logged:
            self._failure_logged = True
            if is_full(error):
                self.log(f"{self.spool} or MLflow at {self.mlflow_run.uri}: {NO_SPACE}")
                return
            self.log(
                f"MLflow at {self.mlflow_run.uri} does not answer ({first_line(error)}): the run continues; its numbers are "
                f"kept in {self.spool} and sent when MLflow answers again"
            )

    def _log_recovery(self) -> None:
        self._pause = 0.0
        if self._failure_logged and not self._recovery_logged:
            self._recovery_logged = True
            self.log(f"MLflow at {self.mlflow_run.uri} answers again: everything that was kept is sent")


class SystemMetrics:
    """Load of this machine every ten seconds, as MLflow measures and names it: CPU, memory, disk, network and GPU.

    MLflow's own thread sends a request for each measurement and ends at the first failure (mlflow 3.17), so only its monitors
    are used. MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false turns this off; MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL sets the
    interval.
    """

    def __init__(self, began: int, tracking_uri: str) -> None:
        """Start the first interval.

        Args:
            began: when the MLflow run was created, milliseconds since the epoch. Steps are seconds since then, which increase
                over all resumptions of the run.
            tracking_uri: passed to MLflow's monitor, which sends nothing here.
        """
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._began = began
        self._is_on = os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() not in ("false", "0")
        self._monitor = SystemMetricsMonitor(run_id="", sampling_interval=_SYSTEM_INTERVAL_S, tracking_uri=tracking_uri)
        self._next = time.monotonic() + self._monitor.sampling_interval

    def measure(self) -> list[Point]:
        """Return a point for each measure, none before the interval has passed."""
        if not self._is_on or time.monotonic() < self._next:
            return []
        self._next = time.monotonic() + self._monitor.sampling_interval
        self._monitor.collect_metrics()
        now = milliseconds()
        values = self._monitor.aggregate_metrics()
        for monitor in self._monitor.monitors:
            monitor.clear_metrics()
        step = (now - self._began) // 1000
        return [Point(f"system/{name}", float(value), step, now) for name, value in values.items()]
