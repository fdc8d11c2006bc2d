"""Processes that hold shards of K-means: actors of their own, or training workers that hold the GPUs.

A host starts shards, and calls them. `ActorShards` of `kmeans_actors` uses it, and rebuilds what is lost.
"""

from __future__ import annotations

import uuid
from functools import cached_property
from typing import Any, Protocol

import ray
import torch
from ray.exceptions import ActorUnschedulableError, RayActorError, RayError, RayTaskError

from ray_kplm.config import ComputeConfig, Config
from ray_kplm.correspondence.backend import Backend, CpuBackend, DeviceBackend
from ray_kplm.correspondence.faiss_import import faiss
from ray_kplm.correspondence.shard import DescriptorShard
from ray_kplm.errors import RunError
from ray_kplm.runtime.call_board import LostCallError, ShardCall
from ray_kplm.runtime.memory_usage import MemoryUsage
from ray_kplm.runtime.remote_errors import unwrap_user_error
from ray_kplm.runtime.session import on_node
from ray_kplm.runtime.shard_placement import ShardPlacement, place_shards, replace_shard
from ray_kplm.storage import Folder

_START_TIMEOUT_S = 600
"""Time limit for the start of all shards: beyond it, the cluster has no free resources for them."""


class HeldShard:
    """A `DescriptorShard` in a process that reports its memory. It is made by the first call, which raises what that raises."""

    def __init__(self, config: Config, features: Folder, parts: list[str], threads: int) -> None:
        """threads: of the shard, unless `compute.threads` gives them."""
        self._memory = MemoryUsage()
        self._config, self._features, self._parts = config, features, parts
        self._threads = config.compute.threads or threads

    def ask(self, method: str, *arguments: Any) -> Any:
        """Return the result of a method of the shard, or this process's peak memory for `peak_mib`."""
        return self._memory.peak_mib() if method == "peak_mib" else getattr(self._shard, method)(*arguments)

    @cached_property
    def _shard(self) -> DescriptorShard:
        config = self._config
        torch.set_num_threads(1)  # the shard starts its own threads
        faiss.omp_set_num_threads(1)
        memory_bytes = int(config.clustering.memory_gib * 2**30)
        backend: Backend = CpuBackend(self._threads)
        if config.compute.gpus_per_worker and torch.cuda.is_available():
            backend = DeviceBackend(torch.device("cuda"), memory_bytes)
        return DescriptorShard(
            self._features,
            self._parts,
            memory_bytes=memory_bytes,
            seed=config.seed,
            backend=backend,
            one_way=config.method.mirror == "facing",
        )


class Hosts(Protocol):
    """Processes that hold the shards of an update."""

    def begin(self, compute: ComputeConfig, parts: int) -> int:
        """Prepare for an update of features of some parts, and return the number of its shards."""
        ...

    def make(self, shard: int, config: Config, features: Folder, parts: list[str]) -> ray.ObjectRef:
        """Begin to make a shard of some parts; `get` waits for it."""
        ...

    def ask(self, shard: int, method: str, arguments: list[Any]) -> ray.ObjectRef:
        """Call a method of a shard; arguments are values, or references to large ones. `get` returns the result."""
        ...

    def get(self, reference: ray.ObjectRef) -> Any:
        """Return the result of a call.

        Raises:
            LostCallError: the shard is lost.
        """
        ...

    def replace(self, shard: int) -> None:
        """Prepare a process for a shard that is lost; `make` is called next."""
        ...

    def wait(self, made: list[ray.ObjectRef]) -> None:
        """Block until the shards of these calls to `make` are made or lost; raises RunError if processes do not start."""
        ...

    def close(self) -> None:
        """End the processes, if they are there for the shards only."""
        ...


class ActorHosts:
    """An actor for each shard. They stay for the next update, if it has as many shards on the same nodes."""

    def __init__(self) -> None:
        self._compute = ComputeConfig()
        self._placements: list[ShardPlacement] = []
        self._actors: list[Any] = []

    def begin(self, compute: ComputeConfig, parts: int) -> int:
        """Start an actor on each placement: see `Hosts`."""
        self._compute, placements = compute, place_shards(ray.nodes(), parts, compute)
        if placements != self._placements:
            self.close()
            self._placements = placements
            self._actors = [_start(placement) for placement in placements]
        return len(placements)

    def make(self, shard: int, config: Config, features: Folder, parts: list[str]) -> ray.ObjectRef:
        """Make a shard in its actor: see `Hosts`."""
        return self._actors[shard].make.remote(config, features, parts, self._placements[shard])

    def ask(self, shard: int, method: str, arguments: list[Any]) -> ray.ObjectRef:
        """Call the actor of a shard: see `Hosts`."""
        return self._actors[shard].ask.remote(method, *arguments)

    def get(self, reference: ray.ObjectRef) -> Any:
        """Return the result of a call: see `Hosts`."""
        try:
            return ray.get(reference)
        except RayTaskError as error:
            raise unwrap_user_error(error) or error from None
        except (RayActorError, ActorUnschedulableError) as error:  # it died, or its node before it started
            raise LostCallError(str(error)) from None

    def replace(self, shard: int) -> None:
        """Start another actor, on another node if there is one: see `Hosts`."""
        self._placements[shard] = replace_shard(self._placements[shard], ray.nodes(), self._compute)
        self._actors[shard] = _start(self._placements[shard])

    def wait(self, made: list[ray.ObjectRef]) -> None:
        """Block until every actor has started, or has died, which the next call finds: see `Hosts`."""
        _, pending = ray.wait(made, num_returns=len(made), timeout=_START_TIMEOUT_S, fetch_local=False)
        if pending:
            raise RunError(
                f"{len(pending)} of {len(made)} shards of K-means have not started after {_START_TIMEOUT_S} s "
                f"(compute.shards = {self._compute.shards}, compute.gpus_per_worker = {self._compute.gpus_per_worker}): stop "
                f"other jobs on the cluster, or lower one of the two"
            )

    def close(self) -> None:
        """Kill the actors. Otherwise they end with the process that started them."""
        for actor in self._actors:
            ray.kill(actor)
        self._placements, self._actors = [], []


class PoolHosts:
    """Training workers as the hosts of shards: they are called through their queue, and stay when the update is done."""

    def __init__(self, queue: Any, workers: int) -> None:
        """queue: actor handle of the workers' `JobQueue`."""
        self._queue, self._workers, self._update = queue, workers, ""

    def begin(self, compute: ComputeConfig, parts: int) -> int:
        """Return the number of shards, that of the workers if `compute.shards` does not give one: see `Hosts`."""
        self._update = uuid.uuid4().hex
        return max(1, min(compute.shards or self._workers, parts))

    def make(self, shard: int, config: Config, features: Folder, parts: list[str]) -> ray.ObjectRef:
        """Make a shard in a worker: see `Hosts`."""
        return self.ask(shard, "make", [config, features, parts])

    def ask(self, shard: int, method: str, arguments: list[Any]) -> ray.ObjectRef:
        """Call a shard in its worker: see `Hosts`."""
        call = ShardCall(self._update, shard, method, arguments)
        return self._queue.call.remote(shard % self._workers, call)

    def get(self, reference: ray.ObjectRef) -> Any:
        """Return the result of a call: see `Hosts`."""
        try:
            (result,) = ray.get(reference)
            return ray.get(result)
        except RayTaskError as error:
            if isinstance(error.cause, LostCallError):
                raise error.cause from None
            raise unwrap_user_error(error) or error from None
        except RayError as error:  # the result was lost with the worker's node
            raise LostCallError(str(error)) from None

    def replace(self, shard: int) -> None:
        """Do nothing: Ray Train starts workers again."""

    def wait(self, made: list[ray.ObjectRef]) -> None:
        """Block until the workers have made the shards: see `Hosts`."""
        ray.wait(made, num_returns=len(made), fetch_local=False)

    def close(self) -> None:
        """Do nothing: the workers stay."""


class _ShardActor:
    """A `HeldShard` in its own process."""

    def __init__(self) -> None:
        self._shard: HeldShard | None = None

    def make(self, config: Config, features: Folder, parts: list[str], placement: ShardPlacement) -> None:
        """Take over the parts of an update, in place of those of the one before."""
        self._shard = HeldShard(config, features, parts, placement.threads())

    def ask(self, method: str, *arguments: Any) -> Any:
        """Return what `HeldShard.ask` does."""
        assert self._shard is not None, "the first call is `make`"
        return self._shard.ask(method, *arguments)


_RemoteShard: Any = ray.remote(num_cpus=0, max_restarts=0)(_ShardActor)


def _start(placement: ShardPlacement) -> Any:
    """Start the actor of a shard.

    It reserves no CPUs: the run does nothing else while it clusters, and should not wait for the CPUs of other runs.
    """
    return _RemoteShard.options(num_gpus=placement.gpus, scheduling_strategy=on_node(placement.node)).remote()
