"""How many training workers a step has: chosen when it begins, by what the cluster has then.

Ray Train's own elastic bounds would take all CPUs of a small cluster, on which Ray Data then starves, and numbers of workers
that do not divide the batch (Ray 2.60).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import ray
from ray.util.placement_group import placement_group, remove_placement_group

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


@contextmanager
def workers_of(compute: ComputeConfig, batch: int) -> Iterator[int]:
    """The number of workers of a training step that begins now; `batch` is what they share.

    While the block runs, an autoscaler is asked for the nodes that more workers would need: they serve the next step.
    """
    there = room(compute, [node["Resources"] for node in ray.nodes() if node["Alive"]])
    chosen = choose(compute, batch, there) if compute.is_elastic else compute.worker_range.max
    os.environ[_TIMEOUT] = _GIVEN or str(_STARTING_S if there >= chosen else _JOINING_S)
    # Placement groups ask as long as their driver lives. Those of CPUs alone could take what Ray Data needs.
    wanted = compute.worker_range.max - max(there, chosen) if compute.gpus_per_worker else 0
    bundle = {"CPU": compute.cpus_per_worker, "GPU": compute.gpus_per_worker}
    asked = [placement_group([bundle]) for _ in range(wanted)]
    try:
        yield chosen
    finally:
        for group in asked:
            remove_placement_group(group)
