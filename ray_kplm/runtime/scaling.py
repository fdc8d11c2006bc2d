"""Choose the number of training workers when a training starts, by the resources that the cluster then has.

Ray Train's own elastic bounds are not used: it takes all CPUs of a small cluster, so that Ray Data gets none, and chooses
numbers of workers that do not divide the batch (Ray 2.60).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from ray_kplm.config import ComputeConfig

_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_USER_START_TIMEOUT = os.environ.get(_START_TIMEOUT)
ALL = sys.maxsize
"""Number of trainings: all of a run."""
_START_S, _JOIN_S = 60, 600
"""Time limit for the start of the workers if they fit on the present nodes, and if nodes have to join first."""


def workers_that_fit(compute: ComputeConfig, nodes: Sequence[Mapping[str, float]]) -> int:
    """Return the number of training workers that fit on nodes, with their data workers and one CPU for Ray Data.

    Args:
        compute: what each worker reserves.
        nodes: resources of each node, of which `CPU` and `GPU` count.
    """
    needs = {"CPU": compute.cpus_per_worker, "GPU": compute.gpus_per_worker}
    needs = {kind: need for kind, need in needs.items() if need > 0}
    most = compute.worker_range.max
    placed = sum(
        min((int(node.get(kind, 0) / need + 1e-6) for kind, need in needs.items()), default=most) for node in nodes
    )
    cpus = sum(node.get("CPU", 0) for node in nodes)
    return max(0, min(placed, int((cpus - 1) / (compute.cpus_per_worker + compute.data_workers) + 1e-6)))


def choose(compute: ComputeConfig, batch: int, fitting: int) -> int:
    """Return the largest number of workers within the bounds that divides the batch and fits, or else the smallest.

    Args:
        compute: bounds of the number of workers.
        batch: `Plan.batch`, which the workers share.
        fitting: number of workers that fit on the cluster.
    """
    allowed = compute.worker_numbers(batch)
    return max((number for number in allowed if number <= fitting), default=allowed[0])


def choose_now(compute: ComputeConfig, batch: int) -> int:
    """Return the number of workers for a training that starts now, and set Ray Train's time limit for their start.

    Args:
        compute: number or bounds of the workers, and what each reserves.
        batch: `Plan.batch`, which the workers share.
    """
    fitting = workers_that_fit(compute, [node["Resources"] for node in ray.nodes() if node["Alive"]])
    chosen = choose(compute, batch, fitting) if compute.is_elastic else compute.worker_range.max
    os.environ[_START_TIMEOUT] = _USER_START_TIMEOUT or str(_START_S if fitting >= chosen else _JOIN_S)
    return chosen


def trainings_per_fit(compute: ComputeConfig, cluster: Mapping[str, float]) -> int:
    """Return how many trainings the same workers run: `compute.rounds_per_fit`, where 0 is replaced by what is possible.

    Workers whose number is fixed stay for the whole run if what happens between the trainings has room: on GPUs it happens in
    the workers themselves, on CPUs beside them.

    Args:
        compute: number of workers, and what each reserves.
        cluster: resources of the cluster, of which `CPU` counts.
    """
    if compute.rounds_per_fit:
        return compute.rounds_per_fit
    workers = compute.worker_range.max
    if compute.is_elastic:
        return 1
    if compute.gpus_per_worker:
        return ALL if compute.extract_workers <= workers else 1
    beside = max(compute.extract_workers * compute.cpus_per_worker, 1)
    return ALL if workers * compute.cpus_per_worker + beside <= cluster.get("CPU", 0) else 1


class ScaleUpRequest:
    """A request to the autoscaler for the GPUs of more workers, which the next training will use.

    It consists of placement groups, which are pending until nodes join and end with their job. They also reserve resources that
    are free, so it is submitted once the present workers have theirs. Only GPUs are requested: a request for CPUs could reserve
    those that Ray Data needs.
    """

    def __init__(self, compute: ComputeConfig, workers: int) -> None:
        """Prepare a request for the workers that the present number, `workers`, is short of the maximum."""
        self._bundle = {"CPU": compute.cpus_per_worker, "GPU": compute.gpus_per_worker}
        self._missing = compute.worker_range.max - workers if compute.gpus_per_worker else 0
        self._groups: list[PlacementGroup] = []

    def submit(self) -> None:
        """Create the placement groups, if they do not exist yet."""
        if not self._groups:
            self._groups = [placement_group([self._bundle]) for _ in range(self._missing)]

    def close(self) -> None:
        """Withdraw the request, and free what it reserved."""
        for group in self._groups:
            remove_placement_group(group)
        self._groups = []
