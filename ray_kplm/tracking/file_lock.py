"""A lock on a file against other processes of this machine, on any platform."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PATIENCE_S = 120.0
"""Where a file system has no locks, or a killed process left one behind, the work goes on after so long."""


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock while the block runs, if the file system has locks."""
    from filelock import FileLock  # by fcntl, or by msvcrt on Windows

    lock = FileLock(path, timeout=_PATIENCE_S)
    with suppress(OSError, NotImplementedError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
