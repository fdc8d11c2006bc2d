"""Pseudo-label updates on Ray actors: one coordinator and K-means shards (docs/method.md 3, steps 2 to 4).

`CorrespondenceActor` runs the method's update over `DescriptorShard` actors; they exchange centroids, sums and counts only. A
shard that dies is rebuilt, and the calls that changed its state are replayed. If the coordinator dies, the step is run again
from its inputs.
"""

from __future__ import annotations

import math
import os
import resource
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import ray
import torch
from ray.exceptions import ActorUnschedulableError, RayActorError, RayTaskError

from ray_kplm.config import ComputeConfig, Config
from ray_kplm.correspondence.backend import Backend, CpuBackend, DeviceBackend
from ray_kplm.correspondence.background import Background
from ray_kplm.correspondence.clusters import read_clusters, write_clusters
from ray_kplm.correspondence.shard import DescriptorShard
from ray_kplm.errors import RunError
from ray_kplm.locking.fence import Patrol
from ray_kplm.methods.base import Method
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.runtime.progress_channel import ProgressChannel, forward_progress
from ray_kplm.runtime.remote_errors import unwrap_user_error
from ray_kplm.runtime.session import on_node, on_this_node
from ray_kplm.storage import Folder

_START_TIMEOUT_S = 600
"""Time limit for the start of all shards: beyond it, the cluster has no free resources for them."""


def cluster_with_actors(
    features: Folder,
    parts: list[str],
    labels: Folder,
    target: Folder,
    method: Method,
    round_number: int,
    previous: Folder | None = None,
    progress: ProgressCallback = ignore_progress,
    background: Background | None = None,
) -> dict[str, Any]:
    """Cluster the features of a round, and write its pseudo-labels and `clusters.npz`.

    Args:
        features: folder of the features.
        parts: names of their parts.
        labels: where the parts of pseudo-labels are written.
        target: where `clusters.npz` is written.
        method: its `cluster` is the update.
        round_number: round whose network extracted the features.
        previous: folder of the previous update's `clusters.npz`, if the clusters continue it.
        progress: called after each iteration of K-means.
        background: the static background that the generic keypoints showed.

    Returns:
        The update's facts, the number of shards, how many were rebuilt, and the peak memory of the actors.

    Raises:
        CollapseError: too few keypoints or images are left to train on.
        DataError: features are unreadable.
        RunError: the actors died too often, or did not start.
    """
    failures = method.config.compute.max_failures
    for _ in range(failures + 1):
        actor = _Coordinator.options(scheduling_strategy=on_this_node()).remote(method, features, parts, labels, target)
        try:
            with forward_progress(actor, progress):
                facts: dict[str, Any] = ray.get(actor.run.remote(round_number, previous, background))
                return facts
        except RayTaskError as error:
            raise unwrap_user_error(error) or error from None
        except RayActorError:
            continue  # the coordinator died; its inputs are on storage
        finally:
            ray.kill(actor)
    raise RunError(
        f"{labels}: the clustering actor died {failures + 1} times (compute.max_failures = {failures}); its node may be out of "
        f"memory: lower clustering.start_sample, and run the same command again to continue"
    )


class CorrespondenceActor(ProgressChannel):
    """The coordinator of a pseudo-label update, and the channel of its progress.

    Its memory does not grow with the number of images: it holds centroids, sums and counts.
    """

    def __init__(self, method: Method, features: Folder, parts: list[str], labels: Folder, target: Folder) -> None:
        super().__init__()
        self._memory = _MemoryUsage()
        self._method, self._labels, self._target = method, labels, target
        self._shards = ActorShards(method.config, features, parts)

    def run(self, round_number: int, previous: Folder | None, background: Background | None) -> dict[str, Any]:
        """Run the update of a round, write its output, and return its facts; it ends when the driver has lost the run."""
        previous_clusters = None if previous is None else read_clusters(previous)
        with Patrol(self._target.guard) as patrol:

            def send(progress: Any, message: Any) -> None:
                patrol.check()
                self.send(progress, message)

            result = self._method.cluster(self._shards, self._labels, round_number, previous_clusters, send, background)
        write_clusters(self._target, result.arrays())
        memory = {"coordinator": self._memory.peak_mib(), "shards": self._shards.ask("peak_mib")}
        return result.facts() | {
            "shards": len(self._shards),
            "shards_rebuilt": self._shards.rebuilt,
            "memory_mib": memory,
        }


_Coordinator: Any = ray.remote(num_cpus=0, max_concurrency=2)(CorrespondenceActor)


@dataclass(frozen=True)
class _ShardPlacement:
    """Where a shard runs."""

    node: str
    """Ray's id of the node."""
    cpus: int
    """Logical CPUs of the node."""
    shards: int
    """Number of shards on the node."""
    gpus: float = 0.0
    """GPUs that the shard reserves."""

    def threads(self) -> int:
        """Return the threads of a shard. Called on its node, which may have fewer cores than the logical CPUs it declares."""
        return max(1, min(self.cpus, os.cpu_count() or 1) // self.shards)


def place_shards(nodes: list[dict[str, Any]], parts: int, compute: ComputeConfig) -> list[_ShardPlacement]:
    """Return the placements of all shards: one per node, or per GPU if GPUs are used.

    `compute.shards` of them are distributed round-robin over the nodes if it is set. There are never more shards than parts.

    Args:
        nodes: records of `ray.nodes()`.
        parts: number of parts of the features.
        compute: layout of the run.
    """
    gpus, eligible = compute.gpus_per_worker, _eligible(nodes, compute)
    slots = [node for node in eligible for _ in range(max(1, int(node["Resources"]["GPU"] / gpus)) if gpus else 1)]
    count = max(1, min(compute.shards or len(slots), parts))
    chosen = [slots[i % len(slots)] for i in range(count)]
    shards_on_node = Counter(node["NodeID"] for node in chosen)
    return [_placement(node, shards_on_node[node["NodeID"]], gpus) for node in chosen]


def replace_shard(lost: _ShardPlacement, nodes: list[dict[str, Any]], compute: ComputeConfig) -> _ShardPlacement:
    """Return the placement of a shard that died: on another node if one is alive, since its own may be lost.

    It reserves no GPU, because the other shards reserve those of the remaining nodes; it shares one with them.
    """
    eligible = _eligible(nodes, compute)
    others = [node for node in eligible if node["NodeID"] != lost.node] or eligible
    return _placement(others[0], lost.shards, 0.0)


def _eligible(nodes: list[dict[str, Any]], compute: ComputeConfig) -> list[dict[str, Any]]:
    """Return the nodes that can run a shard, in a fixed order."""
    kind = "GPU" if compute.gpus_per_worker else "CPU"
    eligible = [node for node in nodes if node["Alive"] and node["Resources"].get(kind, 0) > 0]
    if not eligible:
        raise RunError(
            f"no node of the cluster has a {kind} for K-means: compute.gpus_per_worker = {compute.gpus_per_worker}; wait for "
            f"nodes or change it"
        )
    return sorted(eligible, key=lambda node: node["NodeID"])


def _placement(node: dict[str, Any], shards: int, gpus: float) -> _ShardPlacement:
    """Return the placement of one of several shards on a node.

    Each reserves `gpus`, or its share of the node's GPUs if that is less. Ray counts GPUs in whole numbers above 1, and in
    steps of 1 / 10,000 below.
    """
    share = min(gpus, node["Resources"].get("GPU", 0.0) / shards)
    whole = float(math.floor(share)) if share > 1 else math.floor(share * 10_000) / 10_000
    return _ShardPlacement(node["NodeID"], int(node["Resources"].get("CPU", 1)), shards, whole)


class ActorShards:
    """`correspondence.sharded_kmeans.Shards` as Ray actors: of n shards, each holds every n-th part.

    The state of a shard follows from the calls that changed it. These are recorded; their arguments are centroids and counts. A
    shard that died, alone or with its node, is started again and the calls are replayed.
    """

    _STATE_CHANGING = ("begin", "begin_fit", "filter_landmarks", "exclude")

    def __init__(self, config: Config, features: Folder, parts: list[str]) -> None:
        """Start a shard on each placement; `parts` are the names of the features' parts."""
        self._config, self._features = config, features
        self._placements = place_shards(ray.nodes(), len(parts), config.compute)
        self._parts = [parts[i :: len(self._placements)] for i in range(len(self._placements))]
        self._calls: list[tuple[str, list[Any]]] = []
        self.rebuilt = 0
        self._actors = [self._start(shard) for shard in range(len(self._placements))]
        self._wait_until_started()

    def __len__(self) -> int:
        return len(self._actors)

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of `DescriptorShard` on all shards at the same time; return the results in the shards' order."""
        shared = [ray.put(a) if isinstance(a, np.ndarray) else a for a in arguments]
        pending = [actor.ask.remote(method, *shared) for actor in self._actors]
        results = [self._result(shard, reference, method, shared) for shard, reference in enumerate(pending)]
        if method in self._STATE_CHANGING:
            # Of several fits, only the last one has to be prepared again in a rebuilt shard.
            self._calls = [call for call in self._calls if not call[0] == method == "begin_fit"]
            self._calls.append((method, shared))
        return results

    def close(self) -> None:
        """Stop the shards. Otherwise they end with the process that started them."""
        for actor in self._actors:
            ray.kill(actor)

    def _wait_until_started(self) -> None:
        """Block until every shard has started, or has died, which the next `ask` handles."""
        compute = self._config.compute
        calls = [actor.ask.remote("peak_mib") for actor in self._actors]
        _, pending = ray.wait(calls, num_returns=len(calls), timeout=_START_TIMEOUT_S, fetch_local=False)
        if pending:
            raise RunError(
                f"{len(pending)} of {len(calls)} shards of K-means have not started after {_START_TIMEOUT_S} s "
                f"(compute.shards = {compute.shards}, compute.gpus_per_worker = {compute.gpus_per_worker}): stop other jobs on "
                f"the cluster, or lower one of the two"
            )

    def _result(self, shard: int, reference: Any, method: str, arguments: list[Any]) -> Any:
        """Return the result of a call to a shard. A shard that died is rebuilt, and the call repeated there."""
        failures = self._config.compute.max_failures
        for _ in range(failures + 1):
            try:
                return ray.get(reference)
            except RayTaskError as error:
                raise unwrap_user_error(error) or error from None
            except (RayActorError, ActorUnschedulableError):  # the shard died, or its node before the shard started
                self.rebuilt += 1
                self._placements[shard] = replace_shard(self._placements[shard], ray.nodes(), self._config.compute)
                actor = self._actors[shard] = self._start(shard)
                for call, shared in self._calls:
                    actor.ask.remote(call, *shared)
                reference = actor.ask.remote(method, *arguments)
        raise RunError(
            f"shard {shard} of {len(self)} died {failures + 1} times in {method} (compute.max_failures = {failures}); its node "
            f"may be out of memory: lower clustering.memory_gib = {self._config.clustering.memory_gib}"
        )

    def _start(self, shard: int) -> Any:
        """Start the actor of a shard.

        It reserves no CPUs: the run does nothing else while it clusters, and should not wait for the CPUs of other runs.
        """
        placement = self._placements[shard]
        actor = _RemoteShard.options(num_gpus=placement.gpus, scheduling_strategy=on_node(placement.node))
        return actor.remote(self._config, self._features, self._parts[shard], placement)


class _ShardActor:
    """A `DescriptorShard` in its own process."""

    def __init__(self, config: Config, features: Folder, parts: list[str], placement: _ShardPlacement) -> None:
        self._memory = _MemoryUsage()
        threads = config.compute.threads or placement.threads()
        torch.set_num_threads(1)  # the shard starts its own threads
        memory_bytes = int(config.clustering.memory_gib * 2**30)
        backend: Backend = CpuBackend(threads)
        if config.compute.gpus_per_worker and torch.cuda.is_available():
            backend = DeviceBackend(torch.device("cuda"), memory_bytes)
        self._shard = DescriptorShard(
            features,
            parts,
            memory_bytes=memory_bytes,
            seed=config.seed,
            backend=backend,
            one_way=config.method.mirror == "facing",
        )

    def ask(self, method: str, *arguments: Any) -> Any:
        """Return the result of a method of the shard, or this process's peak memory for `peak_mib`."""
        if method == "peak_mib":
            return self._memory.peak_mib()
        return getattr(self._shard, method)(*arguments)


_RemoteShard: Any = ray.remote(num_cpus=0, max_restarts=0)(_ShardActor)


class _MemoryUsage:
    """Memory that this process allocates after the object is created."""

    def __init__(self) -> None:
        self._start = psutil.Process().memory_info().rss

    def peak_mib(self) -> float:
        """Return the peak resident memory above that at the start, in MiB."""
        unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others KiB
        peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(round((peak - self._start) / 2**20, 1))
