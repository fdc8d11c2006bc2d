"""`kplm bench correspondence`: the pseudo-label update against Faiss, over shards, and against its memory budget."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

import torch

from ray_kplm.bench.kmeans_speed import Sizes, against_faiss, on_device, one_core, write_features
from ray_kplm.bench.scale_model import Cluster, Design
from ray_kplm.bench.scale_network import stage1_cost
from ray_kplm.bench.scale_rates import ASSUMED
from ray_kplm.bench.shard_scaling import memory_of, same_assignments, scaling, two_processes
from ray_kplm.bench.timing import in_new_process
from ray_kplm.config import load_config
from ray_kplm.progress import ProgressCallback, part_of
from ray_kplm.run import Run, round_path
from ray_kplm.runtime.session import session
from ray_kplm.storage import Folder

_MEMORY_MILLIONS = (1, 4, 16)
"""Millions of descriptors on which memory is measured."""


def bench(sizes: Sizes, *, memory: bool, run: str | None, progress: ProgressCallback) -> dict[str, Any]:
    """Run all measurements.

    Args:
        sizes: Size of the clustering problem.
        memory: Whether to measure the memory of up to 16 million descriptors, which takes minutes.
        run: A run of whose rounds the share of clustering is reported; None for none.
        progress: Called before each measurement.
    """
    started = time.monotonic()
    show = part_of(progress, 0.0, 0.6 if memory else 1.0)
    results: dict[str, Any] = {"points": sizes.points, "dim": sizes.dim, "clusters": sizes.clusters}
    with tempfile.TemporaryDirectory() as folder:
        root = Folder.at(folder)
        show(0.0, f"writing {sizes.points} descriptors of {sizes.dim} numbers")
        write_features(root / "features", sizes.points, sizes.dim)
        show(0.1, "one shard against faiss.Kmeans")
        results |= in_new_process(os.cpu_count() or 1, against_faiss, root / "features", sizes)
        if torch.cuda.is_available():
            show(0.3, "one shard on a GPU")
            results |= in_new_process(1, on_device, root / "features", sizes, "cuda")
        show(0.4, "assignment against a matrix product, and duplicate filter, on one thread")
        results |= in_new_process(1, one_core, sizes)
        with session(load_config(None).compute):
            show(0.6, "one and two shards, of one thread each")
            results |= scaling(root / "features", sizes)
            results["machine_2_processes"] = two_processes(sizes)
            show(0.8, "equality of the results of 1, 2 and 7 shards")
            results["same_assignments"] = same_assignments(root)
            for index, millions in enumerate(_MEMORY_MILLIONS if memory else ()):
                share = 0.6 + 0.4 * index / len(_MEMORY_MILLIONS)
                progress(share, f"memory of {millions} million descriptors of 64 numbers")
                results |= memory_of(root / f"{millions}M", millions)
    results["thesis_round_share"] = thesis_share(results["fit_vectors_per_core_s"])
    if run:
        results["run_round_share"] = run_share(run)
    progress(1.0, "all measurements")
    return results | {"seconds": time.monotonic() - started}


def thesis_share(vectors_per_core_s: float) -> float:
    """Estimate the share of clustering in the time of a round of `thesis_faces.yaml`, by the assumptions of `kplm bench scale`.

    They are one GPU and the cores beside it, which cluster. A round trains on its views and extracts from as many images, each
    with its mirror image. Clustering has some passes for each fit, and a few on the sample for each start. `kplm bench scale`
    has the other steps, and what happens at the same time.

    Args:
        vectors_per_core_s: Measured number of descriptors assigned per second and core.
    """
    config = load_config(None)
    cost, cluster = stage1_cost(config), Cluster(1)
    views = config.stage1.round_iterations * config.stage1.batch_size * 2
    network = views * (cost.train / ASSUMED["train_flop"][0] + 2 * cost.forward / ASSUMED["forward_flop"][0])
    options = config.clustering
    fitted = Design().fit_passes * options.fit_points + 10 * options.n_init * options.start_sample
    vectors = 2 * fitted + 2 * 2 * views * 2 * config.method.landmarks
    clustering = vectors / vectors_per_core_s / cluster.cores
    return clustering / (clustering + network)


def run_share(uri: str) -> float:
    """Return the share of clustering in the time of a run's rounds, without the warm-up."""
    run = Run.open(uri)
    clustering = total = 0.0
    for number in range(1, run.config.stage1.rounds + 1):
        labels, trained = (run.manifest(f"{round_path(number)}/{name}") or {} for name in ("labels", "train"))
        clustering += labels.get("seconds", 0.0)
        total += sum(facts.get("seconds", 0.0) for facts in (labels, trained)) + labels.get("extraction_seconds", 0.0)
    return clustering / max(total, 1e-9)
