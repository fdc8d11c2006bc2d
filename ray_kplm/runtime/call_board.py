"""Calls to long-lived workers, from the caller to the answer. Plain state, without waiting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class LostCallError(Exception):
    """The worker of a call died, or does not have what was called."""


@dataclass(frozen=True)
class ShardCall:
    """A call to a shard in a worker."""

    update: str
    """The update that the shard belongs to. A worker keeps those of one update."""
    shard: int
    method: str
    """Its method; `make` makes the shard."""
    arguments: list[Any]
    """Values, and references to large ones."""


@dataclass
class _Call:
    rank: int
    content: Any
    worker: str | None = None
    """The worker that has taken it."""
    answer: Any = None
    error: Exception | None = None
    settled: bool = False


class CallBoard:
    """Calls to workers, which are known by their ranks. A worker takes the calls to its rank one after the other."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}
        self._numbers = 0

    def add(self, rank: int, content: Any) -> int:
        """Add a call to the worker of a rank, and return the call's number."""
        self._numbers += 1
        self._calls[self._numbers] = _Call(rank, content)
        return self._numbers

    def has_open(self, rank: int) -> bool:
        """Whether a call waits for this rank."""
        return any(call.rank == rank and call.worker is None for call in self._calls.values())

    def take(self, rank: int, worker: str) -> tuple[int, Any]:
        """Hand the oldest waiting call to the worker of its rank: (number, content)."""
        number = next(number for number, call in self._calls.items() if call.rank == rank and call.worker is None)
        self._calls[number].worker = worker
        return number, self._calls[number].content

    def settle(self, number: int, answer: Any, error: Exception | None = None) -> None:
        """Note the answer to a call, or the error that it raised. Nobody may wait for it any more."""
        if call := self._calls.get(number):
            call.answer, call.error, call.settled = answer, error, True

    def lose(self, worker: str) -> None:
        """Answer what a worker had taken when it died with a LostCallError."""
        for number, call in self._calls.items():
            if call.worker == worker and not call.settled:
                self.settle(number, None, LostCallError("the worker died"))

    def is_settled(self, number: int) -> bool:
        """Whether the call has its answer or its error."""
        return self._calls[number].settled

    def close(self, number: int) -> Any:
        """Remove a call and return its answer, or raise its error; a LostCallError if it has none."""
        call = self._calls.pop(number)
        if not call.settled:
            raise LostCallError("the workers ended")
        if call.error is not None:
            raise call.error
        return call.answer
