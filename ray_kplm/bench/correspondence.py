"""`kplm bench correspondence`: the pseudo-label update against Faiss, over shards, and against its memory budget."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from multiprocessing import get_context
from operator import add
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.config import Config, load_config
from ray_kplm.correspondence import duplicates, flip, kmeans
from ray_kplm.correspondence.assignment import as_float32, nearest
from ray_kplm.correspondence.features import table_of
from ray_kplm.correspondence.shard import DescriptorShard
from ray_kplm.correspondence.update import update
from ray_kplm.methods import build_method
from ray_kplm.progress import ProgressCallback
from ray_kplm.run import Run, round_path
from ray_kplm.runtime.kmeans_actors import ActorShards, cluster_with_actors
from ray_kplm.runtime.session import session
from ray_kplm.storage import Folder

_PART_IMAGES, _IMAGE_POINTS = 512, 25
_REPEATS = 3
_GPU_FLOPS = 30e12
"""Assumed for the thesis' network in training on one GPU (bf16, a tenth of an A100's peak: many small layers)."""
_NODE_CORES = 16
"""Assumed beside that GPU."""
_FORWARD_FLOP = 20.8e9
"""An image through the thesis' network (docs/method.md 11)."""


@dataclass(frozen=True)
class Sizes:
    """points: descriptors, plain and mirrored; dim d; clusters k; iterations of a fit."""

    points: int = 300_000
    dim: int = 256
    clusters: int = 100
    iterations: int = 10


def bench(sizes: Sizes, *, memory: bool, run: str | None, progress: ProgressCallback) -> dict[str, Any]:
    """All measurements; `memory` adds the long one, `run` the share of clustering in that run's rounds."""
    started = time.monotonic()
    found: dict[str, Any] = {"points": sizes.points, "dim": sizes.dim, "clusters": sizes.clusters}
    with tempfile.TemporaryDirectory() as folder:
        root = Folder.at(folder)
        progress(0.0, f"writing {sizes.points} descriptors of {sizes.dim} numbers")
        write_features(root / "features", sizes.points, sizes.dim)
        progress(0.1, "one shard against faiss.Kmeans")
        found |= _alone(os.cpu_count() or 1, against_faiss, root / "features", sizes)
        progress(0.4, "assignment against a matrix product; duplicate filter; one thread")
        found |= _alone(1, one_core, sizes)
        with session(load_config(None).compute):
            progress(0.5, "one shard and two, of one thread each")
            found |= scaling(root / "features", sizes)
            found["machine_2_processes"] = two_processes(sizes)
            progress(0.6, "1, 2 and 7 shards: the same?")
            write_features(root / "small", 8 * 2 * _PART_IMAGES * _IMAGE_POINTS // 4, 64, part_images=_PART_IMAGES // 4)
            found["same_assignments"] = same_assignments(root)
            if memory:
                for millions in (1, 4, 16):
                    progress(0.8, f"memory: {millions} million descriptors of 64 numbers, a budget of 0.5 GiB")
                    found |= memory_of(root / f"{millions}M", millions)
    found["thesis_round_share"] = thesis_share(found["fit_vectors_per_core_s"])
    if run:
        found["run_round_share"] = run_share(run)
    return found | {"seconds": time.monotonic() - started}


def write_features(folder: Folder, points: int, dim: int, *, part_images: int = _PART_IMAGES, seed: int = 0) -> None:
    """Features of a made-up round: unit vectors about 200 places, two (plain and mirrored) a keypoint."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(200, dim)).astype(np.float32)
    left, part = points // 2, 0

    def unit(count: int) -> NDArray[np.float16]:
        made = places[rng.integers(0, 200, count)] + rng.standard_normal((count, dim), np.float32)
        return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)

    while left > 0:
        count = min(left, part_images * _IMAGE_POINTS)
        images = -(-count // _IMAGE_POINTS)
        counts = np.full(images, _IMAGE_POINTS)
        counts[-1] = count - _IMAGE_POINTS * (images - 1)
        xy, score = rng.uniform(0, 255, (count, 2)), rng.random(count)
        names = [f"{part}/{i}" for i in range(images)]
        sizes = np.full((images, 2), 256)
        table = table_of(names, sizes, counts, xy, score, unit(count), unit(count))
        folder.write_table(f"part-{part:05d}.parquet", table)
        left, part = left - count, part + 1


def against_faiss(features: Folder, sizes: Sizes) -> dict[str, Any]:
    """The same points, start, iterations and threads. Ours holds float16 and passes over the points once more, for the last
    objective; Faiss holds float32."""
    threads = os.cpu_count() or 1
    faiss.omp_set_num_threads(threads)
    torch.set_num_threads(1)
    shard = DescriptorShard(features, features.parts(), memory_bytes=2**36, seed=0, threads=threads)
    shard.begin()
    points = _OneShard(shard)
    descriptors = np.concatenate([p for _, p in shard.sample(1.0)])
    start = kmeans.plus_plus(descriptors[:20_000], sizes.clusters, np.random.default_rng(0))
    wide = as_float32(descriptors)
    ours, theirs = [], []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        mine = kmeans.fit(points, [start], iterations=sizes.iterations, tolerance=0.0)
        ours.append(time.perf_counter() - began)
        other = faiss.Kmeans(
            sizes.dim, sizes.clusters, niter=sizes.iterations, nredo=1, max_points_per_centroid=len(wide), seed=1
        )
        faiss.omp_set_num_threads(threads)
        began = time.perf_counter()
        other.train(wide, init_centroids=start)
        theirs.append(time.perf_counter() - began)
    assert other.centroids is not None
    final = float(faiss.knn(wide, other.centroids, 1)[0].sum(dtype=np.float64))
    return {
        "threads": threads,
        "seconds_ours": min(ours),
        "seconds_faiss": min(theirs),
        "time_ratio_to_faiss": min(ours) / min(theirs),
        "objective_ratio_to_faiss": mine.objectives[-1] / final,
        "fit_vectors_per_core_s": len(wide) * (sizes.iterations + 1) / min(ours) / threads,
    }


class _OneShard:
    """`kmeans.Points` of a shard in this process."""

    def __init__(self, shard: DescriptorShard) -> None:
        self._shard, self._size = shard, shard.begin_fit(1.0)

    def size(self) -> kmeans.Size:
        return self._size

    def partial(self, centroids: NDArray[np.float32]) -> kmeans.Partial:
        return self._shard.partial(centroids)


def one_core(sizes: Sizes) -> dict[str, Any]:
    """Assignment against an fp32 matrix product of the same shape, and the duplicate filter; both on one thread."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    points = rng.standard_normal((50_000, sizes.dim), np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points = points.astype(np.float16).astype(np.float32)
    centroids = points[: sizes.clusters].copy()
    out = np.empty((len(points), len(centroids)), np.float32)
    product = _best(lambda: np.matmul(points, centroids.T, out=out))
    product = min(product, _best(lambda: torch.from_numpy(points) @ torch.from_numpy(centroids).T))
    narrow = points.astype(np.float16)
    assignment = _best(lambda: nearest(narrow, centroids))

    images = 1_000_000 // _IMAGE_POINTS
    image = np.repeat(np.arange(images), _IMAGE_POINTS)
    cluster, flipped = rng.integers(0, sizes.clusters, (2, len(image))).astype(np.int32)
    distance = rng.random(len(image))

    def filter_all() -> None:
        step = _PART_IMAGES * _IMAGE_POINTS
        for begin in range(0, len(image), step):
            piece = slice(begin, begin + step)
            duplicates.keep_nearest(image[piece] - image[begin], cluster[piece], distance[piece])
            flip.flip_counts(cluster[piece], flipped[piece], sizes.clusters)

    return {
        "gemm_share": product / assignment,
        "assigned_vectors_per_s": len(points) / assignment,
        "filter_keypoints_per_s": len(image) / _best(filter_all),
    }


def scaling(features: Folder, sizes: Sizes) -> dict[str, float]:
    """Passes of K-means through Ray: 1 shard on all points, 2 shards on all, 1 shard on half; one thread each."""
    parts = features.parts()
    rng = np.random.default_rng(0)
    centroids = rng.standard_normal((sizes.clusters, sizes.dim)).astype(np.float32)
    centroids = kmeans.on_grid(centroids / np.linalg.norm(centroids, axis=1, keepdims=True))

    def seconds(shards: int, of: list[str]) -> float:
        config = _config(sizes, f"compute.shards={shards}", "compute.threads=1", "clustering.memory_gib=8")
        spread = ActorShards(config, features, of)
        spread.ask("begin")
        spread.ask("begin_fit", 1.0)
        taken = _best(lambda: [reduce(add, spread.ask("partial", centroids)) for _ in range(3)])
        spread.close()
        return taken

    one, two, half = seconds(1, parts), seconds(2, parts), seconds(1, parts[::2])
    share = len(parts[::2]) / len(parts)
    return {"speedup_2_shards": one / two, "weak_scaling": half / share / 2 / two}


def two_processes(sizes: Sizes) -> float:
    """How much more two processes of one thread multiply than one does: what this machine's cores allow two shards."""
    with _processes(2, 1) as pool:
        list(pool.map(_products, [sizes] * 2))  # both have started
        alone = pool.submit(_products, sizes).result()
        return sum(pool.map(_products, [sizes] * 2)) / alone


def _products(sizes: Sizes, seconds: float = 3.0) -> float:
    """Matrix products a second, of blocks of points and the centroids."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((4096, sizes.dim), np.float32)
    centroids, out = points[: sizes.clusters].T.copy(), np.empty((len(points), sizes.clusters), np.float32)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        np.matmul(points, centroids, out=out)
        count += 1
    return count / (time.perf_counter() - began)


def same_assignments(root: Folder) -> bool:
    """Whether 1, 2 and 7 shards give the same centroids and the same labels, bit for bit, and so does a second run."""
    features, seen = root / "small", []
    for number, shards in enumerate((1, 2, 7, 2)):
        config = load_config(None, ["method.landmarks=10", "method.clusters=100", f"compute.shards={shards}"])
        labels = root / f"labels{number}"
        spread = ActorShards(config, features, features.parts())
        found = update(spread, labels, config, 1, lambda share, text: None)
        spread.close()
        tables = [labels.read_table(part) for part in labels.parts()]
        seen.append((found.landmark_centroids.tobytes(), found.cluster_centroids.tobytes(), tables))
    first = seen[0]
    return all(
        other[:2] == first[:2] and all(a.equals(b) for a, b in zip(other[2], first[2], strict=True))
        for other in seen[1:]
    )


def memory_of(root: Folder, millions: int) -> dict[str, float]:
    """Peak memory above a process's start, in MiB, of the coordinator and of the larger of two shards; and of its budget."""
    budget = 0.5
    write_features(root / "features", millions * 1_000_000, 64, part_images=2048)
    config = load_config(
        None,
        ["method.landmarks=10", "method.clusters=100", "clustering.n_init=1", "clustering.iterations=2", "compute.shards=2",
         f"clustering.memory_gib={budget}", "clustering.fit_points=0"],
    )  # fmt: skip
    facts = cluster_with_actors(
        root / "features", (root / "features").parts(), root / "labels", root, build_method(config), 1
    )
    (root / "features").delete()
    peaks = facts["memory_mib"]
    return {
        f"coordinator_mib_{millions}m": peaks["coordinator"],
        f"shard_mib_{millions}m": max(peaks["shards"]),
        f"shard_of_budget_{millions}m": max(peaks["shards"]) / (budget * 1024),
    }


def thesis_share(vectors_per_core_s: float) -> float:
    """Clustering in a round of `thesis_faces.yaml`, by calculation: one GPU of 30 TFLOP/s, 16 cores, 25 passes a fit and 10 for
    each start on the sample.

    The round: 5,000 iterations of 32 views, three forward-equivalents each, then two forward passes of as many images.
    """
    config = load_config(None)
    views = config.stage1.round_iterations * config.stage1.batch_size * 2
    network = views * (3 + 2) * _FORWARD_FLOP / _GPU_FLOPS
    options = config.clustering
    fitted = 25 * options.fit_points + 10 * options.n_init * options.start_sample
    vectors = 2 * fitted + 2 * 2 * views * 2 * config.method.landmarks
    clustering = vectors / vectors_per_core_s / _NODE_CORES
    return clustering / (clustering + network)


def run_share(uri: str) -> float:
    """Of the time of a run's rounds, what clustering took."""
    run = Run.open(uri)
    clustering = whole = 0.0
    for number in range(1, run.config.stage1.rounds + 1):
        labels, trained = (run.manifest(f"{round_path(number)}/{name}") or {} for name in ("labels", "train"))
        clustering += labels.get("seconds", 0.0)
        whole += sum(facts.get("seconds", 0.0) for facts in (labels, trained)) + labels.get("extraction_seconds", 0.0)
    return clustering / max(whole, 1e-9)


def _config(sizes: Sizes, *overrides: str) -> Config:
    return load_config(None, [f"method.landmarks={sizes.clusters}", f"method.clusters={sizes.clusters}", *overrides])


def _best(call: Callable[[], Any]) -> float:
    """Seconds of the fastest of several calls, after one that does not count."""
    call()
    taken = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return min(taken)


def _alone(threads: int, function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Call a function in a process of its own whose libraries have so many threads."""
    with _processes(1, threads) as pool:
        return pool.submit(function, *arguments).result()


@contextmanager
def _processes(count: int, threads: int) -> Iterator[ProcessPoolExecutor]:
    """Processes whose libraries have so many threads."""
    kept = dict(os.environ)
    os.environ.update(OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    try:
        with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
            yield pool
    finally:
        os.environ.clear()
        os.environ.update(kept)
