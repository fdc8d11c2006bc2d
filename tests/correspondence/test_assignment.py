"""The nearest centroid, exactly: also for centroids equal in float32, in any block, and with the lower index on a tie."""

import faiss
import numpy as np
import pytest

from ray_kplm.correspondence.assignment import (
    BLOCK,
    Assigner,
    as_float32,
    exact_scores,
    nearest,
    on_grid,
    squared_distance,
)


def unit(count, dim=32, seed=0):
    points = np.random.default_rng(seed).normal(size=(count, dim))
    return np.float16(points / np.linalg.norm(points, axis=1, keepdims=True))


def slow(points, centroids):
    """By definition, in whole numbers: descriptors and centroids are multiples of 2^-24."""
    x = [[int(v) for v in row] for row in points.astype(np.float64) * 2**24]
    c = [[int(v) for v in row] for row in centroids.astype(np.float64) * 2**24]
    distances = [[sum((a - b) ** 2 for a, b in zip(row, centre, strict=True)) for centre in c] for row in x]
    return [row.index(min(row)) for row in distances]


def test_assignments_are_the_nearest_centroids_by_definition():
    points, centroids = unit(200), on_grid(unit(9, seed=1))
    found = nearest(points, centroids)
    assert found.tolist() == slow(points, centroids)
    assert found.dtype == np.int32
    every = ((points[:, None].astype(float) - centroids[None]) ** 2).sum(-1)
    np.testing.assert_allclose(squared_distance(points, centroids, found), every.min(1), rtol=1e-12)


def test_centroids_that_are_equal_in_float32_are_assigned_exactly():
    points = unit(300)
    base = unit(1, seed=1).astype(np.float64)
    # Twelve centroids on one spot, but for steps of the grid: differences of distances are near 1e-7.
    steps = np.random.default_rng(2).integers(-2, 3, (12, 32)) * 2.0**-24
    centroids = on_grid(base + steps)
    truth = slow(points, centroids)
    float32 = faiss.knn(as_float32(points), centroids, 1)[1][:, 0]
    assert (float32 != truth).mean() > 0.05  # the case is one: a plain float32 search is wrong
    assert nearest(points, centroids).tolist() == truth


def test_ties_go_to_the_lower_index():
    points = unit(500)
    centre = on_grid(unit(4, seed=3))
    assert set(nearest(points, np.concatenate([centre, centre])).tolist()) <= {0, 1, 2, 3}
    mirrored = on_grid(np.array([[0.5, 0.25], [0.5, -0.25]]))
    assert nearest(np.float16([[1, 0], [0.3, 0]]), mirrored).tolist() == [0, 0]
    assert nearest(np.float16([[1, 0], [0.3, 0]]), mirrored[::-1].copy()).tolist() == [0, 0]


@pytest.mark.parametrize("cut", [1, 7, 1000, BLOCK, 3 * BLOCK])
def test_the_split_into_blocks_does_not_change_assignments(cut):
    points, centroids = unit(2 * BLOCK + 5, dim=8), on_grid(unit(50, dim=8, seed=1))
    whole = nearest(points, centroids)
    if cut == 1:
        points, whole = points[:50], whole[:50]
    pieces = [nearest(points[start : start + cut], centroids) for start in range(0, len(points), cut)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_assignments(threads):
    points, centroids = unit(2 * BLOCK + 5, dim=8), on_grid(unit(50, dim=8, seed=1))
    assert (
        Assigner(centroids, threads)(points).tolist() == faiss.knn(as_float32(points), centroids, 1)[1][:, 0].tolist()
    )


def test_the_second_nearest_is_another_centroid():
    points, centroids = unit(100), on_grid(unit(9, seed=1))
    found = Assigner(centroids).nearest(as_float32(points), 1.01)
    squared = np.sort(((points[:, None].astype(float) - centroids[None]) ** 2).sum(-1), axis=1)
    np.testing.assert_allclose(found.squared, squared[:, 0], atol=1e-6)
    np.testing.assert_allclose(found.second_squared, squared[:, 1], atol=1e-6)
    one = Assigner(centroids[:1]).nearest(as_float32(points), 1.01)
    assert set(one.second_squared.tolist()) == {np.inf}


def test_scores_are_exact():
    points, centroids = unit(50, dim=256), on_grid(unit(5, dim=256, seed=1))
    order = np.random.default_rng(0).permutation(256)
    np.testing.assert_array_equal(exact_scores(points, centroids), exact_scores(points[:, order], centroids[:, order]))


def test_no_points_or_a_single_centroid_need_no_search():
    assert nearest(unit(0), on_grid(unit(3))).tolist() == []
    assert nearest(unit(3), on_grid(unit(1))).tolist() == [0, 0, 0]
