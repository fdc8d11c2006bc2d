"""Bitwise comparison of the results of two runs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch

from ray_kplm.correspondence.clusters import CLUSTERS, read_clusters
from ray_kplm.methods.trainer import NETWORK
from ray_kplm.run import Run, round_path
from ray_kplm.runtime.train_loop import METRICS
from ray_kplm.storage import Folder


def outputs(run: Run, *, scored: bool = True) -> dict[str, Any]:
    """Return everything that must be equal in two runs of one configuration.

    These are the networks with their optimisers, the training metrics, the labels, the clusters and, of runs that are `scored`,
    the scores, by path in the run.
    """
    results: dict[str, Any] = {}
    rounds = [round_path(number) for number in range(run.config.stage1.rounds + 1)]
    for step in [*(f"{path}/train" for path in rounds), "stage2"]:
        folder = Folder.at(f"{run.folder.path}/{step}")
        results[f"{step}/{NETWORK}"] = folder.read_bytes(NETWORK)
        results[f"{step}/{METRICS}"] = folder.read_json(METRICS)
    for path in rounds:
        folder = Folder.at(f"{run.folder.path}/{path}")
        results[f"{path}/{CLUSTERS}"] = read_clusters(folder)
        results[f"{path}/labels"] = [(folder / "labels").read_table(part) for part in (folder / "labels").parts()]
    if scored:
        scores = (run.folder / "evaluation").read_json("metrics.json")
        results["evaluation"] = {name: value for name, value in scores.items() if name not in ("seconds", "folder")}
    return results


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Return the names of the first run's outputs that differ from those of the second run."""
    return [name for name in first if not _equal(first[name], second.get(name))]


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, bytes):
        return second is not None and _equal_tensors(_load(first), _load(second))
    if isinstance(first, dict) and first and all(isinstance(value, np.ndarray) for value in first.values()):
        return first.keys() == second.keys() and all(np.array_equal(first[n], second[n], equal_nan=True) for n in first)
    return bool(first == second)


def _load(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=True)


def _equal_tensors(first: Any, second: Any) -> bool:
    """Return whether two trees of tensors are equal."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_equal_tensors(first[name], second[name]) for name in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(_equal_tensors, first, second))
    return bool(first == second)
