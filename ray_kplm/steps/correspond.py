"""The dedicated clustering actor and its shards on Ray (METHOD 3, steps 2 to 4).

`CorrespondenceActor` runs `correspondence.update` over `DescriptorShard` actors; what goes between them is centroids, sums and
counts.
"""

from __future__ import annotations

import io
import os
from typing import Any

import faiss
import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayTaskError

from ray_kplm.config import Config
from ray_kplm.correspondence.shard import DescriptorShard
from ray_kplm.correspondence.update import Update, update
from ray_kplm.errors import KplmError
from ray_kplm.storage import Folder

CLUSTERS = "clusters.npz"


def correspond(
    features: Folder, parts: list[str], labels: Folder, target: Folder, config: Config, round_number: int
) -> dict[str, Any]:
    """Cluster a round's features, write its labels and `clusters.npz`; returns the update's facts."""
    actor: Any = ray.remote(num_cpus=0.1)(CorrespondenceActor).remote(config, features, parts, labels, target)
    try:
        return ray.get(actor.run.remote(round_number))
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, KplmError) else error from None
    finally:
        ray.kill(actor)


class CorrespondenceActor:
    """Coordinates the shards; holds centroids, sums and counts, nothing that an image has."""

    def __init__(self, config: Config, features: Folder, parts: list[str], labels: Folder, target: Folder) -> None:
        self._config, self._labels, self._target = config, labels, target
        self._shards = _ActorShards(config, features, parts)

    def run(self, round_number: int) -> dict[str, Any]:
        found = update(self._shards, self._labels, self._config, round_number, lambda text: None)
        self._target.write_bytes(CLUSTERS, _packed(found))
        return found.facts()


class _ActorShards:
    """`correspondence.update.Shards` on Ray actors: each owns every n-th part."""

    def __init__(self, config: Config, features: Folder, parts: list[str]) -> None:
        count = max(1, min(config.compute.shards, len(parts)))
        threads = config.compute.threads or max(1, (os.cpu_count() or 1) // count)
        memory = int(config.clustering.memory_gib * 2**30)
        actor: Any = ray.remote(num_cpus=0.5, max_restarts=0)(_ShardActor)
        self._actors = [actor.remote(threads, features, parts[i::count], memory, config.seed) for i in range(count)]

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        shared = [ray.put(a) if isinstance(a, np.ndarray) else a for a in arguments]
        return ray.get([actor.ask.remote(method, *shared) for actor in self._actors])


class _ShardActor:
    """A `DescriptorShard` in a process of its own."""

    def __init__(self, threads: int, features: Folder, parts: list[str], memory: int, seed: int) -> None:
        faiss.omp_set_num_threads(threads)
        self._shard = DescriptorShard(features, parts, memory, seed)

    def ask(self, method: str, *arguments: Any) -> Any:
        return getattr(self._shard, method)(*arguments)


def _packed(found: Update) -> bytes:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        landmark_centroids=found.landmark_centroids,
        cluster_centroids=found.cluster_centroids,
        flip_map=found.flip_map,
        flip_counts=found.filtered.flip_counts,
        landmark_objectives=found.landmark_objectives,
        cluster_objectives=found.cluster_objectives,
    )
    return buffer.getvalue()


def read_clusters(folder: Folder) -> dict[str, NDArray]:
    """The arrays of `clusters.npz`: centroids, flip map and counts, objectives."""
    with np.load(io.BytesIO(folder.read_bytes(CLUSTERS))) as arrays:
        return {name: arrays[name] for name in arrays.files}
