"""Speed of K-means and of the duplicate filter in one process, against Faiss and against a matrix product."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from ray_kplm.bench.timing import REPEATS, fastest
from ray_kplm.correspondence import duplicates, flip, kmeans
from ray_kplm.correspondence import features as feature_files
from ray_kplm.correspondence.assignment import as_float32, nearest
from ray_kplm.correspondence.backend import Backend, CpuBackend, DeviceBackend
from ray_kplm.correspondence.shard import DescriptorShard
from ray_kplm.correspondence.starts import draw, plus_plus
from ray_kplm.storage import Folder

PART_IMAGES, IMAGE_POINTS = 512, 25
"""Images in a part of synthetic features, and keypoints in an image."""


@dataclass(frozen=True)
class Sizes:
    """Size of the clustering problem.

    Attributes:
        points: Number of descriptors, of images and mirror images together.
        dim: Length of a descriptor.
        clusters: Number of centroids.
        iterations: Iterations of a fit.
    """

    points: int = 300_000
    dim: int = 256
    clusters: int = 100
    iterations: int = 10


def write_features(folder: Folder, points: int, dim: int, *, part_images: int = PART_IMAGES, seed: int = 0) -> None:
    """Write the features of a synthetic round: noisy unit vectors around 200 centres, two for each keypoint."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(200, dim)).astype(np.float32)
    remaining, part = points // 2, 0

    def unit_vectors(count: int) -> NDArray[np.float16]:
        vectors = centres[rng.integers(0, 200, count)] + rng.standard_normal((count, dim), np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float16)

    while remaining > 0:
        count = min(remaining, part_images * IMAGE_POINTS)
        images = -(-count // IMAGE_POINTS)
        counts = np.full(images, IMAGE_POINTS)
        counts[-1] = count - IMAGE_POINTS * (images - 1)
        xy, score = rng.uniform(0, 255, (count, 2)), rng.random(count)
        names = [f"{part}/{i}" for i in range(images)]
        sizes = np.full((images, 2), 256)
        table = feature_files.features_table(names, sizes, counts, xy, score, unit_vectors(count), unit_vectors(count))
        feature_files.write_features(folder, f"part-{part:05d}.parquet", table)
        remaining, part = remaining - count, part + 1


def against_faiss(features: Folder, sizes: Sizes) -> dict[str, Any]:
    """Compare K-means with `faiss.Kmeans` on the same points, start, iterations and threads.

    This implementation holds float16 and makes one more pass over the points, for the final objective; Faiss holds float32.
    """
    threads = os.cpu_count() or 1
    faiss.omp_set_num_threads(threads)
    torch.set_num_threads(1)
    shard, wide, start = _begin(features, sizes, CpuBackend(threads))
    own_seconds, faiss_seconds = [], []
    for _ in range(REPEATS):
        own, seconds = _timed_fit(shard, start, sizes)
        own_seconds.append(seconds)
        faiss.omp_set_num_threads(threads)
        centroids, seconds = _timed_faiss(wide, start, sizes)
        faiss_seconds.append(seconds)
    faiss_objective = float(faiss.knn(wide, centroids, 1)[0].sum(dtype=np.float64))
    return {
        "threads": threads,
        "seconds_ours": min(own_seconds),
        "seconds_faiss": min(faiss_seconds),
        "time_ratio_to_faiss": min(own_seconds) / min(faiss_seconds),
        "objective_ratio_to_faiss": own.objectives[-1] / faiss_objective,
        "fit_vectors_per_core_s": len(wide) * (sizes.iterations + 1) / min(own_seconds) / threads,
    }


def on_device(features: Folder, sizes: Sizes, device: str) -> dict[str, Any]:
    """Time K-means on a device, compare its bits with those of the CPU, and its time with that of Faiss if that has a GPU."""
    torch.set_num_threads(1)
    shard, wide, start = _begin(features, sizes, DeviceBackend(torch.device(device), 2**36))
    fits = [_timed_fit(shard, start, sizes) for _ in range(REPEATS)]
    on_cpu, _ = _timed_fit(_begin(features, sizes, CpuBackend(os.cpu_count() or 1))[0], start, sizes)
    results = {
        "device_seconds": min(seconds for _, seconds in fits),
        "device_has_same_bits": all(np.array_equal(fit.centroids, on_cpu.centroids) for fit, _ in fits),
    }
    if device != "cpu" and hasattr(faiss, "StandardGpuResources"):
        seconds = min(_timed_faiss(wide, start, sizes, gpu=True)[1] for _ in range(REPEATS))
        results |= {"device_seconds_faiss": seconds, "device_ratio_to_faiss": results["device_seconds"] / seconds}
    return results


def _begin(
    features: Folder, sizes: Sizes, backend: Backend
) -> tuple[DescriptorShard, NDArray[np.float32], NDArray[np.float32]]:
    """Return a shard of all features, all its points (N, d) as float32, and a start (k, d)."""
    shard = DescriptorShard(
        features, feature_files.feature_parts(features), memory_bytes=2**36, seed=0, backend=backend
    )
    shard.begin()
    shard.begin_fit(1.0)
    descriptors = np.concatenate([points for _, points in shard.sample(1.0)])
    sample = descriptors[:20_000]
    start = plus_plus(sample, [draw(len(sample), sizes.clusters, np.random.default_rng(0))])[0]
    return shard, as_float32(descriptors), start


def _timed_fit(shard: DescriptorShard, start: NDArray[np.float32], sizes: Sizes) -> tuple[kmeans.Clustering, float]:
    """Return a fit that knows nothing of one before, and its seconds."""
    points = _OneShard(shard)
    began = time.perf_counter()
    return kmeans.fit(points, [start], iterations=sizes.iterations, tolerance=0.0), time.perf_counter() - began


def _timed_faiss(
    points: NDArray[np.float32], start: NDArray[np.float32], sizes: Sizes, *, gpu: bool = False
) -> tuple[NDArray[np.float32], float]:
    """Return the centroids of a fit of Faiss, and its seconds."""
    other = faiss.Kmeans(
        sizes.dim, sizes.clusters, niter=sizes.iterations, nredo=1, max_points_per_centroid=len(points), seed=1, gpu=gpu
    )
    began = time.perf_counter()
    other.train(points, init_centroids=start)
    seconds = time.perf_counter() - began
    assert other.centroids is not None
    return other.centroids, seconds


class _OneShard:
    """A shard in this process as `kmeans.Points`."""

    def __init__(self, shard: DescriptorShard) -> None:
        self._shard, self._totals = shard, shard.begin_fit(1.0)

    def totals(self) -> kmeans.PointTotals:
        return self._totals

    def partial(self, centroids: NDArray[np.float32]) -> kmeans.Partial:
        return self._shard.partial(centroids)


def one_core(sizes: Sizes) -> dict[str, Any]:
    """Measure the assignment against an fp32 matrix product of the same shape, and the duplicate filter, on one thread."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    points = rng.standard_normal((50_000, sizes.dim), np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points = points.astype(np.float16).astype(np.float32)
    centroids = points[: sizes.clusters].copy()
    out = np.empty((len(points), len(centroids)), np.float32)
    product = fastest(lambda: np.matmul(points, centroids.T, out=out))
    product = min(product, fastest(lambda: torch.from_numpy(points) @ torch.from_numpy(centroids).T))
    narrow = points.astype(np.float16)
    assignment = fastest(lambda: nearest(narrow, centroids))

    images = 1_000_000 // IMAGE_POINTS
    image = np.repeat(np.arange(images), IMAGE_POINTS)
    cluster, flipped = rng.integers(0, sizes.clusters, (2, len(image))).astype(np.int32)
    distance = rng.random(len(image))

    def filter_all() -> None:
        step = PART_IMAGES * IMAGE_POINTS
        for begin in range(0, len(image), step):
            piece = slice(begin, begin + step)
            duplicates.keep_nearest(image[piece] - image[begin], cluster[piece], distance[piece])
            flip.flip_counts(cluster[piece], flipped[piece], sizes.clusters)

    return {
        "gemm_share": product / assignment,
        "assigned_vectors_per_s": len(points) / assignment,
        "filter_keypoints_per_s": len(image) / fastest(filter_all),
    }
