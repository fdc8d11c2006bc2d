"""What a training worker does: it takes one job after the other, a training, a map over parts, or the shards of K-means."""

from __future__ import annotations

import gc
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
from numpy.typing import NDArray

from ray_kplm.errors import KplmError
from ray_kplm.locking.fence import Patrol
from ray_kplm.parts import results
from ray_kplm.runtime import session
from ray_kplm.runtime.call_board import LostCallError, ShardCall
from ray_kplm.runtime.train_loop import Job, train_loop
from ray_kplm.storage import Guard


@dataclass(frozen=True)
class MapJob:
    """Parts to be worked on by `worker(**arguments)`: see `parts.Workers.map`."""

    worker: type
    arguments: dict[str, Any]
    parts: list[str]
    rows: list[NDArray[np.int64]]
    guard: Guard | None
    """Whose loss ends the work."""


@dataclass(frozen=True)
class ShardsJob:
    """Shards of K-means that the workers make and hold, as they are called to, until the job is finished."""

    make: Callable[..., Any]
    """Makes a shard from the arguments of the call `make`."""


@dataclass(frozen=True)
class _Worker:
    """This process."""

    queue: Any
    rank: int
    name: str


def worker_main(config: dict[str, Any]) -> None:
    """Run one job after another in a training worker, until the queue is closed."""
    session.configure_ray_data()
    me = _Worker(config["queue"], ray.train.get_context().get_world_rank(), uuid.uuid4().hex)
    device = ray.train.torch.get_device()
    if device.type == "cuda":  # workers of a node see all of its GPUs; "cuda" is then this worker's one
        torch.cuda.set_device(device)
    ray.get(me.queue.join.remote(me.rank, me.name))
    number = -1
    while (entry := ray.get(me.queue.after.remote(number))) is not None:
        number, (reference,) = entry
        job = ray.get(reference)
        if isinstance(job, Job):
            _train(job, number, me)
        elif isinstance(job, MapJob):
            _map(job, number, me)
        else:
            _hold_shards(job, number, me)
        del job
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # another process may share the GPU


def _train(job: Job, number: int, me: _Worker) -> None:
    with Patrol(job.target.guard) as patrol:
        train_loop(job, me.queue.begin.remote, me.queue.send.remote, patrol.check)
    if me.rank == 0:
        ray.get(me.queue.finish.remote(number))


def _map(job: MapJob, number: int, me: _Worker) -> None:
    """Work on parts until all are done. An error for the user ends the map; with another one, this process ends."""
    worker, taken = None, deque[int]()

    def take(*, waits: bool) -> bool:
        index = ray.get(me.queue.take.remote(number, me.rank, me.name, waits))
        patrol.check()
        if index is not None:
            taken.append(index)
        return index is not None

    def items() -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Yield the part that was taken, and those that are open now: what is handed in waits for none of other workers."""
        yield job.parts[taken[-1]], job.rows[taken[-1]]
        while take(waits=False):
            yield job.parts[taken[-1]], job.rows[taken[-1]]

    with Patrol(job.guard) as patrol:
        try:
            while take(waits=True):
                if worker is None:
                    worker = job.worker(**job.arguments)
                    torch.set_num_threads(min(torch.get_num_threads(), _threads()))
                for answer in results(worker, items()):
                    ray.get(me.queue.hand_in.remote(number, taken.popleft(), answer))
        except KplmError as error:
            ray.get(me.queue.fail.remote(number, error))


def _hold_shards(job: ShardsJob, number: int, me: _Worker) -> None:
    """Answer calls to shards until the job is finished. Results stay in this node's object store: the queue gets references."""
    shards: dict[tuple[str, int], Any] = {}
    while (entry := ray.get(me.queue.next_call.remote(number, me.rank, me.name))) is not None:
        index, call = entry
        try:
            answer, error = _answer(job, call, shards), None
        except Exception as raised:
            answer, error = None, raised
        ray.get(me.queue.answer.remote(index, [ray.put(answer)], error))


def _answer(job: ShardsJob, call: ShardCall, shards: dict[tuple[str, int], Any]) -> Any:
    """Do a call to a shard, and return its result."""
    arguments = [ray.get(a) if isinstance(a, ray.ObjectRef) else a for a in call.arguments]
    key = (call.update, call.shard)
    if call.method == "make":
        for other in [other for other in shards if other[0] != call.update]:
            del shards[other]
        shards[key] = job.make(*arguments, threads=_threads())
        return None
    if key not in shards:
        raise LostCallError("the worker was started again, without its shards")
    return shards[key].ask(call.method, *arguments)


def _threads() -> int:
    """Return this worker's share of the node's cores."""
    workers: int = ray.train.get_context().get_local_world_size()
    return max(1, (os.cpu_count() or 1) // workers)
