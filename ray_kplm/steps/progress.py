"""From workers to the driver: a small actor that holds what is new since the driver last asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import ray

_POLL_S = 0.5


class Listener(Protocol):
    """What the driver does with a worker's news."""

    def trained(self, iteration: int, metrics: dict[str, float]) -> None: ...


class Board:
    """Messages of the training workers, in the order of their iterations."""

    def __init__(self) -> None:
        self._messages: dict[int, dict[str, float]] = {}

    def post(self, iteration: int, metrics: dict[str, float]) -> None:
        self._messages[iteration] = metrics  # an iteration repeated after a failure replaces itself

    def drain(self) -> list[tuple[int, dict[str, float]]]:
        messages, self._messages = self._messages, {}
        return sorted(messages.items())


@contextmanager
def listening(listener: Listener) -> Iterator[Any]:
    """A board whose messages reach the listener while the block runs."""
    board: Any = ray.remote(num_cpus=0, max_concurrency=4)(Board).remote()
    stop = threading.Event()

    def deliver() -> None:
        for iteration, metrics in ray.get(board.drain.remote(), timeout=60):
            listener.trained(iteration, metrics)

    def poll() -> None:
        while not stop.wait(_POLL_S):
            deliver()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield board
    finally:
        stop.set()
        thread.join()
        deliver()
        ray.kill(board)
