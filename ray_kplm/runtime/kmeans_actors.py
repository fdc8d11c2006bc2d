"""The dedicated clustering actor and its shards (docs/method.md 3, steps 2 to 4).

`CorrespondenceActor` runs the method's update over `DescriptorShard` actors; what goes between them is centroids, sums and
counts. A shard that dies is built again and led to where it was; if the coordinator dies the step starts again from its inputs.
"""

from __future__ import annotations

import math
import os
import resource
from collections import Counter
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import psutil
import ray
import torch
from ray.exceptions import ActorUnschedulableError, RayActorError, RayTaskError

from ray_kplm.config import ComputeConfig, Config
from ray_kplm.correspondence.assignment import gpu_search
from ray_kplm.correspondence.clusters import read_clusters, write_clusters
from ray_kplm.correspondence.shard import DescriptorShard
from ray_kplm.errors import RunError
from ray_kplm.methods.base import Method
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.runtime.progress_channel import ProgressChannel, forward_progress
from ray_kplm.runtime.remote_errors import unwrap_user_error
from ray_kplm.runtime.session import here, on_node
from ray_kplm.storage import Folder

_START_S = 600
"""Shards that have no room after so long are an error and no hang."""


def cluster_with_actors(
    features: Folder,
    parts: list[str],
    labels: Folder,
    target: Folder,
    method: Method,
    round_number: int,
    previous: Folder | None = None,
    progress: ProgressCallback = ignore_progress,
) -> dict[str, Any]:
    """Cluster a round's features, write its labels and `clusters.npz`; return the update's facts.

    previous: where the last update left its `clusters.npz`.

    Raises CollapseError when too little is left to learn from, DataError for unreadable features, RunError when actors kept
    dying.
    """
    failures = method.config.compute.max_failures
    for _ in range(failures + 1):
        actor = _Coordinator.options(scheduling_strategy=here()).remote(method, features, parts, labels, target)
        try:
            with forward_progress(actor, progress):
                return ray.get(actor.run.remote(round_number, previous))
        except RayTaskError as error:
            raise unwrap_user_error(error) or error from None
        except RayActorError:
            continue  # the coordinator died: its inputs are all there
        finally:
            ray.kill(actor)
    raise RunError(
        f"{labels}: the clustering actor died {failures + 1} times (compute.max_failures = {failures}); its node may be out of "
        f"memory: lower clustering.start_sample; the same command continues"
    )


class CorrespondenceActor(ProgressChannel):
    """Coordinates the shards; holds centroids, sums and counts, nothing that an image has. Says how far it is while it runs."""

    def __init__(self, method: Method, features: Folder, parts: list[str], labels: Folder, target: Folder) -> None:
        super().__init__()
        self._memory = _Memory()
        self._method, self._labels, self._target = method, labels, target
        self._shards = ActorShards(method.config, features, parts)

    def run(self, round_number: int, previous: Folder | None) -> dict[str, Any]:
        before = None if previous is None else read_clusters(previous)
        found = self._method.correspond(self._shards, self._labels, round_number, before, self.post)
        write_clusters(self._target, found.arrays())
        memory = {"coordinator": self._memory.peak_mib(), "shards": self._shards.ask("peak_mib")}
        return found.facts() | {
            "shards": len(self._shards),
            "shards_rebuilt": self._shards.rebuilt,
            "memory_mib": memory,
        }


_Coordinator: Any = ray.remote(num_cpus=0, max_concurrency=2)(CorrespondenceActor)


@dataclass(frozen=True)
class _Place:
    """Where a shard goes: its node, that node's logical CPUs, how many shards it has, and the share of a GPU for each."""

    node: str
    cpus: int
    shards: int
    gpus: float = 0.0

    def threads(self) -> int:
        """A shard's share of the cores, asked on the node itself: Ray may be told of more CPUs than there are."""
        return max(1, min(self.cpus, os.cpu_count() or 1) // self.shards)


def place_shards(nodes: list[dict[str, Any]], parts: int, compute: ComputeConfig) -> list[_Place]:
    """One shard a node, or a GPU where GPUs are used, or `compute.shards` dealt over the nodes; never more than parts.

    nodes: as `ray.nodes()` gives them.
    """
    gpus, able = compute.gpus_per_worker, _able(nodes, compute)
    slots = [node for node in able for _ in range(max(1, int(node["Resources"]["GPU"] / gpus)) if gpus else 1)]
    count = max(1, min(compute.shards or len(slots), parts))
    chosen = [slots[i % len(slots)] for i in range(count)]
    on_node = Counter(node["NodeID"] for node in chosen)
    return [_place(node, on_node[node["NodeID"]], gpus) for node in chosen]


def replace_shard(lost: _Place, nodes: list[dict[str, Any]], compute: ComputeConfig) -> _Place:
    """Where a shard that died is built again: on another node if there is one, as its own may be what was lost.

    It reserves no GPU: those of the nodes that are left are the other shards', and it shares one with them.
    """
    able = _able(nodes, compute)
    others = [node for node in able if node["NodeID"] != lost.node] or able
    return _place(others[0], lost.shards, 0.0)


def _able(nodes: list[dict[str, Any]], compute: ComputeConfig) -> list[dict[str, Any]]:
    """The nodes that shards may go to, in a fixed order."""
    wanted = "GPU" if compute.gpus_per_worker else "CPU"
    able = [node for node in nodes if node["Alive"] and node["Resources"].get(wanted, 0) > 0]
    if not able:
        raise RunError(
            f"no node of the cluster has a {wanted} for K-means: compute.gpus_per_worker = {compute.gpus_per_worker}; wait for "
            f"nodes or change it"
        )
    return sorted(able, key=lambda node: node["NodeID"])


def _place(node: dict[str, Any], shards: int, gpus: float) -> _Place:
    """gpus: what a shard would like; several on one GPU share it, in Ray's ten-thousandths."""
    share = min(gpus, node["Resources"].get("GPU", 0.0) / shards)
    whole = float(math.floor(share)) if share > 1 else math.floor(share * 10_000) / 10_000
    return _Place(node["NodeID"], int(node["Resources"].get("CPU", 1)), shards, whole)


class ActorShards:
    """`correspondence.sharded_kmeans.Shards` on Ray actors: each owns every n-th part.

    A shard's state follows from the calls that changed it; they are kept (with centroids and shares only), and a shard that
    died, alone or with its node, is started again and gets them again.
    """

    _CHANGING = ("begin", "begin_fit", "filter_landmarks", "exclude")

    def __init__(self, config: Config, features: Folder, parts: list[str]) -> None:
        self._config, self._features = config, features
        self._places = place_shards(ray.nodes(), len(parts), config.compute)
        self._parts = [parts[i :: len(self._places)] for i in range(len(self._places))]
        self._calls: list[tuple[str, list[Any]]] = []
        self.rebuilt = 0
        self._actors = [self._start(shard) for shard in range(len(self._places))]
        self._wait_for_room()

    def __len__(self) -> int:
        return len(self._actors)

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        shared = [ray.put(a) if isinstance(a, np.ndarray) else a for a in arguments]
        pending = [actor.ask.remote(method, *shared) for actor in self._actors]
        answers = [self._answer(shard, answer, method, shared) for shard, answer in enumerate(pending)]
        if method in self._CHANGING:
            # Of several fits only the last one is to be prepared again.
            self._calls = [call for call in self._calls if not call[0] == method == "begin_fit"]
            self._calls.append((method, shared))
        return answers

    def close(self) -> None:
        """End the shards now, rather than with the process that made them."""
        for actor in self._actors:
            ray.kill(actor)

    def _wait_for_room(self) -> None:
        """Until every shard has started; one that died on the way is there for `ask` to find."""
        ready = [actor.ask.remote("peak_mib") for actor in self._actors]
        _, waiting = ray.wait(ready, num_returns=len(ready), timeout=_START_S, fetch_local=False)
        if waiting:
            raise RunError(
                f"{len(waiting)} of {len(ready)} shards of K-means have not started after {_START_S} s (compute.shards = "
                f"{self._config.compute.shards}, compute.gpus_per_worker = {self._config.compute.gpus_per_worker}): end what "
                f"else runs on the cluster, or lower one of the two"
            )

    def _answer(self, shard: int, answer: Any, method: str, arguments: list[Any]) -> Any:
        failures = self._config.compute.max_failures
        for _ in range(failures + 1):
            try:
                return ray.get(answer)
            except RayTaskError as error:
                raise unwrap_user_error(error) or error from None
            except (RayActorError, ActorUnschedulableError):  # it died, or its node did before it was there
                self.rebuilt += 1
                self._places[shard] = replace_shard(self._places[shard], ray.nodes(), self._config.compute)
                actor = self._actors[shard] = self._start(shard)
                for call, shared in self._calls:
                    actor.ask.remote(call, *shared)
                answer = actor.ask.remote(method, *arguments)
        raise RunError(
            f"shard {shard} of {len(self)} died {failures + 1} times in {method} (compute.max_failures = {failures}); its node "
            f"may be out of memory: lower clustering.memory_gib = {self._config.clustering.memory_gib}"
        )

    def _start(self, shard: int) -> Any:
        """No CPUs are reserved: clustering runs while nothing else of the run does, and must not wait for other runs'."""
        place = self._places[shard]
        actor = _RemoteShard.options(num_gpus=place.gpus, scheduling_strategy=on_node(place.node))
        return actor.remote(self._config, self._features, self._parts[shard], place)


class _ShardActor:
    """A `DescriptorShard` in a process of its own."""

    def __init__(self, config: Config, features: Folder, parts: list[str], place: _Place) -> None:
        self._memory = _Memory()
        threads = config.compute.threads or place.threads()
        faiss.omp_set_num_threads(threads)
        torch.set_num_threads(1)  # the shard's own threads convert a block each
        self._shard = DescriptorShard(
            features,
            parts,
            memory_bytes=int(config.clustering.memory_gib * 2**30),
            seed=config.seed,
            threads=threads,
            search=gpu_search() if config.compute.gpus_per_worker and torch.cuda.is_available() else None,
        )

    def ask(self, method: str, *arguments: Any) -> Any:
        if method == "peak_mib":
            return self._memory.peak_mib()
        return getattr(self._shard, method)(*arguments)


_RemoteShard: Any = ray.remote(num_cpus=0, max_restarts=0)(_ShardActor)


class _Memory:
    """This process's memory since it began its work."""

    def __init__(self) -> None:
        self._start = psutil.Process().memory_info().rss

    def peak_mib(self) -> float:
        """The peak above the start, MiB."""
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - self._start / 2**20, 1)
