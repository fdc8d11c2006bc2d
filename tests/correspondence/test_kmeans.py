"""K-means: against scikit-learn, and bit-identical for any layout of its points."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans

from ray_kplm.correspondence.assignment import nearest, squared_distance
from ray_kplm.correspondence.kmeans import Partial, fit, partial, point_totals, squares
from ray_kplm.correspondence.starts import draw, plus_plus

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
        return point_totals(self.points)

    def partial(self, centroids):
        return partial(self.points, centroids)


def start(points, seed: int, k: int = 6):
    return plus_plus(points, [draw(len(points), k, np.random.default_rng(seed))])[0]


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
    assert (partial(points, begin).counts > 0).tolist() == [True, True, False]
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


def total(partials: list[Partial]) -> Partial:
    out = partials[0]
    for other in partials[1:]:
        out = out + other
    return out


def test_partial_returns_the_sums_and_counts_of_the_clusters():
    points = np.float16([[1, 0], [3, 0], [0, 5]])
    found = partial(points, np.float32([[2, 0], [0, 4], [50, 50]]))
    np.testing.assert_array_equal(found.sums, [[4, 0], [0, 5], [0, 0]])
    np.testing.assert_array_equal(found.counts, [2, 1, 0])
    size = point_totals(points)
    assert (size.points, size.squares) == (3, 35 * 2**20)
    assert isinstance(size.squares, int)  # whole numbers add up in any order


def test_points_that_are_zero_or_not_finite_have_no_length():
    points = np.float16([[1, 0], [0, 0], [np.nan, 1], [0, np.inf], [2**-24, 0]])
    assert squares(points).tolist() == [2**20, -1, -1, -1, 0]


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
    assert [i for i, _ in seen] == [1, 2, 3, 4] * 2
    assert [objective for _, objective in seen[:4]] == clustering.objectives[1:]


def unit_points(count: int) -> np.ndarray:
    points = np.random.default_rng(0).normal(size=(count, 32))
    return np.float16(points / np.linalg.norm(points, axis=1, keepdims=True))


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_the_layout_of_blocks_does_not_change_the_result(shards):
    points = unit_points(3000)
    centroids = start(points, 0, k=20)
    blocks = np.array_split(points, [400, 900, 1000, 1800, 2950])
    order = np.random.default_rng(shards).permutation(len(blocks))
    found = total([partial(blocks[i], centroids) for shard in range(shards) for i in order[shard::shards]])
    expected = partial(points, centroids)
    assert found.sums.tobytes() == expected.sums.tobytes()
    assert found.counts.tobytes() == expected.counts.tobytes()
