"""MLflow's requests, made to fail soon instead of after minutes, and to leave standard output alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_RETRIES, _TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"
_QUIET = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"


class _Environment:
    """Variables that are there while somebody needs them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._needed = 0
        self._ours: list[str] = []

    def enter(self, wanted: dict[str, str]) -> None:
        with self._lock:
            if not self._needed:
                self._ours = [name for name in wanted if name not in os.environ]
            self._needed += 1
            os.environ.update({name: wanted[name] for name in self._ours})

    def leave(self) -> None:
        with self._lock:
            self._needed -= 1
            if not self._needed:
                for name in self._ours:
                    os.environ.pop(name, None)


_environment = _Environment()


@contextmanager
def fail_fast(timeout_s: int) -> Iterator[None]:
    """No retries, and this timeout (to connect, and between two pieces of the answer), unless the user has set others.

    MLflow reads them from the environment whenever it sends; so they are there only while requests of ours are under way.
    """
    _environment.enter({_RETRIES: "0", _TIMEOUT: str(timeout_s), _QUIET: "true"})
    try:
        yield
    finally:
        _environment.leave()
