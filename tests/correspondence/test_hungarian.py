"""Hungarian assignment per image with a cut-off, against a slow search over all assignments."""

from itertools import permutations

import numpy as np
import pytest

from ray_kplm.correspondence.assignment import nearest, on_grid, squared_distance
from ray_kplm.correspondence.hungarian import match, match_to_previous, spread
from ray_kplm.schemas import NONE

NEVER = np.full(3, np.inf)


def unit(count, seed):
    points = np.random.default_rng(seed).normal(size=(count, 4))
    return np.float16(points / np.linalg.norm(points, axis=1, keepdims=True))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("keypoints", [1, 2, 3, 5])
def test_the_assignment_has_the_least_total_cost(seed, keypoints):
    points, centroids = unit(keypoints, seed), on_grid(unit(3, 100 + seed))
    squared = ((points[:, None].astype(float) - centroids[None]) ** 2).sum(-1)
    found = match(np.array([keypoints]), points, centroids, NEVER)
    used = found[found != NONE]
    assert len(used) == min(keypoints, 3) == len(set(used))
    cost = sum(squared[i, c] for i, c in enumerate(found) if c != NONE)
    if keypoints <= 3:
        costs = [sum(squared[i, c] for i, c in enumerate(p)) for p in permutations(range(3), keypoints)]
    else:
        costs = [sum(squared[i, c] for c, i in enumerate(p)) for p in permutations(range(keypoints), 3)]
    assert cost == pytest.approx(min(costs))


def test_images_are_matched_independently_and_may_be_empty():
    points, centroids = unit(9, 0), on_grid(unit(3, 1))
    together = match(np.array([4, 0, 2, 3]), points, centroids, NEVER)
    apart = [match(np.array([n]), points[a : a + n], centroids, NEVER) for a, n in ((0, 4), (4, 2), (6, 3))]
    np.testing.assert_array_equal(together, np.concatenate(apart))


def test_keypoints_beyond_the_cutoff_have_no_cluster():
    centroids = on_grid(np.eye(3, 4))
    points = np.float16(np.eye(3, 4))
    points[1] = np.float16([0.0, 0.8, 0.6, 0.0])
    distance = np.sqrt(squared_distance(points, centroids, np.arange(3)))[1]
    assert match(np.array([3]), points, centroids, np.array([1, distance + 0.01, 1])).tolist() == [0, 1, 2]
    assert match(np.array([3]), points, centroids, np.array([1, distance - 0.01, 1])).tolist() == [0, NONE, 2]


def test_the_cutoff_is_mean_plus_one_standard_deviation_however_points_are_split():
    points, centroids = unit(300, 0), on_grid(unit(3, 1))
    cluster = nearest(points, centroids)
    squared = squared_distance(points, centroids, cluster)
    whole = spread(cluster, squared, 4)
    parts = spread(cluster[:100], squared[:100], 4) + spread(cluster[100:], squared[100:], 4)
    np.testing.assert_array_equal(whole.cutoff(), parts.cutoff())
    for c in range(3):
        distance = np.sqrt(squared[cluster == c])
        assert whole.cutoff()[c] == pytest.approx(distance.mean() + distance.std(), abs=1e-4)
    assert whole.cutoff()[3] == np.inf


def test_clusters_keep_the_numbers_of_the_last_round():
    before = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    order = np.random.default_rng(1).permutation(6)
    after = (before[order] + 0.05).astype(np.float32)
    found = match_to_previous(before, after)
    np.testing.assert_allclose(after[found], before, atol=0.06)
