"""Start a local Ray, and wait for it as long as it lives.

Ray gives up when its processes have not registered within 30 seconds, and waits that long for one that has died (Ray 2.60). On
a busy machine the start takes longer; a process that has died is an error at once.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray

from ray_kplm.errors import ClusterError
from ray_kplm.notes import waiting
from ray_kplm.runtime.ray_private import get_default_ray_temp_dir, node, services

LIMIT_S = 240.0
"""A start that takes longer is an error, seconds."""
_BUSY_S = 20.0
"""After this time it is said that the machine may be busy, seconds."""
_PROCESSES = ("gcs_server", "raylet")
"""The processes of a node that Ray needs, by their names."""
_POLL_S = 0.2
_KILL_S = 3.0
_ERROR = re.compile(r" [ECF] \d+ |error|fail|cannot|unable|terminate", re.IGNORECASE)
"""Lines of a log that say why a process ended: of Ray's levels error, critical and fatal, or with such words."""
_LOG_LINE = 200
"""Characters of a log's line that are quoted at most."""


def start_local_ray(descriptor: int, **options: Any) -> None:
    """Call `ray.init` for a Ray of this process.

    Args:
        descriptor: of the file to which notes are written, if the start takes long.
        options: of `ray.init`.

    Raises:
        ClusterError: it did not start; what was seen, the log, the way out.
    """
    before = set(_children())
    began = time.monotonic()
    busy = f"kplm: Ray is still starting (load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores) ..."
    with ExitStack() as notes:
        notes.enter_context(waiting("kplm: starting Ray ...", descriptor=descriptor))
        notes.enter_context(waiting(busy, _BUSY_S, descriptor))
        try:
            with _patience(began + LIMIT_S):
                ray.init(address="local", **options)
        except (Exception, _Died) as error:
            seen = _death() or _line(str(error).partition(". ")[0]) or type(error).__name__
            ray.shutdown()
            _kill(before)
            raise ClusterError(
                f"the local Ray did not start: {seen}; {_log()}; the same command tries again, with more chance when the "
                "machine is less busy or has more memory free"
            ) from error
        except BaseException:
            _kill(before)
            raise


class _Died(BaseException):
    """A process of the node has ended. No Exception, as Ray catches these while it waits."""


class _WatchfulTime:
    """The module `time`, with a `sleep` that looks whether the node lives: Ray sleeps between its attempts to connect."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        """Sleep, and raise _Died if a process of the node has ended."""
        if death := _death():
            raise _Died(death)
        time.sleep(seconds)


@contextmanager
def _patience(deadline: float) -> Iterator[None]:
    """Replace the functions by which Ray waits for its processes, while the block runs."""
    wait_for_port, get_node, plain_time = node.wait_for_persisted_port, services.get_node, node.time

    def patient_port(*arguments: Any, **settings: Any) -> Any:
        return _until(deadline, lambda: wait_for_port(*arguments, **{**settings, "timeout_ms": int(1000 * _POLL_S)}))

    def patient_node(*arguments: Any, **settings: Any) -> Any:
        return _until(deadline, lambda: get_node(*arguments, **settings))

    node.wait_for_persisted_port, services.get_node, node.time = patient_port, patient_node, _WatchfulTime()
    try:
        yield
    finally:
        node.wait_for_persisted_port, services.get_node, node.time = wait_for_port, get_node, plain_time


def _until(deadline: float, ask: Callable[[], Any]) -> Any:
    """Return what `ask` returns, which raises RuntimeError as long as Ray is not ready."""
    while True:
        try:
            return ask()
        except RuntimeError as error:
            if death := _death():
                raise _Died(death) from error
            if time.monotonic() > deadline:
                raise _Died(f"its processes live, and did not answer within {LIMIT_S:.0f} s") from error
            time.sleep(_POLL_S)


def _death() -> str | None:
    """Return how a process of the node has ended, None if none has."""
    for process in _children():
        with suppress(psutil.Error, ChildProcessError):
            if process.status() == psutil.STATUS_ZOMBIE and process.name() in _PROCESSES:
                ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                return f"its process {process.name()} {_how(ended)}"
    return None


def _how(ended: Any) -> str:
    if ended is None:
        return "ended"
    if ended.si_code == os.CLD_EXITED:
        return f"ended with exit code {ended.si_status}"
    return f"was killed by {signal.Signals(ended.si_status).name}"


def _children() -> list[psutil.Process]:
    return list(psutil.Process().children())


def _kill(before: set[psutil.Process]) -> None:
    """Kill what was started and is still there, with all below it."""
    started = set(_children()) - before
    for process in list(started):
        with suppress(psutil.Error):
            started.update(process.children(recursive=True))
    for process in started:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(started, timeout=_KILL_S)


def _log() -> str:
    """Return where the logs of this start are, with the last line about an error."""
    folders = sorted(
        Path(get_default_ray_temp_dir()).glob(f"session_*_{os.getpid()}"), key=lambda path: path.stat().st_mtime
    )
    if not folders:
        return "no log was written"
    logs = folders[-1] / "logs"
    for name in ("raylet.err", "raylet.out", "gcs_server.err", "gcs_server.out"):
        with suppress(OSError):
            lines = [line for line in (logs / name).read_text(errors="replace").splitlines() if _ERROR.search(line)]
            if lines:
                return f"log: {logs / name}: {_line(lines[-1])}"
    return f"logs: {logs}"


def _line(text: str) -> str:
    return " ".join(text.split())[:_LOG_LINE]
