"""Work on the parts of a table: one Ray Data row a part, small answers.

A worker writes its part itself, atomically, into the table's folder, and answers with numbers. A part that is there is
done: an interrupted job continues with the missing ones.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray.data
from ray.data import ActorPoolStrategy, TaskPoolStrategy
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayTaskError

from ray_kplm.datasets.round_sampling import Selection
from ray_kplm.errors import RunError
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.runtime.remote_errors import unwrap_user_error

_PATIENCE_S = 3600.0
"""Where no part is finished for so long, a worker hangs or finds no room. A pretrained detector on a CPU may need minutes."""


@dataclass(frozen=True)
class Pool:
    """How many parts are worked on at a time, and what each reserves."""

    workers: int
    cpus: float = 1.0
    gpus: float = 0.0


def map_parts(
    worker: type,
    arguments: dict[str, Any],
    parts: Selection,
    pool: Pool,
    progress: ProgressCallback = ignore_progress,
) -> list[dict[str, Any]]:
    """Build `worker(**arguments)` once in each process and call it with each part's name and chosen rows; its answers (flat
    dicts of numbers), unordered. Arguments should be small: what is large is read from storage where the worker runs.

    The part of a killed process is tried again elsewhere (Ray Data). Raises what a worker raises; RunError when nothing
    is finished for an hour.
    """
    count = len(parts.parts)
    if not count:
        return []
    items = [{"part": part, "rows": rows} for part, rows in zip(parts.parts, parts.rows, strict=True)]
    dataset = ray.data.from_items(items, override_num_blocks=count)
    job = _Job(uuid.uuid4().hex, worker, arguments)
    workers = min(pool.workers, count)
    # An actor gives its GPU back, being a process that ends; a task saves the start of one, longer than a short round's work.
    how: dict[str, Any] = (
        {
            "fn": _PartActor,
            "fn_constructor_args": [job],
            "compute": ActorPoolStrategy(size=workers),
            "num_gpus": pool.gpus,
        }
        if pool.gpus
        else {"fn": _work_on_part, "fn_args": [job], "compute": TaskPoolStrategy(size=workers)}
    )
    answers = dataset.map_batches(batch_size=1, num_cpus=pool.cpus, **how)
    answers.context.execution_no_progress_timeout_s = _PATIENCE_S
    found = []
    try:
        for answer in answers.iter_rows():
            found.append(answer)
            progress(len(found) / count, f"{len(found)}/{count} parts")
    except ExecutionTimeoutError:
        raise RunError(
            f"{len(found)} of {count} parts are finished, and none was in {_PATIENCE_S / 60:.0f} minutes: a worker hangs, its "
            f"process keeps dying, or there is no room for one ({pool.cpus:g} CPUs, {pool.gpus:g} GPUs); the same command "
            f"continues with the others"
        ) from None
    except RayTaskError as error:
        raise unwrap_user_error(error) or error from None
    return found


@dataclass(frozen=True)
class _Job:
    """One call of `map_parts`."""

    name: str
    worker: type
    arguments: dict[str, Any]


_held: dict[str, Any] = {}
"""The worker of this process, by the job it was built for: a process is given many of its parts."""


def _work_on_part(batch: dict[str, Any], job: _Job) -> dict[str, list[Any]]:
    """Ray Data's batch of one row -> a call with a part's name and rows."""
    if job.name not in _held:
        _held.clear()
        _held[job.name] = job.worker(**job.arguments)
    answer = _held[job.name](str(batch["part"][0]), np.asarray(batch["rows"][0], np.int64))
    return {key: [value] for key, value in answer.items()}


class _PartActor:
    """The same, in a process that ends with the job."""

    def __init__(self, job: _Job) -> None:
        self._job = job

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        return _work_on_part(batch, self._job)
