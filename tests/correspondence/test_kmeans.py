"""K-means: against scikit-learn, and bit-identical for any layout of its points."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from ray_kplm.correspondence.assignment import (
    faiss_search,
    gpu_search,
    nearest,
    on_grid,
    squared_distance,
    torch_search,
)
from ray_kplm.correspondence.kmeans import Partial, fit, partial, plus_plus, point_totals

CENTRES = np.eye(6, 12) * np.array([1, -1, 1, -1, 1, -1])[:, None]


def mixture(count: int = 900, spread: float = 0.08, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """float16 (count, 12) about CENTRES, and of which centre."""
    rng = np.random.default_rng(seed)
    of = rng.integers(0, len(CENTRES), count)
    return np.float16(CENTRES[of] + spread * rng.normal(size=(count, 12))), of


class Over:
    """All points in one place."""

    def __init__(self, points):
        self.points = points

    def totals(self):
        return point_totals([self.points])

    def partial(self, centroids):
        return partial([self.points], centroids)


def start(points, seed: int, k: int = 6):
    return plus_plus(points, k, np.random.default_rng(seed))


def test_known_centres_are_found():
    points, of = mixture()
    clustering = fit(Over(points), [start(points, seed) for seed in range(5)], iterations=100, tolerance=0.0)
    cluster = nearest(points, clustering.centroids)
    squared = squared_distance(points, clustering.centroids, cluster)
    matched = [np.bincount(cluster[of == c]).argmax() for c in range(6)]
    assert sorted(matched) == list(range(6))
    np.testing.assert_allclose(clustering.centroids[matched], CENTRES, atol=0.03)
    np.testing.assert_array_equal(clustering.counts[matched], np.bincount(of))
    assert clustering.objectives[-1] == pytest.approx(squared.sum(), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_a_fit_from_one_start_equals_that_of_scikit_learn(seed):
    points, _ = mixture(spread=0.4)
    begin = start(points, seed)
    mine = fit(Over(points), [begin], iterations=300, tolerance=0.0)
    theirs = KMeans(6, init=begin.astype(float), n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(
        points.astype(float)
    )
    np.testing.assert_allclose(mine.centroids, theirs.cluster_centers_, atol=1e-5)
    assert mine.objectives[-1] == pytest.approx(theirs.inertia_, rel=1e-5)


def test_the_objective_never_rises():
    points, _ = mixture(spread=0.5)
    for seed in range(5):
        objectives = fit(Over(points), [start(points, seed, k=25)], iterations=50, tolerance=0.0).objectives
        assert len(objectives) > 5
        assert (np.diff(objectives) <= 0).all()


def test_iterations_and_tolerance_end_a_fit():
    points, _ = mixture(spread=0.5)
    begin = start(points, 0, k=20)
    full = fit(Over(points), [begin], iterations=50, tolerance=0.0).objectives
    assert len(fit(Over(points), [begin], iterations=3, tolerance=0.0).objectives) == 4
    early = fit(Over(points), [begin], iterations=50, tolerance=0.01).objectives
    assert early == full[: len(early)]
    falls = -np.diff(early) / early[:-1]
    assert (falls[:-1] > 0.01).all()
    assert falls[-1] <= 0.01


def test_the_best_of_several_starts_is_returned():
    points, _ = mixture()
    poor = np.repeat(points[:1].astype(np.float32), 6, axis=0) + np.arange(6, dtype=np.float32)[:, None] * 1e-3
    good = CENTRES.astype(np.float32)
    alone = [fit(Over(points), [s], iterations=2, tolerance=0.0).objectives[-1] for s in (poor, good)]
    assert alone[1] < 0.5 * alone[0]
    for starts in ((poor, good), (good, poor)):
        best = fit(Over(points), starts, iterations=2, tolerance=0.0)
        assert best.objectives[-1] == alone[1]


def test_an_empty_cluster_takes_half_of_the_largest():
    rng = np.random.default_rng(0)
    places = np.array([[1.0, 1.0], [1.3, 0.7], [-1.0, 0.5]])
    points = np.float16(places[rng.choice(3, 500, p=[0.4, 0.4, 0.2])] + 0.02 * rng.normal(size=(500, 2)))
    begin = np.array([[1.1, 0.9], [-1.0, 0.5], [9.0, 9.0]], np.float32)  # the third is nobody's
    assert (partial([points], begin).counts > 0).tolist() == [True, True, False]
    clustering = fit(Over(points), [begin], iterations=50, tolerance=0.0)
    assert clustering.counts.min() > 50
    order = clustering.centroids[np.argsort(clustering.centroids[:, 0])]
    np.testing.assert_allclose(order, places[[2, 0, 1]], atol=0.02)


def test_a_fit_does_not_end_on_the_pass_that_splits():
    points, of = mixture()
    means = np.stack([points[of == c].mean(0, dtype=np.float64) for c in range(6)])
    # Converged, but for two places that share a centroid and a centroid without points: the split itself gains next to
    # nothing (its halves are a hair apart), what follows gains half of the objective.
    begin = np.float32([*means[:4], means[4:].mean(0), np.full(12, 9.0)])
    clustering = fit(Over(points), [begin], iterations=50, tolerance=1e-2)
    order = [np.abs(clustering.centroids - mean).sum(1).argmin() for mean in means]
    np.testing.assert_allclose(clustering.centroids[order], means, atol=0.01)


def test_more_clusters_than_distinct_points_are_handled():
    points = np.float16(np.repeat([[1.0, 0.0], [0.0, 1.0]], 10, axis=0))
    clustering = fit(Over(points), [start(points, 0, k=5)], iterations=20, tolerance=1e-4)
    assert np.isfinite(clustering.centroids).all()
    assert clustering.counts.sum() == 20


def test_plus_plus_is_seeded_and_takes_points():
    points, _ = mixture()
    np.testing.assert_array_equal(start(points, 3), start(points, 3))
    assert not np.array_equal(start(points, 3), start(points, 4))
    rows = {row.tobytes() for row in points.astype(np.float32)}
    assert {row.tobytes() for row in start(points, 3)} <= rows


def test_plus_plus_spreads_its_centres():
    points, of = mixture(spread=0.01)
    of_row = {row.tobytes(): c for row, c in zip(points.astype(np.float32), of, strict=True)}
    # Uniform choices would hit all six centres in 6! / 6^6 = 1.5 % of the starts.
    hits = [len({of_row[row.tobytes()] for row in start(points, seed)}) == 6 for seed in range(20)]
    assert np.mean(hits) > 0.9


def test_greedy_starts_find_all_groups_in_noise():
    """Ten tight groups of unequal size among noise: with one candidate a centre, 11 of 20 starts find them all."""
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(32, 32)))[0][:10]
    of = np.repeat(np.arange(10), [600, 500, 400, 400, 300, 200, 200, 100, 100, 80])
    groups = centres[of] + 0.03 * rng.normal(size=(len(of), 32))
    noise = rng.normal(size=(500, 32))
    points = np.concatenate([groups, noise / np.linalg.norm(noise, axis=1, keepdims=True)]).astype(np.float16)
    found = []
    for seed in range(20):
        clustering = fit(Over(points), [start(points, seed, k=10)], iterations=20, tolerance=1e-4)
        nearest_centroid = nearest(centres.astype(np.float16), clustering.centroids)
        found.append(len(set(nearest_centroid.tolist())) == 10)
    assert np.mean(found) >= 0.8


def test_plus_plus_accepts_equal_points():
    assert plus_plus(np.ones((4, 3), np.float16), 3, np.random.default_rng(0)).tolist() == [[1.0] * 3] * 3


def total(partials: list[Partial]) -> Partial:
    out = partials[0]
    for other in partials[1:]:
        out = out + other
    return out


def test_partial_returns_the_sums_and_counts_of_the_clusters():
    points = np.float16([[1, 0], [3, 0], [0, 5]])
    found = partial([points[:2], points[:0], points[2:]], np.float32([[2, 0], [0, 4], [50, 50]]))
    np.testing.assert_array_equal(found.sums, [[4, 0], [0, 5], [0, 0]])
    np.testing.assert_array_equal(found.counts, [2, 1, 0])
    size = point_totals([points[:2], points[:0], points[2:]])
    assert (size.points, size.squares) == (3, 35 * 2**20)
    assert isinstance(size.squares, int)  # whole numbers add up in any order


def test_the_objective_is_the_sum_of_squared_distances():
    points, _ = mixture(spread=0.5)
    clustering = fit(Over(points), [start(points, 0, k=20)], iterations=7, tolerance=0.0)
    cluster = nearest(points, clustering.centroids)
    apart = points.astype(float) - clustering.centroids[cluster].astype(float)
    assert clustering.objectives[-1] == pytest.approx((apart**2).sum(), rel=1e-6)


def test_spherical_centroids_have_unit_length():
    points = unit_points(500)
    clustering = fit(Over(points), [start(points, 0, k=8)], iterations=20, tolerance=0.0, spherical=True)
    np.testing.assert_allclose(np.linalg.norm(clustering.centroids, axis=1), 1, atol=1e-6)
    free = fit(Over(points), [start(points, 0, k=8)], iterations=20, tolerance=0.0)
    assert np.linalg.norm(free.centroids, axis=1).max() < 0.9


def test_every_iteration_is_reported():
    points, _ = mixture(spread=0.5)
    seen = []
    clustering = fit(
        Over(points),
        [start(points, 0, k=20)] * 2,
        iterations=4,
        tolerance=0.0,
        on_iteration=lambda *values: seen.append(values),
    )
    assert [(s, i) for s, i, _ in seen] == [(s, i) for s in (0, 1) for i in (1, 2, 3, 4)]
    assert [objective for s, _, objective in seen if s == 0] == clustering.objectives[1:]


def unit_points(count: int) -> np.ndarray:
    points = np.random.default_rng(0).normal(size=(count, 32))
    return np.float16(points / np.linalg.norm(points, axis=1, keepdims=True))


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_the_layout_of_blocks_does_not_change_the_result(shards):
    points = unit_points(3000)
    centroids = start(points, 0, k=20)
    blocks = np.array_split(points, [400, 900, 1000, 1800, 2950])
    order = np.random.default_rng(shards).permutation(len(blocks))
    found = total(
        [partial([blocks[i] for i in order[shard::shards]], centroids, threads=shards) for shard in range(shards)]
    )
    expected = partial(blocks, centroids)
    assert found.sums.tobytes() == expected.sums.tobytes()
    assert found.counts.tobytes() == expected.counts.tobytes()


class FaissGpu:
    """Stands for the faiss that a GPU build has: how many threads are in it at once, and what was sent to the device."""

    def __init__(self, monkeypatch):
        self.most, self.prepared, self._active, self._lock = 0, 0, 0, threading.Lock()
        resources = object()

        class Index:
            def __init__(self, given, dim, config):
                assert given is resources
                assert not config.use_cuvs
                self.dim = dim

            def add(index, centroids):
                with self:
                    self.prepared += 1
                    assert centroids.shape[1] == index.dim
                    index.centroids = centroids.copy()

            def search(index, points, count):
                with self:
                    return faiss.knn(points, index.centroids, count)

        monkeypatch.setattr(faiss, "StandardGpuResources", lambda: resources, raising=False)
        monkeypatch.setattr(faiss, "GpuIndexFlatConfig", SimpleNamespace, raising=False)
        monkeypatch.setattr(faiss, "GpuIndexFlatL2", Index, raising=False)

    def __enter__(self):
        with self._lock:
            self._active += 1
            self.most = max(self.most, self._active)
        time.sleep(0.001)  # others would come in

    def __exit__(self, *error):
        with self._lock:
            self._active -= 1


def assert_same(found: Partial, expected: Partial):
    assert found.sums.tobytes() == expected.sums.tobytes()
    assert found.counts.tobytes() == expected.counts.tobytes()


def test_a_pass_on_a_gpu_has_one_caller_and_sends_the_centroids_once(monkeypatch):
    points = unit_points(4000)
    centroids = start(points, 0, k=20)
    expected = partial([points], centroids)
    device = FaissGpu(monkeypatch)
    search = gpu_search()
    for passes in (1, 2):
        assert_same(partial(np.array_split(points, 80), centroids, search=search, threads=8), expected)
        assert (device.most, device.prepared) == (1, passes)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "make_search",
    [
        pytest.param(faiss_search, id="faiss"),
        pytest.param(lambda: torch_search(torch.device("cpu")), id="torch"),
        pytest.param(lambda: torch_search(torch.device("cuda")), id="torch-gpu", marks=pytest.mark.gpu),
        pytest.param(gpu_search, id="faiss-gpu", marks=pytest.mark.gpu),
    ],
)
def test_the_search_does_not_change_the_result(make_search, threads, request):
    """Blocks longer than what the search takes at once, and centroids that float32 cannot tell apart among them."""
    if request.node.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    points = unit_points(40_000)
    centroids = start(points[:2000], 0, k=20)
    centroids[10:] = on_grid(centroids[:10] + 2.0**-24)
    found = partial(np.array_split(points, [3, 17_000]), centroids, search=make_search(), threads=threads)
    assert_same(found, partial([points], centroids))
