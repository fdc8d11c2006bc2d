"""Work on the parts of a table: what a place to work offers, and this process as such a place, which needs no Ray.

A worker writes its part to storage itself, atomically, and returns numbers. A part that exists is done, so work that was
interrupted continues with the missing ones. On a cluster the place is `runtime.map_parts.RayWorkers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ray_kplm.config import ComputeConfig
from ray_kplm.progress import ProgressCallback, ignore_progress

T = TypeVar("T")
Held = TypeVar("Held", covariant=True)


@dataclass(frozen=True)
class Pool:
    """Number of workers of a map, and the resources that each reserves."""

    workers: int
    cpus: float = 1.0
    gpus: float = 0.0
    """A share of a GPU, or whole ones."""


class ChosenParts(Protocol):
    """Parts of a table, and the chosen rows of each: a `datasets.round_sampling.Selection`."""

    @property
    def parts(self) -> Sequence[str]:
        """Names of the parts."""
        ...

    @property
    def rows(self) -> Sequence[NDArray[np.int64]]:
        """Rows of each part, (n,)."""
        ...


class SharedValue(Protocol[Held]):
    """A value that a worker takes when it needs it. Picklable."""

    def get(self) -> Held:
        """Return the value."""
        ...


class Workers(Protocol):
    """A place where the parts of a table are worked on."""

    def layout(self, compute: ComputeConfig) -> ComputeConfig:
        """Return the layout of a run as it is used here."""
        ...

    def share(self, value: T) -> SharedValue[T]:
        """Return a value as workers take it."""
        ...

    def map(
        self,
        worker: type,
        arguments: dict[str, Any],
        parts: ChosenParts,
        pool: Pool,
        progress: ProgressCallback = ignore_progress,
    ) -> list[dict[str, Any]]:
        """Call `worker(**arguments)(part, rows)` for every part, with the worker built once in each process.

        Args:
            worker: class of callables that take a part's name and its selected rows, int64 (n,), and return a flat dict of
                numbers. It may have a method `stream`, see `results`.
            arguments: of its constructor.
            parts: parts of the table, and the selected rows of each.
            pool: number of workers, and their resources.
            progress: called after each part.

        Returns:
            The dicts of all parts, in no particular order.

        Raises:
            KplmError: raised by a worker.
        """
        ...


def results(worker: Any, items: Iterable[tuple[str, NDArray[np.int64]]]) -> Iterator[dict[str, Any]]:
    """Yield the dicts of parts and their rows, in order, each when its part is on storage.

    A worker that has a method `stream` is given the items as an iterable, and yields the dicts: it may work on the next part
    before the last one is written. Others are called for one part after the other.
    """
    stream = getattr(worker, "stream", None)
    return stream(items) if stream else (worker(part, rows) for part, rows in items)


@dataclass(frozen=True)
class Kept(Generic[T]):
    """A shared value in this process."""

    value: T

    def get(self) -> T:
        """Return the value."""
        return self.value


class ThisProcess:
    """This process as the place of work: one worker, whatever the pool, which starts at once."""

    def layout(self, compute: ComputeConfig) -> ComputeConfig:
        """Return the layout with one worker, which has the threads of all; 0 threads are those of all cores."""
        return replace(compute, extract_workers=1, threads=compute.threads * compute.extract_workers)

    def share(self, value: T) -> Kept[T]:
        """Return a value as workers take it."""
        return Kept(value)

    def map(
        self,
        worker: type,
        arguments: dict[str, Any],
        parts: ChosenParts,
        pool: Pool,
        progress: ProgressCallback = ignore_progress,
    ) -> list[dict[str, Any]]:
        """Call one worker for every part: see `Workers`."""
        count = len(parts.parts)
        if not count:
            return []
        answers: list[dict[str, Any]] = []
        for answer in results(worker(**arguments), zip(parts.parts, parts.rows, strict=True)):
            answers.append(answer)
            progress(len(answers) / count, f"{len(answers)}/{count} parts")
        return answers
