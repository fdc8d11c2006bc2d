"""On which nodes the shards of K-means run, and with which share of a GPU."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ray_kplm.config import ComputeConfig
from ray_kplm.errors import RunError


@dataclass(frozen=True)
class ShardPlacement:
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


def place_shards(nodes: list[dict[str, Any]], parts: int, compute: ComputeConfig) -> list[ShardPlacement]:
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


def replace_shard(lost: ShardPlacement, nodes: list[dict[str, Any]], compute: ComputeConfig) -> ShardPlacement:
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


def _placement(node: dict[str, Any], shards: int, gpus: float) -> ShardPlacement:
    """Return the placement of one of several shards on a node.

    Each reserves `gpus`, or its share of the node's GPUs if that is less. Ray counts GPUs in whole numbers above 1, and in
    steps of 1 / 10,000 below.
    """
    share = min(gpus, node["Resources"].get("GPU", 0.0) / shards)
    whole = float(math.floor(share)) if share > 1 else math.floor(share * 10_000) / 10_000
    return ShardPlacement(node["NodeID"], int(node["Resources"].get("CPU", 1)), shards, whole)
