"""What MLflow has not got yet, on storage: it outlives the process and an absent server.

<run>/tracking/metrics/*.jsonl     points, at most 1,000 a file, in the order in which they came
<run>/tracking/files/...           artifacts, by their path in the MLflow run
<run>/tracking/model/...           an exported detector with an example
<run>/tracking/end.json            how and when the run ended
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from ray_kplm.storage import Folder

SEGMENT_POINTS = 1_000
"""Points in a file: what MLflow takes in one request."""
MOST_POINTS = 200_000
"""Points that wait at most, some 15 MB; when more do, every second one of the longest curves goes."""
_END = "end.json"


class Point(NamedTuple):
    """One number. time: ms since the epoch. renews: it replaces another one of the same step, if it differs."""

    name: str
    value: float
    step: int
    time: int
    renews: bool = False


def milliseconds() -> int:
    """Now, since the epoch, as MLflow counts."""
    return time.time_ns() // 1_000_000


class Spool:
    """A queue in a folder. One thread at a time."""

    def __init__(self, folder: Folder, most_points: int = MOST_POINTS) -> None:
        self._folder, self._most = folder, most_points
        self._metrics, self._files, self.model = folder / "metrics", folder / "files", folder / "model"
        self._tail: list[Point] = []
        self._tail_name = ""
        self._points = sum(len(self.read(name)) for name in self._metrics.names(suffix=".jsonl"))
        self._seen: Counter[str] = Counter()
        self._every: dict[str, int] = {}

    # -- points

    def add(self, points: Iterable[Point]) -> None:
        """Keep points, after those that are there."""
        waiting = [point for point in points if self._is_kept(point)]
        self._points += len(waiting)
        while waiting:
            if not self._tail or len(self._tail) >= SEGMENT_POINTS:
                self._tail, self._tail_name = [], f"{time.time_ns():020d}.jsonl"
            room = SEGMENT_POINTS - len(self._tail)
            self._tail += waiting[:room]
            waiting = waiting[room:]
            self._write(self._tail_name, self._tail)
        if self._points > self._most:
            self._thin()

    def segments(self) -> list[str]:
        """Names of what waits, oldest first; nothing is added to these any more."""
        self._tail = []
        return self._metrics.names(suffix=".jsonl")

    def read(self, segment: str) -> list[Point]:
        return [Point(*json.loads(line)) for line in self._metrics.read_bytes(segment).splitlines()]

    def drop(self, segment: str, points: int) -> None:
        self._metrics.delete_file(segment)
        self._points -= points

    def _write(self, segment: str, points: list[Point]) -> None:
        self._metrics.write_bytes(segment, "".join(json.dumps(point) + "\n" for point in points).encode())

    def _thin(self) -> None:
        """A long absence costs the longest curves resolution, evenly, and not their end."""
        counts = Counter(point.name for segment in self.segments() for point in self.read(segment))
        longest = max(counts.values())
        dense = {name for name, count in counts.items() if 2 * count >= longest}
        place: Counter[str] = Counter()
        self._points = 0
        for segment in self.segments():
            kept = []
            for point in self.read(segment):
                if point.name not in dense or place[point.name] % 2 == 0:
                    kept.append(point)
                place[point.name] += 1
            self._write(segment, kept)
            self._points += len(kept)
        for name in dense:
            self._every[name] = 2 * self._every.get(name, 1)

    def _is_kept(self, point: Point) -> bool:
        place = self._seen[point.name]
        self._seen[point.name] += 1
        return place % self._every.get(point.name, 1) == 0

    @property
    def is_thinned(self) -> bool:
        """Whether points had to go."""
        return bool(self._every)

    @property
    def points(self) -> int:
        """How many wait."""
        return self._points

    # -- files

    def put_file(self, path: str, content: bytes) -> None:
        """An artifact, by its path in the MLflow run."""
        self._files.write_bytes(path, content)

    def files(self) -> list[str]:
        return self._files.walk()

    def read_file(self, path: str) -> bytes:
        return self._files.read_bytes(path)

    def drop_file(self, path: str) -> None:
        self._files.delete_file(path)

    # -- the end

    def put_end(self, status: str) -> None:
        """FINISHED, FAILED or KILLED, now."""
        self._folder.write_json(_END, {"status": status, "time": milliseconds()})

    def end(self) -> dict[str, Any] | None:
        return self._folder.read_json(_END) if self._folder.is_file(_END) else None

    def drop_end(self) -> None:
        self._folder.delete_file(_END)

    def has_model(self) -> bool:
        return self.model.is_file("model.json")

    def is_empty(self) -> bool:
        return not (self._points or self.files() or self.has_model() or self.end())

    def discard(self) -> None:
        """Remove all, sent or not."""
        self._folder.delete()
        self._tail, self._points = [], 0

    def __str__(self) -> str:
        return str(self._folder)

    def told(self) -> str:
        """What waits, in words."""
        counts = {"number": self._points, "file": len(self.files())}
        said = [f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items() if count]
        said += ["the model"] if self.has_model() else []
        said += ["how it ended"] if self.end() else []
        return ", ".join(said)
