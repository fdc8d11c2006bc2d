"""Speed, determinism and memory of clustering over several shards."""

from __future__ import annotations

import time
from functools import reduce
from operator import add

import numpy as np

from ray_kplm.bench.kmeans_speed import IMAGE_POINTS, PART_IMAGES, Sizes, write_features
from ray_kplm.bench.timing import fastest, process_pool
from ray_kplm.config import Config, load_config
from ray_kplm.correspondence.assignment import on_grid
from ray_kplm.correspondence.features import feature_parts
from ray_kplm.correspondence.update import update
from ray_kplm.methods import build_method
from ray_kplm.progress import ignore_progress
from ray_kplm.runtime.kmeans_actors import ActorShards, cluster_with_actors
from ray_kplm.storage import Folder

_MEMORY_GIB = 0.5
"""Memory budget of a shard in `memory_of`."""


def scaling(features: Folder, sizes: Sizes) -> dict[str, float]:
    """Time passes of K-means through Ray: one and two shards on all points, and one on half of them, one thread each."""
    parts = feature_parts(features)
    rng = np.random.default_rng(0)
    centroids = rng.standard_normal((sizes.clusters, sizes.dim)).astype(np.float32)
    centroids = on_grid(centroids / np.linalg.norm(centroids, axis=1, keepdims=True))

    def seconds(shards: int, some_parts: list[str]) -> float:
        config = _config(sizes, f"compute.shards={shards}", "compute.threads=1", "clustering.memory_gib=8")
        actors = ActorShards(config, features, some_parts)
        actors.ask("begin")
        actors.ask("begin_fit", 1.0)
        # Of centroids in turns that are far from each other, no point keeps its cluster: each pass assigns all points.
        turns = [centroids, centroids[::-1], centroids]
        taken = fastest(lambda: [reduce(add, actors.ask("partial", turn)) for turn in turns])
        actors.close()
        return taken

    one, two, half = seconds(1, parts), seconds(2, parts), seconds(1, parts[::2])
    share = len(parts[::2]) / len(parts)
    return {"speedup_2_shards": one / two, "weak_scaling": half / share / 2 / two}


def two_processes(sizes: Sizes) -> float:
    """Return the speed of two processes of one thread relative to one: the limit of two shards on this machine."""
    with process_pool(2, 1) as pool:
        list(pool.map(_products, [sizes] * 2))  # starts both processes
        alone = pool.submit(_products, sizes).result()
        return sum(pool.map(_products, [sizes] * 2)) / alone


def _products(sizes: Sizes, seconds: float = 3.0) -> float:
    """Return the number of matrix products of points and centroids per second."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((4096, sizes.dim), np.float32)
    centroids, out = points[: sizes.clusters].T.copy(), np.empty((len(points), sizes.clusters), np.float32)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        np.matmul(points, centroids, out=out)
        count += 1
    return count / (time.perf_counter() - began)


def same_assignments(root: Folder) -> bool:
    """Return whether 1, 2 and 7 shards, and 2 once more, give the same centroids and labels bit for bit.

    Args:
        root: Folder for the features and the labels.
    """
    features, results = root / "small", []
    write_features(features, 8 * 2 * PART_IMAGES * IMAGE_POINTS // 4, 64, part_images=PART_IMAGES // 4)
    for number, shards in enumerate((1, 2, 7, 2)):
        config = load_config(None, ["method.landmarks=10", "method.clusters=100", f"compute.shards={shards}"])
        labels = root / f"labels{number}"
        actors = ActorShards(config, features, feature_parts(features))
        found = update(actors, labels, config, 1, ignore_progress)
        actors.close()
        tables = [labels.read_table(part) for part in labels.parts()]
        results.append((found.landmark_centroids.tobytes(), found.cluster_centroids.tobytes(), tables))
    first = results[0]
    return all(
        other[:2] == first[:2] and all(a.equals(b) for a, b in zip(other[2], first[2], strict=True))
        for other in results[1:]
    )


def memory_of(root: Folder, millions: int) -> dict[str, float]:
    """Measure the peak memory of clustering with two shards on some millions of descriptors.

    Returns:
        The memory above that at the processes' start, in MiB, of the coordinator and of the larger shard, and the latter's
        share of its budget.
    """
    write_features(root / "features", millions * 1_000_000, 64, part_images=2048)
    config = load_config(
        None,
        ["method.landmarks=10", "method.clusters=100", "clustering.n_init=1", "clustering.iterations=2", "compute.shards=2",
         f"clustering.memory_gib={_MEMORY_GIB}", "clustering.fit_points=0"],
    )  # fmt: skip
    facts = cluster_with_actors(
        root / "features", (root / "features").parts(), root / "labels", root, build_method(config), 1
    )
    (root / "features").delete()
    peaks = facts["memory_mib"]
    return {
        f"coordinator_mib_{millions}m": peaks["coordinator"],
        f"shard_mib_{millions}m": max(peaks["shards"]),
        f"shard_of_budget_{millions}m": max(peaks["shards"]) / (_MEMORY_GIB * 1024),
    }


def _config(sizes: Sizes, *overrides: str) -> Config:
    return load_config(None, [f"method.landmarks={sizes.clusters}", f"method.clusters={sizes.clusters}", *overrides])
