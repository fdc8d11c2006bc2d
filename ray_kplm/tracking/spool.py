"""What has not been sent to MLflow yet, kept in the run directory: it survives the process and an unreachable server.

<run>/tracking/metrics/*.jsonl     points, at most 1,000 a file, in the order in which they were logged
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
"""Points in a file: the most that MLflow takes in one request."""
MAX_POINTS = 200_000
"""Points that are kept at most, about 15 MB. Beyond it every second point of the longest curves is dropped."""
FACTS = "model.json"
"""File beside an exported detector: its name, its fingerprint, the global iteration, and MLflow's id once it has one."""
_END = "end.json"


class Point(NamedTuple):
    """One value of a metric."""

    name: str
    value: float
    step: int
    time: int
    """Milliseconds since the epoch."""
    replaces: bool = False
    """Whether it is logged in addition to a different value at the same step."""


def milliseconds() -> int:
    """Return the time in milliseconds since the epoch, MLflow's unit."""
    return time.time_ns() // 1_000_000


class Spool:
    """A queue in a folder. Not safe for use by several threads at once, but other processes may send and remove what it holds.

    What another process has removed reads as empty, and to remove it again does nothing.
    """

    def __init__(self, folder: Folder, max_points: int = MAX_POINTS) -> None:
        """Open the queue, with what earlier processes left in it."""
        self._folder, self._max_points = folder, max_points
        self._metrics, self._files, self.model = folder / "metrics", folder / "files", folder / "model"
        self._open: list[Point] = []  # of the segment that points are added to
        self._open_name = ""
        self._counts = {name: len(self.read(name)) for name in self._metrics.names(suffix=".jsonl")}
        self._seen: Counter[str] = Counter()  # metric -> points logged by this process
        self._stride: dict[str, int] = {}  # metric -> of so many points one is kept, 1 where it is missing

    def check_owner(self) -> None:
        """Raise RunError if the driver that uses the queue has lost the run directory to another one."""
        if self._folder.guard is not None:
            self._folder.guard.check()

    # -- points

    def add(self, points: Iterable[Point]) -> None:
        """Append points."""
        new = [point for point in points if self._is_kept(point)]
        while new:
            if not self._open or len(self._open) >= SEGMENT_POINTS:
                self._open, self._open_name = [], f"{time.time_ns():020d}.jsonl"
            room = SEGMENT_POINTS - len(self._open)
            self._open += new[:room]
            new = new[room:]
            self._write(self._open_name, self._open)
        if self.points > self._max_points:
            self._thin_out()

    def segments(self) -> list[str]:
        """Return the names of all files of points, oldest first; no points are added to these any more."""
        self._open = []
        return self._metrics.names(suffix=".jsonl")

    def read(self, segment: str) -> list[Point]:
        """Return the points of a file, none if it was removed."""
        try:
            lines = self._metrics.read_bytes(segment).splitlines()
        except FileNotFoundError:
            return []
        with self._metrics.parsing(segment):
            return [Point(*json.loads(line)) for line in lines]

    def remove(self, segment: str) -> None:
        """Remove a file of points."""
        self._metrics.delete_file(segment)
        self._counts.pop(segment, None)

    def _write(self, segment: str, points: list[Point]) -> None:
        self._metrics.write_bytes(segment, "".join(json.dumps(point) + "\n" for point in points).encode())
        self._counts[segment] = len(points)

    def _thin_out(self) -> None:
        """Drop every second point of the longest curves: they lose resolution evenly, and keep their end."""
        segments = {segment: self.read(segment) for segment in self.segments()}
        counts = Counter(point.name for points in segments.values() for point in points)
        longest = max(counts.values())
        dense = {name for name, count in counts.items() if 2 * count >= longest}
        seen: Counter[str] = Counter()
        for segment, points in segments.items():
            kept = []
            for point in points:
                if point.name not in dense or seen[point.name] % 2 == 0:
                    kept.append(point)
                seen[point.name] += 1
            self._write(segment, kept)
        for name in dense:
            self._stride[name] = 2 * self._stride.get(name, 1)

    def _is_kept(self, point: Point) -> bool:
        index = self._seen[point.name]
        self._seen[point.name] += 1
        return index % self._stride.get(point.name, 1) == 0

    @property
    def is_thinned(self) -> bool:
        """Whether points were dropped."""
        return bool(self._stride)

    @property
    def points(self) -> int:
        """Number of points in the queue."""
        return sum(self._counts.values())

    # -- files

    def put_file(self, path: str, content: bytes) -> None:
        """Add an artifact by its path in the MLflow run, or replace it."""
        self._files.write_bytes(path, content)

    def files(self) -> list[str]:
        """Return the paths of all artifacts."""
        return self._files.walk()

    def read_file(self, path: str) -> bytes | None:
        """Return the content of an artifact, None if it was removed."""
        try:
            return self._files.read_bytes(path)
        except FileNotFoundError:
            return None

    def remove_file(self, path: str) -> None:
        """Remove an artifact."""
        self._files.delete_file(path)

    # -- model and end

    def has_model(self) -> bool:
        """Return whether the folder `model` holds an exported detector."""
        return self.model.is_file(FACTS)

    def put_end(self, status: str) -> None:
        """Record that the run ends now as FINISHED, FAILED or KILLED."""
        self._folder.write_json(_END, {"status": status, "time": milliseconds()})

    def end(self) -> dict[str, Any] | None:
        """Return `status` and `time` of the end, None if there is none."""
        try:
            end: dict[str, Any] = self._folder.read_object(_END)
        except FileNotFoundError:
            return None
        return end

    def remove_end(self) -> None:
        """Remove the record of the end."""
        self._folder.delete_file(_END)

    # -- all of it

    def is_empty(self) -> bool:
        """Return whether there is nothing to send."""
        return not (self.points or self.files() or self.has_model() or self.end())

    def clear(self) -> None:
        """Remove everything, sent or not."""
        self._folder.delete()
        self._open, self._counts = [], {}

    def __str__(self) -> str:
        return str(self._folder)

    def summary(self) -> str:
        """Return what the queue holds, for example `3 numbers, 2 files, the final status`."""
        counts = {"number": self.points, "file": len(self.files())}
        pieces = [f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items() if count]
        pieces += ["the model"] if self.has_model() else []
        pieces += ["the final status"] if self.end() else []
        return ", ".join(pieces)
