"""How many training workers a step has: chosen when it begins, by what the cluster has then.

Ray Train's own elastic bounds would take all CPUs of a small cluster, on which Ray Data then starves, and numbers of workers
that do not divide the batch (Ray 2.60).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from ray_kplm.config import ComputeConfig

_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_GIVEN = os.environ.get(_TIMEOUT)
_STARTING_S, _JOINING_S = 60, 600
"""How long workers may take to start where there is room for them, and where nodes must join first."""


def room(compute: ComputeConfig, nodes: Sequence[Mapping[str, float]]) -> int:
    """Workers that fit on nodes of so many CPU and GPU, beside their data workers and the one CPU that Ray Data needs."""
    needs = {"CPU": compute.cpus_per_worker, "GPU": compute.gpus_per_worker}
    needs = {kind: need for kind, need in needs.items() if need > 0}
    most = compute.worker_range.max
    placed = sum(
        min((int(node.get(kind, 0) / need + 1e-6) for kind, need in needs.items()), default=most) for node in nodes
    )
    cpus = sum(node.get("CPU", 0) for node in nodes)
    return max(0, min(placed, int((cpus - 1) / (compute.cpus_per_worker + compute.data_workers) + 1e-6)))


def choose(compute: ComputeConfig, batch: int, there: int) -> int:
    """The largest number of workers that divides the batch, within the bounds, for which there is room; else the smallest."""
    allowed = compute.worker_numbers(batch)
    return max((number for number in allowed if number <= there), default=allowed[0])


def choose_now(compute: ComputeConfig, batch: int) -> int:
    """The number of workers of a training that begins now, which share `batch`. Sets how long they may take to start."""
    there = room(compute, [node["Resources"] for node in ray.nodes() if node["Alive"]])
    chosen = choose(compute, batch, there) if compute.is_elastic else compute.worker_range.max
    os.environ[_TIMEOUT] = _GIVEN or str(_STARTING_S if there >= chosen else _JOINING_S)
    return chosen


class ScaleUpRequest:
    """Asks an autoscaler for the GPUs of more workers, which serve the next training. Of CPUs there is no asking: it could
    take what Ray Data needs.

    Ask when the workers have their GPUs: those that are free are reserved with it. Placement groups ask as long as they are
    there, and no longer than their job.
    """

    def __init__(self, compute: ComputeConfig, workers: int) -> None:
        """workers: how many there are."""
        self._bundle = {"CPU": compute.cpus_per_worker, "GPU": compute.gpus_per_worker}
        self._wanted = compute.worker_range.max - workers if compute.gpus_per_worker else 0
        self._asked: list[PlacementGroup] = []

    def ask(self) -> None:
        """Once: what was asked for stays so."""
        if not self._asked:
            self._asked = [placement_group([self._bundle]) for _ in range(self._wanted)]

    def close(self) -> None:
        """Give back what came of it."""
        for group in self._asked:
            remove_placement_group(group)
        self._asked = []
