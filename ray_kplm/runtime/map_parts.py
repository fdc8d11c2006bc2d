"""Map a worker over the parts of a table with Ray Data: one row per part, small results.

A worker writes its part to storage itself, atomically, and returns numbers. A part that exists is done, so an interrupted map
continues with the missing ones.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import ray.data
from ray.data import ActorPoolStrategy, TaskPoolStrategy
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayTaskError

from ray_kplm.config import ComputeConfig
from ray_kplm.errors import RunError
from ray_kplm.parts import ChosenParts, Pool, results
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.runtime.remote_errors import unwrap_user_error
from ray_kplm.runtime.tasks import Shared

__all__ = ["Pool", "RayWorkers", "map_parts"]

T = TypeVar("T")

_MOST_AT_A_TIME, _TURNS = 32, 4
_NO_PROGRESS_TIMEOUT_S = 3600.0
"""Time without a finished part that is an error. A pretrained detector on a CPU may need minutes for a part."""


class RayWorkers:
    """The nodes of a Ray session as the place of work: see `parts.Workers`. Ray must be initialised."""

    def layout(self, compute: ComputeConfig) -> ComputeConfig:
        """Return the layout as it is."""
        return compute

    def share(self, value: T) -> Shared[T]:
        """Put a value into Ray's object store."""
        return Shared(value)

    def map(
        self,
        worker: type,
        arguments: dict[str, Any],
        parts: ChosenParts,
        pool: Pool,
        progress: ProgressCallback = ignore_progress,
    ) -> list[dict[str, Any]]:
        """Call a worker for every part: `map_parts`."""
        return map_parts(worker, arguments, parts, pool, progress)


def map_parts(
    worker: type,
    arguments: dict[str, Any],
    parts: ChosenParts,
    pool: Pool,
    progress: ProgressCallback = ignore_progress,
) -> list[dict[str, Any]]:
    """Call `worker(**arguments)(part, rows)` for every part, with the worker built once in each process.

    Ray Data retries the part of a killed process in another one.

    Args:
        worker: class of callables that take a part's name and its selected rows, int64 (n,), and return a flat dict of numbers.
        arguments: of its constructor; small, since large data are read from storage by the worker.
        parts: parts of the table, and the selected rows of each.
        pool: number of workers, and their resources.
        progress: called after each part.

    Returns:
        The dicts of all parts, in no particular order.

    Raises:
        KplmError: raised by a worker.
        RunError: no part finished for an hour.
    """
    count = len(parts.parts)
    if not count:
        return []
    items = [{"part": part, "rows": rows} for part, rows in zip(parts.parts, parts.rows, strict=True)]
    at_a_time = _parts_at_a_time(worker, count, pool)
    blocks = -(-count // at_a_time)
    dataset = ray.data.from_items(items, override_num_blocks=blocks)
    mapped = _map(dataset, _Job(uuid.uuid4().hex, worker, arguments), pool, min(pool.workers, blocks), at_a_time)
    mapped.context.execution_no_progress_timeout_s = _NO_PROGRESS_TIMEOUT_S
    answers: list[dict[str, Any]] = []
    try:
        for answer in mapped.iter_rows():
            answers.append(answer)
            progress(len(answers) / count, f"{len(answers)}/{count} parts")
    except ExecutionTimeoutError:
        raise RunError(
            f"{len(answers)} of {count} parts are finished, and none was in {_NO_PROGRESS_TIMEOUT_S / 60:.0f} minutes: a "
            f"worker hangs, its process keeps dying, or no node has {pool.cpus:g} CPUs and {pool.gpus:g} GPUs free; run the "
            f"same command again to continue with the others"
        ) from None
    except RayTaskError as error:
        raise unwrap_user_error(error) or error from None
    return answers


def _parts_at_a_time(worker: type, count: int, pool: Pool) -> int:
    """Return the number of parts that a process is given at a time: several where it overlaps them beside a GPU.

    Each process has a turn several times, so that all end at about the same time.
    """
    if not pool.gpus or not hasattr(worker, "stream"):
        return 1
    return max(1, min(_MOST_AT_A_TIME, count // (_TURNS * pool.workers)))


@dataclass(frozen=True)
class _Job:
    """A call of `map_parts`."""

    name: str
    """Unique to the call."""
    worker: type
    arguments: dict[str, Any]


def _map(dataset: ray.data.Dataset, job: _Job, pool: Pool, workers: int, at_a_time: int) -> ray.data.Dataset:
    """Return the dataset of results, by actors if workers reserve GPUs and by tasks otherwise.

    An actor's process ends with the map, which frees its GPU memory. Tasks reuse processes: starting one takes longer than
    the work of a short round.
    """
    if pool.gpus:
        return dataset.map_batches(
            _PartActor,
            fn_constructor_args=[job],
            batch_size=at_a_time,
            compute=ActorPoolStrategy(size=workers),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
        )
    return dataset.map_batches(
        _work_on_part, fn_args=[job], batch_size=at_a_time, compute=TaskPoolStrategy(size=workers), num_cpus=pool.cpus
    )


_worker_cache: dict[str, Any] = {}
"""The worker of this process, by the name of its job: a process maps many parts of a job."""


def _work_on_part(batch: dict[str, Any], job: _Job) -> dict[str, list[Any]]:
    """Call the job's worker with the parts in the rows of a batch, and return a batch of their results."""
    if job.name not in _worker_cache:
        _worker_cache.clear()
        _worker_cache[job.name] = job.worker(**job.arguments)
    rows = (np.asarray(rows, np.int64) for rows in batch["rows"])
    found = list(results(_worker_cache[job.name], zip(map(str, batch["part"]), rows, strict=True)))
    return {key: [result[key] for result in found] for key in found[0]}


class _PartActor:
    """`_work_on_part` as an actor."""

    def __init__(self, job: _Job) -> None:
        self._job = job

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        return _work_on_part(batch, self._job)
