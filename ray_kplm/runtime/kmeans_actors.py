"""Pseudo-label updates on Ray actors: one coordinator and K-means shards (docs/method.md 3, steps 2 to 4).

`CorrespondenceActor` runs the method's update over `DescriptorShard` actors; they exchange centroids, sums and counts only. A
shard that dies is rebuilt, and the calls that changed its state are replayed. If the coordinator dies, the step is run again
from its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError, RayTaskError

from ray_kplm.config import Config
from ray_kplm.correspondence.background import Background
from ray_kplm.correspondence.clusters import read_clusters, write_clusters
from ray_kplm.errors import RunError
from ray_kplm.locking.fence import Patrol
from ray_kplm.methods.base import Method
from ray_kplm.progress import ProgressCallback, ignore_progress
from ray_kplm.runtime.call_board import LostCallError
from ray_kplm.runtime.memory_usage import MemoryUsage
from ray_kplm.runtime.progress_channel import ProgressChannel, forward_progress
from ray_kplm.runtime.remote_errors import unwrap_user_error
from ray_kplm.runtime.session import on_this_node
from ray_kplm.runtime.shard_hosts import ActorHosts, Hosts
from ray_kplm.storage import Folder


class ClusteringActors:
    """The coordinator of a run's pseudo-label updates, with its shards: they can stay from one update to the next."""

    def __init__(self) -> None:
        self._coordinator: Any = None

    @contextmanager
    def coordinator(self, stays: bool) -> Iterator[Any]:
        """Yield the handle of the coordinator's actor.

        Args:
            stays: whether it is there for the next block too, if this one does not raise.
        """
        if self._coordinator is None:
            self._coordinator = _Coordinator.options(scheduling_strategy=on_this_node()).remote()
        try:
            yield self._coordinator
        except BaseException:
            stays = False
            raise
        finally:
            if not stays:
                self.close()

    def close(self) -> None:
        """End the actors; the shards' end with the coordinator."""
        if self._coordinator is not None:
            ray.kill(self._coordinator)
            self._coordinator = None


@dataclass(frozen=True)
class ClusteringPlace:
    """Where an update is done."""

    actors: ClusteringActors
    """Those that stay for other updates."""
    hosting: Callable[[], AbstractContextManager[tuple[Hosts | None, Callable[[ray.ObjectRef], Any]]]]
    """Makes the block in which the update is done. It yields processes for the shards, None for actors of their own; and what
    waits for a value as long as these processes live."""


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
    place: ClusteringPlace | None = None,
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
        place: where it is done; by default actors that end with it.

    Returns:
        The update's facts, the number of shards, how many were rebuilt, and the peak memory of the actors.

    Raises:
        CollapseError: too few keypoints or images are left to train on.
        DataError: features are unreadable.
        RunError: the actors died too often, or did not start.
    """
    compute, update = method.config.compute, Update(method, features, parts, labels, target)
    actors, hosting = (place.actors, place.hosting) if place else (ClusteringActors(), own_hosts)
    failures = compute.max_failures
    for _ in range(failures + 1):
        try:
            with hosting() as (hosts, wait):
                # Actors that reserve GPUs do not stay: other work needs these.
                stays = place is not None and (hosts is not None or not compute.gpus_per_worker)
                with actors.coordinator(stays) as actor, forward_progress(actor, progress):
                    facts: dict[str, Any] = wait(actor.run.remote(update, round_number, previous, background, hosts))
                    return facts
        except RayTaskError as error:
            raise unwrap_user_error(error) or error from None
        except RayActorError:
            continue  # the coordinator died, or all hosts; the inputs are on storage
    raise RunError(
        f"{labels}: the clustering actor died {failures + 1} times (compute.max_failures = {failures}); its node may be out of "
        f"memory: lower clustering.start_sample, and run the same command again to continue"
    )


@contextmanager
def own_hosts() -> Iterator[tuple[Hosts | None, Callable[[ray.ObjectRef], Any]]]:
    """Make the block of an update whose shards are actors of their own: see `ClusteringPlace.hosting`."""
    yield None, ray.get


@dataclass(frozen=True)
class Update:
    """A pseudo-label update: how it is done, from which parts of features, and where labels and clusters are written."""

    method: Method
    features: Folder
    parts: list[str]
    labels: Folder
    target: Folder


class CorrespondenceActor(ProgressChannel):
    """The coordinator of pseudo-label updates, and the channel of their progress.

    Its memory does not grow with the number of images: it holds centroids, sums and counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self._memory, self._actors = MemoryUsage(), ActorHosts()

    def run(
        self,
        update: Update,
        round_number: int,
        previous: Folder | None,
        background: Background | None,
        hosts: Hosts | None,
    ) -> dict[str, Any]:
        """Run the update of a round, write its output, and return its facts; it ends when the driver has lost the run.

        hosts: the processes of the shards; None: actors, which stay.
        """
        previous_clusters = None if previous is None else read_clusters(previous)
        with Patrol(update.target.guard) as patrol:

            def send(progress: Any, message: Any) -> None:
                patrol.check()
                self.send(progress, message)

            shards = ActorShards(update.method.config, update.features, update.parts, hosts or self._actors)
            result = update.method.cluster(shards, update.labels, round_number, previous_clusters, send, background)
        write_clusters(update.target, result.arrays())
        memory = {"coordinator": self._memory.peak_mib(), "shards": shards.ask("peak_mib")}
        return result.facts() | {"shards": len(shards), "shards_rebuilt": shards.rebuilt, "memory_mib": memory}


_Coordinator: Any = ray.remote(num_cpus=0, max_concurrency=2)(CorrespondenceActor)


class ActorShards:
    """`correspondence.sharded_kmeans.Shards` in other processes: of n shards, each holds every n-th part.

    The state of a shard follows from the calls that changed it. These are recorded; their arguments are centroids and counts. A
    shard that is lost, alone or with its node, is made again and the calls are replayed.
    """

    _STATE_CHANGING = ("begin", "begin_fit", "filter_landmarks", "exclude")

    def __init__(self, config: Config, features: Folder, parts: list[str], hosts: Hosts | None = None) -> None:
        """Make the shards.

        Args:
            config: of the run.
            features: folder of the features.
            parts: names of their parts.
            hosts: the processes; by default new actors.
        """
        self._config, self._features, self._hosts = config, features, hosts or ActorHosts()
        count = self._hosts.begin(config.compute, len(parts))
        self._parts = [parts[i::count] for i in range(count)]
        self._calls: list[tuple[str, list[Any]]] = []
        self.rebuilt = 0
        self._hosts.wait([self._make(shard) for shard in range(count)])

    def __len__(self) -> int:
        return len(self._parts)

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of `DescriptorShard` on all shards at the same time; return the results in the shards' order."""
        shared = [ray.put(a) if isinstance(a, np.ndarray) else a for a in arguments]
        pending = [self._hosts.ask(shard, method, shared) for shard in range(len(self))]
        results = [self._result(shard, reference, method, shared) for shard, reference in enumerate(pending)]
        if method in self._STATE_CHANGING:
            # Of several fits, only the last one has to be prepared again in a rebuilt shard.
            self._calls = [call for call in self._calls if not call[0] == method == "begin_fit"]
            self._calls.append((method, shared))
        return results

    def close(self) -> None:
        """End the processes that are there for the shards only."""
        self._hosts.close()

    def _result(self, shard: int, reference: ray.ObjectRef, method: str, arguments: list[Any]) -> Any:
        """Return the result of a call to a shard. A shard that is lost is rebuilt, and the call repeated there."""
        failures = self._config.compute.max_failures
        attempt = partial(self._hosts.get, reference)
        for _ in range(failures + 1):
            try:
                return attempt()
            except LostCallError:
                self.rebuilt += 1
                self._hosts.replace(shard)
                attempt = partial(self._rebuild_and_ask, shard, method, arguments)
        raise RunError(
            f"shard {shard} of {len(self)} died {failures + 1} times in {method} (compute.max_failures = {failures}); its node "
            f"may be out of memory: lower clustering.memory_gib = {self._config.clustering.memory_gib}"
        )

    def _rebuild_and_ask(self, shard: int, method: str, arguments: list[Any]) -> Any:
        """Make a shard again, bring it to the state of the others, and return the result of a call to it.

        Each call waits for the one before: an asyncio actor between here and the shard keeps no order.
        """
        result = self._hosts.get(self._make(shard))
        for call, shared in [*self._calls, (method, arguments)]:
            result = self._hosts.get(self._hosts.ask(shard, call, shared))
        return result

    def _make(self, shard: int) -> ray.ObjectRef:
        return self._hosts.make(shard, self._config, self._features, self._parts[shard])
