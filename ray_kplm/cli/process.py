"""`kplm` as a process: what Ctrl-C and SIGTERM do, and how it ends.

A signal raises KeyboardInterrupt in the main thread, so that locks are released and Ray is shut down. Where that takes more
than `GRACE_S` seconds, because the main thread is in a library that does not return, another thread ends the process. Either
way one line is printed, and no child process is left, of a local Ray for instance.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from ray_kplm.redaction import print_traceback

GRACE_S = 3.0
"""Between a signal and the end of the process at most, seconds; killing its children comes on top."""
_EXIT_S = 1.0
"""After a failure, what libraries registered for the exit may take so long, seconds."""
_LINES = {
    signal.SIGINT: "interrupted; the same command continues",
    signal.SIGTERM: "terminated; the same command continues",
}
_received: list[int] = []
"""The first signal, once there was one."""
_children: set[Any] = set()
_wakeup: list[socket.socket] = []
"""The end of a connection that the interpreter writes the number of a signal to; kept open."""
_is_raised = threading.Lock()
"""Locked as soon as the main thread is interrupted."""
_is_said = threading.Lock()
"""Locked as soon as the line about the signal is printed."""


def exit_code(number: int) -> int:
    """Return the exit code of a process that a signal ended."""
    return 128 + number


def received() -> int | None:
    """Return the number of the signal that ends this process, None if there was none."""
    return _received[0] if _received else None


def run_as_process(command: Callable[[], int]) -> NoReturn:
    """Run a command, and end the process with its exit code."""
    console = os.dup(2)  # while Ray starts, stderr is elsewhere
    _watch_signals(console)
    code: Any = 1
    try:
        code = command()
    except SystemExit as ended:  # of argparse
        code = ended.code
    except BaseException:
        if received() is None:
            print_traceback(*sys.exc_info())
    number = received()
    if number is not None:
        _say(console, number)
        _kill_children()
        _end(exit_code(number))
    if code:
        threading.Thread(target=_end_later, args=(code,), daemon=True).start()
    sys.exit(code)


def _watch_signals(console: int) -> None:
    """Raise KeyboardInterrupt at SIGINT and SIGTERM, and end the process if that does not."""
    reader, writer = socket.socketpair()  # Windows waits for sockets alone
    writer.setblocking(False)
    _wakeup.append(writer)

    for number in _LINES:
        signal.signal(number, _interrupt)
    # The interpreter writes the number at once, even while the main thread is in a library that does not return.
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_after_signal, args=(reader, console), name="signals", daemon=True).start()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt at the first signal. A second one finds the main thread cleaning up."""
    if not _is_raised.acquire(blocking=False):
        return
    _record(number)
    raise KeyboardInterrupt


def _record(number: int) -> None:
    if not _received:
        _received.append(number)


def _end_after_signal(reader: socket.socket, console: int) -> None:
    while (number := reader.recv(1)[0]) not in _LINES:
        continue  # of a handler that a library installed
    _record(number)
    _note_children()
    select.select([reader], [], [], GRACE_S)  # a second signal ends it
    _say(console, number)
    _kill_children()
    _end(exit_code(number))


def _note_children() -> None:
    """Note the processes below this one: when a parent has ended, its children can no longer be found."""
    import psutil

    with suppress(psutil.Error):
        _children.update(psutil.Process().children(recursive=True))


def _kill_children() -> None:
    import psutil

    _note_children()
    for process in list(_children):
        with suppress(psutil.Error):
            process.kill()  # it compares the time of start, so that no other process of the same number is killed


def _say(console: int, number: int) -> None:
    if _is_said.acquire(blocking=False):
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            os.write(console, f"kplm: {_LINES[signal.Signals(number)]}\n".encode())


def _end_later(code: Any) -> None:
    time.sleep(_EXIT_S)
    _end(code if isinstance(code, int) else 1)


def _end(code: int) -> NoReturn:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
