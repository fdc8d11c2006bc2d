"""Which parts of a map are open, which worker has which, and what came back. Plain state, without waiting."""

from __future__ import annotations

from typing import Any


class PartBoard:
    """Parts numbered from 0, each handed to one worker at a time. Parts of a worker that died are handed out again."""

    def __init__(self, count: int) -> None:
        self.results: dict[int, Any] = {}
        """Results by the number of the part."""
        self._count, self._open = count, list(range(count))[::-1]
        self._taken: dict[int, str] = {}

    @property
    def has_open(self) -> bool:
        """Whether a part can be taken now."""
        return bool(self._open)

    @property
    def is_finished(self) -> bool:
        """Whether the results of all parts are there."""
        return len(self.results) == self._count

    def take(self, worker: str) -> int:
        """Hand out the first open part."""
        part = self._open.pop()
        self._taken[part] = worker
        return part

    def finish(self, part: int, result: Any) -> None:
        """Note a result. A part that was handed out twice, as its first worker seemed dead, counts once."""
        if part in self._taken:
            del self._taken[part]
            self.results[part] = result
        elif part in self._open:
            self._open.remove(part)
            self.results[part] = result

    def release(self, worker: str) -> None:
        """Open the parts again that a worker had when it died."""
        lost = sorted((part for part, owner in self._taken.items() if owner == worker), reverse=True)
        for part in lost:
            del self._taken[part]
        self._open += lost
