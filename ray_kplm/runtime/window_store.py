"""The images and labels of a `WindowPlan` in Ray's object store: those of the windows in use, and of the next one.

One actor of a training owns them. Each part is read once a pass for all training workers together, by a task on any node, and
released when all workers have gone beyond its window.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from ray_kplm.datasets.round_sampling import Selection
from ray_kplm.errors import CollapseError
from ray_kplm.methods.facing import Facings
from ray_kplm.methods.labels import Labels
from ray_kplm.methods.window_plan import WindowPlan
from ray_kplm.runtime.session import DEFAULT_SCHEDULING, on_this_node
from ray_kplm.storage import Folder

_COUNTED = 256
"""Parts whose usable images are counted at a time, where a training continues."""
_AHEAD = 1
"""Windows that are read before a worker asks for them."""
_BEHIND = 1
"""Windows that are kept behind the last request: tasks that make adjacent blocks may ask in any order."""


@dataclass(frozen=True)
class LabelledParts:
    """The images of a training and their labels, part by part, on storage. Picklable."""

    images: Folder
    selection: Selection
    labels: Callable[[str], Labels]
    """Returns the labels of the selected images of a part."""
    facings: Facings | None = None
    """Which way images face, if all are shown as they face one way."""

    def read(self, part: int) -> tuple[pa.Table, PartLabels]:
        """Return the usable images of a part, encoded, with their boxes; and their labels."""
        name, rows = self.selection.parts[part], self.selection.rows[part]
        labels = self.labels(name)
        usable = labels.usable()
        wanted = ["image", "box"] if self.facings is None else ["image_id", "image", "box"]
        table = self.images.read_table(name, wanted).take(pa.array(rows[usable]))
        flip = None if self.facings is None else self.facings.of(name, table["image_id"].to_pylist()) < 0
        return table.select(["image", "box"]).combine_chunks(), PartLabels(labels.rows(usable), flip)

    def count(self, part: int) -> int:
        """Return the number of usable images of a part."""
        return len(self.labels(self.selection.parts[part]).usable())


class PartLabels(NamedTuple):
    """The labels of a part's n usable images, and whether each is mirrored, bool (n,), if that is known."""

    labels: Labels
    flip: NDArray[np.bool_] | None


class Window(NamedTuple):
    """A window in the object store.

    Attributes:
        number: counted from 0 through all passes.
        start: place of its first view in the training.
        counts: (p,) usable images of its parts.
        images: of each part, a reference to an Arrow table of its usable images.
        labels: of each part, a reference to their `PartLabels`.
    """

    number: int
    start: int
    counts: NDArray[np.int64]
    images: list[ray.ObjectRef]
    labels: list[ray.ObjectRef]


class Read(NamedTuple):
    """References to what is read of a part: see `Window`; and to its number of usable images."""

    images: Any
    labels: Any
    count: Any


class WindowStore:
    """Reads the windows of a training as its workers ask for them, and keeps those that any of them may still need."""

    def __init__(
        self, plan: WindowPlan, most: int, read: Callable[[int], Read], count: Callable[[int], Awaitable[int]]
    ) -> None:
        """Create a store that holds nothing.

        Args:
            plan: of the training.
            most: number of images that no window has more of.
            read: starts to read a part.
            count: counts the usable images of a part, without reading its images.
        """
        self._plan, self._most, self._read_part, self._count_part = plan, most, read, count
        self._counts = np.full(plan.parts, -1)
        self._ends = [0]  # place of the first view behind each window, after the 0
        self._reads: dict[int, dict[int, Read]] = {}
        self._asked: dict[tuple[int, int], int] = {}
        self._lock = asyncio.Lock()

    async def windows(self, first: int, last: int, rank: int, workers: int) -> list[Window]:
        """Return the windows of the views first <= i <= last, for a worker whose later calls ask for later ones.

        Raises:
            CollapseError: no image is usable.
        """
        async with self._lock:
            await self._skip(first)
            while self._ends[-1] <= last:
                number = len(self._ends) - 1
                self._read(range(number, number + _AHEAD + 1))
                await self._note(range(number, number + 1))
            begin, end = np.searchsorted(self._ends, [first, last], side="right") - 1
            numbers = range(int(begin), int(end) + 1)
            self._read(range(numbers[0], numbers[-1] + _AHEAD + 1))
            self._release(numbers[0], rank, workers)
            return [self._window(number) for number in numbers]

    def held(self) -> list[int]:
        """Return the windows whose images are in the object store, or on their way."""
        return sorted(self._reads)

    async def _skip(self, first: int) -> None:
        """Count the usable images of the windows that surely end before a view, without reading their images."""
        while (surely := (first - self._ends[-1]) // self._most) > 0:
            begin = len(self._ends) - 1
            await self._note(range(begin, begin + min(surely, max(1, _COUNTED // self._plan.window_parts))))

    async def _note(self, numbers: range) -> None:
        """Find where the next windows end; wait for the counts of their parts."""
        waiting = {}
        for number in numbers:
            for part in map(int, self._plan.members(number)):
                if self._counts[part] < 0 and part not in waiting:
                    read = self._reads.get(number, {}).get(part)
                    waiting[part] = read.count if read else self._count_part(part)
        for part, count in zip(waiting, await asyncio.gather(*waiting.values()), strict=True):
            self._counts[part] = count
        if not self._counts.any():
            raise CollapseError("no image has two labelled landmarks: stage 2 has nothing to train on")
        for number in numbers:
            self._ends.append(self._ends[-1] + int(self._counts[self._plan.members(number)].sum()))

    def _read(self, numbers: range) -> None:
        for number in numbers:
            if number not in self._reads:
                parts = map(int, self._plan.members(number))
                self._reads[number] = {part: self._read_part(part) for part in parts}

    def _release(self, lowest: int, rank: int, workers: int) -> None:
        """Release the windows that all workers are beyond. One that is asked for again, after a restart, is read again."""
        self._asked = {key: number for key, number in self._asked.items() if key[1] == workers}
        self._asked[rank, workers] = lowest
        if len(self._asked) == workers:
            needed = min(self._asked.values()) - _BEHIND
            self._reads = {number: read for number, read in self._reads.items() if number >= needed}

    def _window(self, number: int) -> Window:
        reads, counts = self._reads[number].values(), self._counts[self._plan.members(number)]
        return Window(number, self._ends[number], counts, [r.images for r in reads], [r.labels for r in reads])


class WindowStoreActor(WindowStore):
    """The store as an actor, whose tasks read on any node with a free CPU."""

    def __init__(self, plan: WindowPlan, parts: LabelledParts) -> None:
        reference = ray.put(parts)
        super().__init__(
            plan,
            _most_images(plan, parts.selection),
            lambda part: Read(*_read.remote(reference, part)),
            lambda part: _count.remote(reference, part),
        )


@dataclass(frozen=True)
class WindowImages:
    """The handle of a `WindowStoreActor`, which ends when no process has it. Picklable."""

    store: Any

    @classmethod
    def open(cls, plan: WindowPlan, parts: LabelledParts) -> WindowImages:
        """Start a store on this node.

        If its process dies it starts again, without the objects that it owned: the workers that use them fail, and continue
        from their last checkpoint.
        """
        actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(WindowStoreActor)
        return cls(actor.options(scheduling_strategy=on_this_node()).remote(plan, parts))

    def windows(self, first: int, last: int, rank: int, workers: int) -> list[Window]:
        """Return the windows of the views first <= i <= last: see `WindowStore.windows`."""
        found: list[Window] = ray.get(self.store.windows.remote(first, last, rank, workers))
        return found


def _most_images(plan: WindowPlan, selection: Selection) -> int:
    """Return a number of images that no window has more of."""
    sizes = np.sort([len(rows) for rows in selection.rows])
    return int(sizes[-plan.window_parts :].sum())


@ray.remote(num_cpus=1, max_retries=3, num_returns=3, scheduling_strategy=DEFAULT_SCHEDULING)  # type: ignore[untyped-decorator]
def _read(parts: LabelledParts, part: int) -> tuple[pa.Table, PartLabels, int]:
    table, labels = parts.read(part)
    return table, labels, len(table)


@ray.remote(num_cpus=1, max_retries=3, scheduling_strategy=DEFAULT_SCHEDULING)  # type: ignore[untyped-decorator]
def _count(parts: LabelledParts, part: int) -> int:
    return parts.count(part)
